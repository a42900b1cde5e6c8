"""Build a KB, add to it, remove from it: each as one transaction.

In: a `KbSource` (entities and triples with the place where they were read).  Out: a changed KB folder, and counts.
After a kill, on a full disk or with a bad line the KB stays as it was.  Knows no file format."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from pathlib import Path

from localmel.errors import BadInput, shell_line
from localmel.kb.importers.reading import EntityRow, KbSource, Problems, TripleRow, clean
from localmel.kb.schema import BUSY_SECONDS, DATABASE, INDEXES, connect, create, translated
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import fold
from localmel.records import Entity, EntityId
from localmel.store.artifacts import behind_links, failed_writes_are_reported, replace_folder, temporary_folder

_HEADS_REMEMBERED = 500_000
_ROWS_AT_ONCE = 4096
_INSERT = "INSERT INTO triples(head, relation, tail_id, tail) VALUES (?, ?, ?, ?)"
_INSERT_NEW = (
    "INSERT INTO triples(head, relation, tail_id, tail) "
    "SELECT new.column1, new.column2, new.column3, new.column4 FROM (VALUES (?, ?, ?, ?)) new "
    "WHERE NOT EXISTS (SELECT 1 FROM triples WHERE head = new.column1 AND relation = new.column2 "
    "AND tail_id = new.column3 AND tail = new.column4)"
)
_COUNT_TRIPLES = "UPDATE entities SET n_triples = (SELECT count(*) FROM triples WHERE head = row)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The counts of one import, removal or export."""

    entities: int
    triples: int
    problems: int = 0


