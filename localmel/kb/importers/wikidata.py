"""Wikidata in JSON: a dump (an array with one entity per line, or bare lines), an API answer, a single entity.

In: one file, plain or compressed, read twice in bounded memory: for entities and all labels, then for triples.
Out: rows.  Only statements that count ("truthy") become triples, in words, with labels from the dump itself;
popularity is the plain number of sitelinks.  What is left out on purpose is counted; a line that is not as
Wikibase writes it is a problem."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from localmel.errors import BadInput
from localmel.kb.importers.reading import (
    MAX_LINE,
    EntityRow,
    Problems,
    TripleRow,
    clean,
    ignored_problems,
    numbered_lines,
    size_of,
)
from localmel.kb.importers.tables import json_value
from localmel.kb.importers.wikidata_entity import (
    INSTANCE_OF,
    Fact,
    Unkept,
    WikidataEntity,
    best,
    entities_in,
    fact,
    is_entity_id,
    item_ids,
    kind_left_out,
    wikidata_entity,
)
from localmel.kb.schema import translated

_ANY_LANGUAGE = "mul"
_ROWS_AT_ONCE = 4096
_IDS_AT_ONCE = 500


class WikidataSource:
    """One dump, and the part of it that is wanted."""

    def __init__(
        self,
        path: Path,
        *,
        problems: Problems,
        languages: Sequence[str] = ("en",),
        classes: Collection[str] | None = None,
    ) -> None:
        """`languages`: the first with a label names the entity, labels in the others become aliases; Wikidata's "mul"
        (the same in every language) always comes last.  `classes`: keep only direct instances of one of these; None
        keeps every item."""
        if bad := [each for each in classes or () if not is_entity_id(each)]:
            raise BadInput(f"class {bad[0]!r} is not a Wikidata id", hint="name classes by their ids, like Q5")
        self._path = path
        self._problems = problems
        self._languages = tuple(dict.fromkeys((*languages, _ANY_LANGUAGE)))
        self._classes = None if classes is None else frozenset(classes)
        self._labels: Labels | None = None
        self.left_out: Counter[str] = Counter()
        "How many entities and statements were left out on purpose, by reason."

    @property
    def total_bytes(self) -> int:
        """Return twice the size of the dump."""
        return 2 * size_of(self._path)

    def entities(self) -> Iterator[EntityRow]:
        """Yield the items that have a label in one of the languages and belong to one of the classes."""
        yield from self._entities(Labels())

    def _entities(self, labels: Labels) -> Iterator[EntityRow]:
        self.left_out.clear()
        for line, found in self._read(self._problems, self.left_out):
            labels.add(found.id, found.label, line)
            if reason := self._why_left_out(found):
                self.left_out[reason] += 1
            else:
                yield EntityRow(entity=found.entity(), source=str(self._path), line=line)
        labels.finish()
        self._labels = labels

    def triples(self) -> Iterator[TripleRow]:
        """Yield the statements of the same items in dump order.  If an id repeats, its first entity counts."""
        labels = self._labels or Labels()
        if self._labels is None:
            for _ in self._entities(labels):
                pass
        for line, found in self._read(ignored_problems(), Counter()):
            if not self._why_left_out(found) and labels.first_line(found.id) == line:
                yield from self._triples_of(found, labels, line)

    def _why_left_out(self, found: WikidataEntity) -> str:
        """Return why an entity is left out, or "" if it is kept."""
        if found.id[0] == "P":
            return "property"
        if not found.label:
            return "item without a label in the languages"
        if self._classes is not None and not self._classes & item_ids(found.claims, INSTANCE_OF):
            return "item of another class"
        return ""

    def _triples_of(self, found: WikidataEntity, labels: Labels, line: int) -> Iterator[TripleRow]:
        stated = list(self._facts(found, line))
        ids = {each for one in stated for each in (one.property_id, one.tail_id, one.unit_id) if each}
        label_of = labels.of(ids)
        source = str(self._path)
        for property_id, value, tail_id, unit_id in stated:
            relation = label_of.get(property_id, property_id)
            tail = label_of.get(tail_id, "") if tail_id else f"{clean(value)} {label_of.get(unit_id, '')}".strip()
            if tail:
                yield TripleRow(found.id, property_id, relation, tail_id, tail, source, line)
            else:
                self.left_out["statement whose tail has no label"] += 1

    def _facts(self, found: WikidataEntity, line: int) -> Iterator[Fact]:
        for property_id in found.claims:
            for snak in best(found.claims, property_id):
                try:
                    stated = fact(property_id, snak)
                except ValueError as error:
                    self._problems.report(f"{found.id}: {error}", self._path, line)
                    continue
                if isinstance(stated, Unkept):
                    self.left_out[f"statement of datatype {stated.datatype}"] += 1
                elif stated is not None:
                    yield stated

    def _read(self, problems: Problems, left_out: Counter[str]) -> Iterator[tuple[int, WikidataEntity]]:
        """Yield every item and property with its line, properties and unlabelled items included."""
        for number, value in self._values(problems):
            for part in entities_in(value):
                try:
                    kind = kind_left_out(part)
                    found = None if kind else wikidata_entity(part, self._languages)
                except ValueError as error:
                    problems.report(str(error), self._path, number)
                    continue
                if found is None:
                    left_out[kind] += 1
                else:
                    yield number, found

    def _values(self, problems: Problems) -> Iterator[tuple[int, object]]:
        """Yield the JSON values of the file: one per line, or the file as a whole."""
        every = ((number, line.strip()) for number, line in numbered_lines(self._path, problems))
        lines = ((number, line) for number, line in every if line)
        array_is_open, last = False, 0
        for number, line in lines:
            if line == "[" and not last:
                array_is_open = True
            elif line == "]" and array_is_open:
                array_is_open = False
            else:
                text = self._rest(line, lines) if line == "{" and not last else line.removesuffix(",")
                try:
                    value = json_value(text)
                except ValueError as error:
                    problems.report(str(error), self._path, number)
                else:
                    yield number, value
            last = number
        if array_is_open:
            problems.report("the array is never closed: the dump is cut off here", self._path, last)

    def _rest(self, first: str, lines: Iterator[tuple[int, str]]) -> str:
        """Return the whole of a file that holds one value over many lines."""
        gathered, size = [first], 0
        for _, line in lines:
            gathered.append(line)
            size += len(line)
            if size > MAX_LINE:
                fact = f"{self._path} is one JSON value of more than {MAX_LINE >> 20} MiB"
                raise BadInput(fact, hint="write one entity per line, as the dumps of Wikidata do")
        return "\n".join(gathered)


# --- labels ---------------------------------------------------------------------------------------------------------


class Labels:
    """The labels of a whole dump in a temporary file, so that memory is bounded: `add`, then `finish`, then `of`."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, str, int]] = []
        self._connection = sqlite3.connect("", isolation_level=None)  # "": a temporary file of SQLite's own
        for statement in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            self._connection.execute(f"PRAGMA {statement}")
        self._connection.execute("CREATE TABLE labels(number INTEGER, label TEXT, line INTEGER)")

    def add(self, entity_id: str, label: str, line: int) -> None:
        """Remember a label ("" for an entity without one).  If an id repeats, its first label counts."""
        self._waiting.append((_number(entity_id), label, line))
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._write()

    def finish(self) -> None:
        """Make what was added ready to be read."""
        self._write()
        self._execute("CREATE INDEX by_number ON labels(number)")

    def of(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the labels of those ids that have one, in the dump or (properties) in the shipped table."""
        wanted = {_number(entity_id): entity_id for entity_id in ids}
        numbers = list(wanted)
        found: dict[str, str] = {}
        for start in range(0, len(numbers), _IDS_AT_ONCE):
            batch = numbers[start : start + _IDS_AT_ONCE]
            marks = ",".join("?" * len(batch))
            sql = f"SELECT number, label FROM labels WHERE number IN ({marks}) ORDER BY rowid DESC"
            for number, label in self._execute(sql, batch):
                found[wanted[number]] = label
        shipped = shipped_property_labels()
        named = ((entity_id, found.get(entity_id) or shipped.get(entity_id)) for entity_id in wanted.values())
        return {entity_id: label for entity_id, label in named if label}

    def first_line(self, entity_id: str) -> int:
        """Return the line of the id's first entity, 0 if it was never added."""
        rows = self._execute("SELECT min(line) FROM labels WHERE number = ?", (_number(entity_id),))
        return int(rows[0][0] or 0)

    def _write(self) -> None:
        try:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT INTO labels VALUES (?, ?, ?)", self._waiting)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise translated(error, _place()) from error
        self._waiting.clear()

    def _execute(self, sql: str, values: Iterable[int] = ()) -> list[tuple[int, str]]:
        try:
            return self._connection.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise translated(error, _place()) from error


@cache
def shipped_property_labels() -> dict[str, str]:
    """Return the English labels of Wikidata's most used properties, for a dump that does not label them."""
    text = Path(__file__).with_name("wikidata_properties.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines()[1:])


def _number(entity_id: str) -> int:
    """Return a number for an id: items count upwards from 1, properties downwards from -1."""
    number = int(entity_id[1:])
    return number if entity_id[0] == "Q" else -number


def _place() -> Path:
    return Path(tempfile.gettempdir()) / "labels of the dump"
