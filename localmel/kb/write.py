"""Make a KB, add to it, take from it: each as one transaction.

In: a `KbSource` (entities and triples with where they were read).  Out: a changed KB folder, and counts.
Killed half-way, full disk or a bad line: the KB is as it was.  Knows file formats only through the source."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from pathlib import Path

from localmel.artifacts import full_disk_is_reported, replace_folder
from localmel.errors import BadInput, ImportProblem
from localmel.kb.folding import fold
from localmel.kb.importers.source import EntityRow, KbSource, Problems, TripleRow
from localmel.kb.schema import DATABASE, INDEXES, connect, create, translated
from localmel.records import Entity, EntityId

_HEADS_REMEMBERED = 500_000
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What one import or removal did."""

    entities: int
    triples: int
    problems: int = 0


def build_kb(folder: Path, source: KbSource, problems: Problems, *, replace: bool = False) -> Changed:
    """Make a KB in `folder` from nothing.  An existing one is replaced only on request, and only at the end."""
    if folder.exists() and not replace:
        raise BadInput(f"{folder} is there already", hint="add --replace, or choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    with full_disk_is_reported(folder):
        try:
            temporary.mkdir()
            connection = create(temporary / DATABASE)
            try:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                with _transaction(connection, folder / DATABASE):
                    changed = _Writer(connection, problems, empty=True).load(source)
                    for statement in INDEXES.strip().split(";\n"):
                        connection.execute(statement)
                    _count_triples(connection)
                    connection.execute("INSERT INTO name_words(name_words) VALUES ('rebuild')")
                    _list_words(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("ANALYZE")
            except sqlite3.Error as error:
                raise translated(error, folder / DATABASE) from error
            finally:
                connection.close()
            if (folder / "vectors").is_dir():  # vectors of unchanged texts are used again by the next index
                (folder / "vectors").rename(temporary / "vectors")
            replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return changed


def add_to_kb(folder: Path, source: KbSource, problems: Problems, *, update: bool = False) -> Changed:
    """Add entities and triples to a live KB.

    An id that the KB has already is a problem, unless `update`: then its label, description, names, image and
    popularity are replaced and its new triples join the old ones."""
    with _writing(folder) as connection:
        changed = _Writer(connection, problems, empty=False, update=update).load(source)
        _count_triples(connection)
    return changed


def remove_from_kb(folder: Path, ids: Iterable[EntityId]) -> Changed:
    """Take entities, their names and the triples they head from a live KB.

    Triples of others that end in them stay, as words.  An unknown id changes nothing at all."""
    wanted = list(dict.fromkeys(ids))
    with _writing(folder) as connection:
        rows, unknown = [], []
        for entity_id in wanted:
            found = connection.execute("SELECT row FROM entities WHERE id = ?", (entity_id,)).fetchone()
            rows.append(found[0]) if found else unknown.append(entity_id)
        if unknown:
            raise BadInput(
                f"kb {folder.name!r} has no entity {', '.join(map(repr, unknown[:5]))}; nothing was removed",
                hint=f"localmel kb search NAME --kb {folder.name}",
            )
        triples = 0
        for row in rows:
            _forget_names(connection, row)
            triples += connection.execute("DELETE FROM triples WHERE head = ?", (row,)).rowcount
            connection.execute("DELETE FROM images WHERE entity = ?", (row,))
            connection.execute("DELETE FROM entities WHERE row = ?", (row,))
        _move_fingerprint(connection, hashlib.sha256(repr(("remove", wanted)).encode()))
    return Changed(entities=len(rows), triples=triples)


@contextmanager
def _transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All of it or nothing; SQLite's own failures come out as localmel errors that name `path`."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _writing(folder: Path) -> Iterator[sqlite3.Connection]:
    from localmel.kb.store import KnowledgeBase

    KnowledgeBase(folder).close()
    connection = connect(folder / DATABASE, writable=True)
    try:
        with full_disk_is_reported(folder), _transaction(connection, folder / DATABASE):
            yield connection
    finally:
        connection.close()


class _Writer:
    """Puts the rows of one source into an open transaction."""

    def __init__(
        self, connection: sqlite3.Connection, problems: Problems, *, empty: bool, update: bool = False
    ) -> None:
        self._connection = connection
        self._problems = problems
        self._empty = empty  # a new KB: full-text tables are filled once at the end
        self._update = update
        self._digest = hashlib.sha256()
        self._next_name = count(_next(connection, "names", "name"))
        self._relations: dict[tuple[str, str], int] = {
            (predicate, label): relation
            for relation, predicate, label in connection.execute("SELECT relation, predicate, label FROM relations")
        }
        self._head_row: Callable[[EntityId], int | None] = lru_cache(maxsize=_HEADS_REMEMBERED)(self._find_row)

    def load(self, source: KbSource) -> Changed:
        entities = sum(self._add_entity(row) for row in source.entities())
        triples = 0
        rows = self._triple_values(source.triples())
        while batch := tuple(islice(rows, _ROWS_AT_ONCE)):
            self._digest.update(repr(batch).encode())
            self._connection.executemany(
                "INSERT INTO triples(head, relation, tail_id, tail) VALUES (?, ?, ?, ?)", batch
            )
            triples += len(batch)
        self._problems.finish()
        if not entities and not triples:
            raise BadInput("the import holds no entity and no triple", hint="localmel kb build --help")
        _move_fingerprint(self._connection, self._digest)
        return Changed(entities=entities, triples=triples, problems=self._problems.count)

    def _find_row(self, entity_id: EntityId) -> int | None:
        found = self._connection.execute("SELECT row FROM entities WHERE id = ?", (entity_id,)).fetchone()
        return found[0] if found else None

    def _add_entity(self, read: EntityRow) -> bool:
        entity = read.entity
        self._digest.update(repr(entity).encode())
        values = (entity.label, entity.description, entity.popularity, entity.id)
        try:
            row = self._connection.execute(
                "INSERT INTO entities(label, description, popularity, id) VALUES (?, ?, ?, ?)", values
            ).lastrowid
        except sqlite3.IntegrityError:
            if not self._update:
                fact = f"entity id {entity.id!r} stands twice" if self._empty else f"the KB has {entity.id!r} already"
                hint = "" if self._empty else "add --update to replace what the KB has"
                self._problems.report(ImportProblem(fact, source=read.source, line=read.line, hint=hint))
                return False
            sql = "UPDATE entities SET label = ?, description = ?, popularity = ? WHERE id = ? RETURNING row"
            (row,) = self._connection.execute(sql, values).fetchone()
            _forget_names(self._connection, row)
        assert row is not None
        self._add_names(row, entity)
        if entity.image:
            self._connection.execute("INSERT OR REPLACE INTO images VALUES (?, ?)", (row, entity.image))
        return True

    def _add_names(self, row: int, entity: Entity) -> None:
        seen = set()
        for position, text in enumerate((entity.label, *entity.aliases)):
            folded = fold(text)
            if folded in seen or (not folded and position):
                continue
            seen.add(folded)
            name = next(self._next_name)
            self._connection.execute(
                "INSERT INTO names VALUES (?, ?, ?, ?, ?)", (name, row, text, folded, not position)
            )
            if not self._empty:
                self._connection.execute("INSERT INTO name_words(rowid, folded) VALUES (?, ?)", (name, folded))
                words = [(word, word[::-1]) for word in folded.split()]
                self._connection.executemany("INSERT OR IGNORE INTO words VALUES (?, ?)", words)

    def _triple_values(self, rows: Iterable[TripleRow]) -> Iterator[tuple[int, int, str, str]]:
        head_row, relations = self._head_row, self._relations
        for read in rows:
            head = head_row(read.head)
            if head is None:
                self._problems.report(
                    ImportProblem(f"head {read.head!r} is no entity of the KB", source=read.source, line=read.line)
                )
                continue
            relation = relations.get((read.predicate, read.relation))
            if relation is None:
                relation = self._add_relation(read.predicate, read.relation)
            yield head, relation, read.tail_id, read.tail

    def _add_relation(self, predicate: str, label: str) -> int:
        cursor = self._connection.execute("INSERT INTO relations(predicate, label) VALUES (?, ?)", (predicate, label))
        assert cursor.lastrowid is not None
        self._relations[predicate, label] = cursor.lastrowid
        return cursor.lastrowid


def _next(connection: sqlite3.Connection, table: str, column: str) -> int:
    return int(connection.execute(f"SELECT coalesce(max({column}), 0) + 1 FROM {table}").fetchone()[0])


def _forget_names(connection: sqlite3.Connection, row: int) -> None:
    """Names leave the full-text table by naming the old text, as external-content FTS5 asks.

    Their words stay listed: a word that no name has any more leads nowhere."""
    for name, folded in connection.execute("SELECT name, folded FROM names WHERE entity = ?", (row,)).fetchall():
        connection.execute("INSERT INTO name_words(name_words, rowid, folded) VALUES ('delete', ?, ?)", (name, folded))
    connection.execute("DELETE FROM names WHERE entity = ?", (row,))


def _list_words(connection: sqlite3.Connection) -> None:
    """Every different word of a name, forwards and backwards."""
    connection.create_function("backwards", 1, lambda word: word[::-1], deterministic=True)
    connection.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, name_words, row)")
    connection.execute("INSERT INTO words SELECT term, backwards(term) FROM temp.vocabulary")
    connection.execute("DROP TABLE temp.vocabulary")


def _count_triples(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE entities SET n_triples = (SELECT count(*) FROM triples WHERE head = row)")


def _move_fingerprint(connection: sqlite3.Connection, change: hashlib._Hash) -> None:
    old = connection.execute("SELECT value FROM meta WHERE key = 'fingerprint'").fetchone()
    digest = hashlib.sha256(((old[0] if old else "") + change.hexdigest()).encode()).hexdigest()
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('fingerprint', ?)", (digest,))