def build_kb(folder: Path, source: KbSource, problems: Problems, *, replace: bool = False) -> Changed:
    """Build a KB in `folder` from nothing.  An existing KB is replaced only on request, and only at the end;
    anything else that is there never is."""
    with failed_writes_are_reported(folder):
        _check_free(folder, replace=replace)
        folder = behind_links(folder)
    with temporary_folder(folder) as temporary:
        with closing(create(temporary / DATABASE, folder / DATABASE)) as connection:
            try:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                with _transaction(connection, folder / DATABASE):
                    changed = _Writer(connection, problems, empty=True).load(source)
                    for statement in INDEXES.strip().split(";\n"):
                        connection.execute(statement)
                    connection.execute(_COUNT_TRIPLES)
                    connection.execute("INSERT INTO name_words(name_words) VALUES ('rebuild')")
                    _list_words(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("ANALYZE")
            except sqlite3.Error as error:
                raise translated(error, folder / DATABASE) from error
        for kept in ("vectors", "journals"):  # vectors of unchanged texts and answers of models stay useful
            if (folder / kept).is_dir():
                (folder / kept).rename(temporary / kept)
        replace_folder(temporary, folder)
    return changed


def _check_free(folder: Path, *, replace: bool) -> None:
    if not folder.exists():
        return
    if not replace:
        raise BadInput(f"{folder} already exists", hint="add --replace, or choose another name")
    if not (folder / DATABASE).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BadInput(f"cannot replace {folder}: it exists and is not a KB", hint="choose another name")


def add_to_kb(
    folder: Path, source: KbSource, problems: Problems, *, update: bool = False, busy_seconds: float = BUSY_SECONDS
) -> Changed:
    """Add entities and triples to a live KB, after waiting up to `busy_seconds` for another writer.

    An id that the KB already has is a problem, unless `update`: then its label, description, names, image and
    popularity are replaced, and its triples too if the import has any.  A triple that the KB has is not repeated."""
    with writing(folder, busy_seconds) as connection:
        return _Writer(connection, problems, empty=False, update=update).load(source)


def remove_from_kb(folder: Path, ids: Iterable[EntityId], *, busy_seconds: float = BUSY_SECONDS) -> Changed:
    """Remove entities, their names and the triples they head from a live KB.

    Triples of others that end in them stay, as words.  With an unknown id nothing is removed."""
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        raise BadInput("there is no entity to remove", hint="localmel kb remove NAME ID...")
    with writing(folder, busy_seconds) as connection:
        rows, unknown = [], []
        for entity_id in wanted:
            found = connection.execute("SELECT row FROM entities WHERE id = ?", (entity_id,)).fetchone()
            rows.append(found[0]) if found else unknown.append(entity_id)
        if unknown:
            raise BadInput(
                f"kb {folder.name!r} has no entity {', '.join(map(repr, unknown[:5]))}; nothing was removed",
                hint=shell_line("localmel kb search NAME --kb", folder),
            )
        triples = 0
        for row in rows:
            _forget_names(connection, row)
            triples += connection.execute("DELETE FROM triples WHERE head = ?", (row,)).rowcount
            connection.execute("DELETE FROM images WHERE entity = ?", (row,))
            connection.execute("DELETE FROM entities WHERE row = ?", (row,))
        move_state(connection, "fingerprint", hashlib.sha256(repr(("remove", wanted)).encode()))
    return Changed(entities=len(rows), triples=triples)


@contextmanager
def _transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Write all of it or nothing; failures of SQLite become localmel errors that name `path`."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    except UnicodeEncodeError as error:
        raise BadInput(f"not a text: {error.object!r:.80} ({error.reason})") from None
    finally:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # whoever opens the KB next rolls back what failed here
                connection.execute("ROLLBACK")


@contextmanager
def writing(folder: Path, busy_seconds: float = BUSY_SECONDS) -> Iterator[sqlite3.Connection]:
    """Open one transaction on a live KB; either all of it is written or nothing."""
    KnowledgeBase(folder).close()
    with (
        closing(connect(folder / DATABASE, writable=True, busy_seconds=busy_seconds)) as connection,
        failed_writes_are_reported(folder),
        _transaction(connection, folder / DATABASE),
    ):
        yield connection


class _Writer:
    """Writes the rows of one source into an open transaction."""

    def __init__(
        self, connection: sqlite3.Connection, problems: Problems, *, empty: bool, update: bool = False
    ) -> None:
        self._connection = connection
        self._problems = problems
        self._empty = empty  # a new KB: full-text tables are filled once at the end
        self._update = update
        self._ids: set[EntityId] = set()  # of this import, if the KB had entities before
        self._heads: set[int] = set()  # rows with new triples, in the same case
        self._replaced: list[int] = []  # updated entities, whose old triples go once new ones come
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
            self._forget_replaced_triples()
            self._digest.update(repr(batch).encode())
            triples += self._connection.executemany(_INSERT if self._empty else _INSERT_NEW, batch).rowcount
        self._problems.finish()
        if not entities and not triples and not self._heads:
            raise BadInput("the import holds no entities and no triples", hint="localmel kb build --help")
        self._connection.executemany(f"{_COUNT_TRIPLES} WHERE row = ?", ((head,) for head in self._heads))
        if entities or triples:
            move_state(self._connection, "fingerprint", self._digest)
        return Changed(entities=entities, triples=triples, problems=self._problems.count)

    def _find_row(self, entity_id: EntityId) -> int | None:
        found = self._connection.execute("SELECT row FROM entities WHERE id = ?", (entity_id,)).fetchone()
        return found[0] if found else None

    def _add_entity(self, read: EntityRow) -> bool:
        entity = read.entity
        if not _is_text(entity.id, entity.label, entity.description, *entity.aliases, entity.image or ""):
            fact = f"entity {entity.id!r} has a control character in its id, names, description or image"
            self._problems.report(fact, read.source, read.line)
            return False
        values = (entity.label, entity.description, entity.popularity, entity.id)
        try:
            sql = "INSERT INTO entities(label, description, popularity, id) VALUES (?, ?, ?, ?) RETURNING row"
            (row,) = self._connection.execute(sql, values).fetchone()
            self._digest.update(repr(entity).encode())
        except sqlite3.IntegrityError:
            twice = self._empty or entity.id in self._ids
            if twice or not self._update:
                fact = f"entity id {entity.id!r} repeats" if twice else f"the KB already has {entity.id!r}"
                hint = "" if twice else "add --update to replace what the KB has"
                self._problems.report(fact, read.source, read.line, hint=hint)
                return False
            row = self._replace_entity(values)
            self._digest.update(repr(("update", entity)).encode())
        if not self._empty:
            self._ids.add(entity.id)
        self._add_names(row, entity)
        if entity.image:
            self._connection.execute("INSERT INTO images VALUES (?, ?)", (row, entity.image))
        return True

    def _replace_entity(self, values: tuple[str, str, float | None, EntityId]) -> int:
        sql = "UPDATE entities SET label = ?, description = ?, popularity = ? WHERE id = ? RETURNING row"
        (row,) = self._connection.execute(sql, values).fetchone()
        _forget_names(self._connection, row)
        self._connection.execute("DELETE FROM images WHERE entity = ?", (row,))
        self._replaced.append(int(row))
        return int(row)

    def _forget_replaced_triples(self) -> None:
        """Delete, before the first triples of an import, those of the entities that it updates."""
        self._connection.executemany("DELETE FROM triples WHERE head = ?", ((row,) for row in self._replaced))
        self._heads.update(self._replaced)
        self._replaced.clear()

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
                self._problems.report(f"head {read.head!r} is not an entity of the KB", read.source, read.line)
                continue
            relation = relations.get((read.predicate, read.relation))
            known = relation is not None or _is_text(read.relation, read.predicate)
            if not (known and read.relation.strip() and read.tail.strip() and _is_text(read.tail, read.tail_id)):
                fact = f"a triple of {read.head!r} has an empty relation or tail, or a control character in it"
                self._problems.report(fact, read.source, read.line)
                continue
            if relation is None:
                relation = self._add_relation(read.predicate, read.relation)
            if not self._empty:
                self._heads.add(head)
            yield head, relation, read.tail_id, read.tail

    def _add_relation(self, predicate: str, label: str) -> int:
        sql = "INSERT INTO relations(predicate, label) VALUES (?, ?) RETURNING relation"
        (relation,) = self._connection.execute(sql, (predicate, label)).fetchone()
        self._relations[predicate, label] = int(relation)
        return int(relation)


def _is_text(*texts: str) -> bool:
    """Tell whether the texts survive an export unchanged: no tabs, line breaks or other control characters."""
    return all(text.isprintable() or clean(f"|{text}|") == f"|{text}|" for text in texts)


def _next(connection: sqlite3.Connection, table: str, column: str) -> int:
    return int(connection.execute(f"SELECT coalesce(max({column}), 0) + 1 FROM {table}").fetchone()[0])


def _forget_names(connection: sqlite3.Connection, row: int) -> None:
    """Delete the names of an entity, and the words that no other name has, so that these can be corrected to others.

    FTS5 with external content deletes a name only if it is given the old text."""
    words = set()
    for name, folded in connection.execute("SELECT name, folded FROM names WHERE entity = ?", (row,)).fetchall():
        connection.execute("INSERT INTO name_words(name_words, rowid, folded) VALUES ('delete', ?, ?)", (name, folded))
        words.update(folded.split())
    connection.execute("DELETE FROM names WHERE entity = ?", (row,))
    for word in words:
        sql = "DELETE FROM words WHERE word = ? AND NOT EXISTS (SELECT 1 FROM name_words WHERE name_words MATCH ?)"
        connection.execute(sql, (word, f'"{word}"'))


def _list_words(connection: sqlite3.Connection) -> None:
    """List every different word of a name, forwards and backwards."""
    connection.create_function("backwards", 1, lambda word: word[::-1], deterministic=True)
    connection.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, name_words, row)")
    connection.execute("INSERT INTO words SELECT term, backwards(term) FROM temp.vocabulary")
    connection.execute("DROP TABLE temp.vocabulary")


def move_state(connection: sqlite3.Connection, key: str, change: hashlib._Hash) -> None:
    """Replace the hash under `key` by one that depends on it and on the change."""
    old = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    digest = hashlib.sha256(((old[0] if old else "") + change.hexdigest()).encode()).hexdigest()
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, digest))
