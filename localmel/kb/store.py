"""A knowledge base in a folder: read its entities, names and triples.

In: a folder made by `kb.write`.  Out: records.  Opens read-only; a writer elsewhere does not disturb it (WAL).
Knows no vector and no model."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from localmel.errors import BadInput, CorruptArtifact, UnknownKb, shell_line
from localmel.kb.schema import DATABASE, batches, connect, translated
from localmel.records import Entity, EntityId, Triple


@dataclass(frozen=True, slots=True, kw_only=True)
class KbFacts:
    """The counts that `localmel kb info` prints."""

    name: str
    path: str
    entities: int
    names: int
    triples: int
    relations: int
    described: int
    with_popularity: int
    with_image: int
    fingerprint: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KbTriple:
    """A triple with its ids, as the KB stores it."""

    row: int
    predicate: str
    relation: str
    tail_id: EntityId
    "Empty for a literal and for a tail that is not an entity."
    tail: str


class KnowledgeBase:
    """One KB, open for reading.  Rows are the KB's own integers for entities; ids are the user's."""

    def __init__(self, folder: Path, *, name: str | None = None) -> None:
        self.folder = folder
        self.name = name or folder.name
        self._path = folder / DATABASE
        if not is_kb(folder):
            raise UnknownKb(f"there is no KB at {folder}", hint="localmel kb build NAME --entities FILE --triples FILE")
        self._connection = connect(self._path, writable=False)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold one state of the KB: nothing read inside sees a change made meanwhile."""
        held_already = self._connection.in_transaction
        self.hold()
        try:
            yield
        finally:
            if not held_already:
                with suppress(sqlite3.Error):  # nothing was written, and the failure was reported where it happened
                    self._connection.execute("COMMIT")

    def hold(self) -> None:
        """Keep seeing the KB as it is now, whatever others write, until it is closed."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN")
            self.select("SELECT 1 FROM meta")  # the first query fixes the state, not BEGIN

    @property
    def state(self) -> int:
        """Return a number that changes when another connection changes the KB; far quicker than the fingerprint."""
        return int(self.select("PRAGMA data_version")[0][0])

    def select(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one query and return its rows.  Raises CorruptArtifact for a damaged database."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise translated(error, self._path) from error
        except UnicodeEncodeError as error:
            raise BadInput(f"not a text: {error.object!r:.80} ({error.reason})") from None

    def select_in(self, sql: str, values: Iterable[Any], *, before: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Run a query with `IN ({})` over any number of values, some at a time.

        `before` holds the values of the placeholders to the left of the list."""
        for batch, marks in batches(list(values)):
            yield from self.select(sql.format(marks), [*before, *batch])

    def stream(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Run one query and yield its rows one by one."""
        try:
            for row in self._connection.execute(sql, values):  # noqa: UP028 - it would close the cursor of a closed KB
                yield row
        except sqlite3.Error as error:
            raise translated(error, self._path) from error

    def __len__(self) -> int:
        return int(self.select("SELECT count(*) FROM entities")[0][0])

    @property
    def fingerprint(self) -> str:
        """Return a hash of the history of imports, which changes whenever the content does."""
        found = self.select("SELECT value FROM meta WHERE key = 'fingerprint'")
        if not found:
            raise CorruptArtifact(f"{self._path} has no fingerprint", hint="localmel kb build NAME --replace ...")
        return str(found[0][0])

    def facts(self) -> KbFacts:
        """Count what the whole KB holds."""

        def count(sql: str) -> int:
            return int(self.select(sql)[0][0])

        return KbFacts(
            name=self.name,
            path=str(self.folder),
            entities=len(self),
            names=count("SELECT count(*) FROM names"),
            triples=count("SELECT count(*) FROM triples"),
            relations=count("SELECT count(*) FROM relations"),
            described=count("SELECT count(*) FROM entities WHERE description <> ''"),
            with_popularity=count("SELECT count(popularity) FROM entities"),
            with_image=count("SELECT count(*) FROM images"),
            fingerprint=self.fingerprint,
            bytes=sum(map(_size, self.folder.glob(f"{DATABASE}*"))),
        )

    def row(self, entity_id: EntityId) -> int:
        """Return the row of an id.  Raises BadInput for an id the KB does not have."""
        found = self.select("SELECT row FROM entities WHERE id = ?", (entity_id,))
        if not found:
            raise BadInput(
                f"kb {self.name!r} has no entity {entity_id!r}",
                hint=shell_line("localmel kb search NAME --kb", self.folder),
            )
        return int(found[0][0])

    def entity(self, entity_id: EntityId) -> Entity:
        """Return one entity with its names and its image."""
        return self.entities_at([self.row(entity_id)])[0]

    def entities_at(self, rows: Sequence[int]) -> list[Entity]:
        """Return the entities at these rows, in this order."""
        found: dict[int, tuple[Any, ...]] = {}
        aliases: dict[int, list[str]] = {row: [] for row in rows}
        sql = (
            "SELECT e.row, e.id, e.label, e.description, e.popularity, i.path FROM entities e "
            "LEFT JOIN images i ON i.entity = e.row WHERE e.row IN ({})"
        )
        found.update((values[0], values) for values in self.select_in(sql, rows))
        sql = "SELECT entity, text FROM names WHERE NOT is_label AND entity IN ({}) ORDER BY name"
        for row, text in self.select_in(sql, rows):
            aliases[row].append(text)
        if missing := aliases.keys() - found:
            fact = f"kb {self.name!r} has no row {min(missing)}: another process changed it meanwhile"
            raise BadInput(fact, hint="run the same command again")
        return [_entity(found[row], aliases[row]) for row in rows]

    def all_entities(self) -> Iterator[Entity]:
        """Yield every entity in row order, in bounded memory."""
        for some, _ in batches([row for (row,) in self.select("SELECT row FROM entities ORDER BY row")]):
            yield from self.entities_at(some)

    def kb_triples(self, entity_id: EntityId) -> list[KbTriple]:
        """Return the triples of one entity in the order of the import, each once."""
        sql = (
            "SELECT min(t.triple), r.predicate, r.label, t.tail_id, t.tail FROM triples t "
            "JOIN relations r USING (relation) WHERE t.head = ? "
            "GROUP BY t.relation, t.tail_id, t.tail ORDER BY min(t.triple)"
        )
        return [
            KbTriple(row=row, predicate=predicate, relation=relation, tail_id=tail_id, tail=tail)
            for row, predicate, relation, tail_id, tail in self.select(sql, (self.row(entity_id),))
        ]

    def triples(self, entity_id: EntityId) -> list[Triple]:
        """Return the triples of one entity in words."""
        label = self.entity(entity_id).label
        return [
            Triple(head=label, relation=fact.relation, tail=fact.tail, source="kb")
            for fact in self.kb_triples(entity_id)
        ]


def is_kb(folder: Path) -> bool:
    """Tell whether the folder holds a KB; false if it cannot be read."""
    try:
        return (folder / DATABASE).is_file()
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a log of SQLite, gone when its writer finished
        return 0


def _entity(values: tuple[Any, ...], aliases: Iterable[str]) -> Entity:
    _, entity_id, label, description, popularity, image = values
    return Entity(
        id=entity_id, label=label, description=description, aliases=tuple(aliases), image=image, popularity=popularity
    )
