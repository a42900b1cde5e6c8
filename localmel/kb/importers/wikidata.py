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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, ImportProblem
from localmel.kb.importers.reading import MAX_LINE, EntityRow, Problems, TripleRow, clean, excerpt, read_blocks, size_of
from localmel.kb.importers.tables import json_value
from localmel.kb.importers.wikidata_entity import (
    IMAGE,
    INSTANCE_OF,
    Fact,
    Unkept,
    best,
    check_claims,
    fact,
    first_text,
    is_entity_id,
    item_ids,
)
from localmel.kb.schema import translated
from localmel.records import Entity

_ANY_LANGUAGE = "mul"
_OTHER_TYPES = ("lexeme", "form", "sense", "mediainfo", "redirect", "entity-schema")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Found:
    """An item or property of the dump, checked."""

    line: int
    id: str
    label: str
    description: str
    aliases: tuple[str, ...]
    sitelinks: int | None
    claims: Json


class WikidataSource:
    """One dump, and which part of it is wanted."""

    def __init__(
        self,
        path: Path,
        *,
        problems: Problems,
        languages: Sequence[str] = ("en",),
        classes: Collection[str] | None = None,
    ) -> None:
        """`languages`: the first that has a label gives it, labels in the others become aliases; Wikidata's "mul"
        (the same in every language) always comes last.  `classes`: keep only what is an instance of one of them,
        by its own statement; None keeps every item."""
        if bad := [each for each in classes or () if not is_entity_id(each)]:
            raise BadInput(f"class {bad[0]!r} is no Wikidata id", hint="name classes by their ids, like Q5")
        self._path = path
        self._problems = problems
        self._languages = tuple(dict.fromkeys((*languages, _ANY_LANGUAGE)))
        self._classes = None if classes is None else frozenset(classes)
        self._labels: Labels | None = None
        self.left_out: Counter[str] = Counter()
        "How many entities and statements were left out on purpose, by reason."

    @property
    def total_bytes(self) -> int:
        """The size of the dump, twice."""
        return 2 * size_of(self._path)

    def entities(self) -> Iterator[EntityRow]:
        """The items that have a label in one of the languages and are of one of the classes."""
        labels = Labels()
        self.left_out.clear()
        for found in self._all_found(self._problems, self.left_out):
            labels.add(found.id, found.label, found.line)
            if reason := self._why_not(found):
                self.left_out[reason] += 1
            else:
                yield EntityRow(entity=_entity(found), source=str(self._path), line=found.line)
        labels.finish()
        self._labels = labels

    def triples(self) -> Iterator[TripleRow]:
        """The statements of the same items, in the order of the dump.  Of an id that stands twice the first counts."""
        if self._labels is None:
            for _ in self.entities():
                pass
        labels = self._labels
        assert labels is not None
        reported_before, counted_before = Problems(on_problem=lambda problem: None), Counter[str]()
        for found in self._all_found(reported_before, counted_before):
            if not self._why_not(found) and labels.first_line(found.id) == found.line:
                yield from self._triples_of(found, labels)

    def _why_not(self, found: _Found) -> str:
        """Why an entity is left out; "" where it is not."""
        if found.id[0] == "P":
            return "property"
        if not found.label:
            return "item without a label in the languages"
        if self._classes is not None and not self._classes & item_ids(found.claims, INSTANCE_OF):
            return "item of another class"
        return ""

    def _triples_of(self, found: _Found, labels: Labels) -> Iterator[TripleRow]:
        stated = list(self._facts(found))
        ids = {each for one in stated for each in (one.property_id, one.tail_id, one.unit_id) if each}
        label_of = labels.of(ids)
        source = str(self._path)
        for property_id, value, tail_id, unit_id in stated:
            relation = label_of.get(property_id, property_id)
            tail = label_of.get(tail_id, "") if tail_id else f"{clean(value)} {label_of.get(unit_id, '')}".strip()
            if tail:
                yield TripleRow(found.id, property_id, relation, tail_id, tail, source, found.line)
            else:
                self.left_out["statement whose tail has no label"] += 1

    def _facts(self, found: _Found) -> Iterator[Fact]:
        for property_id in found.claims:
            for snak in best(found.claims, property_id):
                try:
                    stated = fact(property_id, snak)
                except ValueError as error:
                    self._report(self._problems, f"{found.id}: {error}", found.line)
                    continue
                if isinstance(stated, Unkept):
                    self.left_out[f"statement of datatype {stated.datatype}"] += 1
                elif stated is not None:
                    yield stated

    # --- reading -------------------------------------------------------------------------------------------------

    def _all_found(self, problems: Problems, left_out: Counter[str]) -> Iterator[_Found]:
        """Every item and property, properties and unlabelled items included."""
        for number, value in self._values(problems):
            for part in _parts(value):
                try:
                    reason = _other(part)
                    found = None if reason else self._found(part, number)
                except ValueError as error:
                    self._report(problems, str(error), number)
                    continue
                if found is None:
                    left_out[reason] += 1
                else:
                    yield found

    def _values(self, problems: Problems) -> Iterator[tuple[int, object]]:
        """The JSON values of the file: one per line, or the file as a whole."""
        lines = (
            (number, line.strip())
            for block in read_blocks(self._path, problems)
            for number, line in enumerate(block.lines, block.first)
            if line and not line.isspace()
        )
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
                    self._report(problems, str(error), number)
                else:
                    yield number, value
            last = number
        if array_is_open:
            self._report(problems, "the array is never closed: the dump is cut off here", last)

    def _rest(self, first: str, lines: Iterator[tuple[int, str]]) -> str:
        """The whole of a file that holds one value over many lines."""
        gathered, size = [first], 0
        for _, line in lines:
            gathered.append(line)
            size += len(line)
            if size > MAX_LINE:
                fact = f"{self._path} is one JSON value of more than {MAX_LINE >> 20} MiB"
                raise BadInput(fact, hint="write one entity per line, as the dumps of Wikidata do")
        return "\n".join(gathered)

    def _found(self, part: Json, line: int) -> _Found:
        """Raises ValueError where the entity is not as Wikibase writes it."""
        if not is_entity_id(part.get("id")):
            raise ValueError(f"id {excerpt(part.get('id'))} is no id of an item or a property")
        claims = _map(part, "claims")
        check_claims(claims)
        labels, descriptions, aliases = (_map(part, key) for key in ("labels", "descriptions", "aliases"))
        names = [_text(labels, language) for language in self._languages]
        for language in self._languages:
            names += _texts(aliases, language)
        names = list(dict.fromkeys(filter(None, names)))
        label = next(filter(None, (_text(labels, language) for language in self._languages)), "")
        return _Found(
            line=line,
            id=part["id"],
            label=label,
            description=next(filter(None, (_text(descriptions, language) for language in self._languages)), ""),
            aliases=tuple(name for name in names if name != label),
            sitelinks=len(_map(part, "sitelinks")) if "sitelinks" in part else None,
            claims=claims,
        )

    def _report(self, problems: Problems, fact: str, line: int) -> None:
        problems.report(ImportProblem(fact, source=str(self._path), line=line))


def _parts(value: Any) -> list[Any]:
    """The entities in a JSON value: those of an API answer or an array, else the value itself."""
    if isinstance(value, dict) and isinstance(value.get("entities"), dict):
        return list(value["entities"].values())
    return value if isinstance(value, list) else [value]


def _other(part: Any) -> str:
    """What this is when it is neither item nor property; "" when it is one.  Raises ValueError."""
    if not isinstance(part, dict):
        raise ValueError(f"not an entity in braces: {excerpt(part)}")
    if "missing" in part:
        return "missing on Wikidata"
    kind = "redirect" if "redirect" in part else part.get("type", "item")
    if kind in _OTHER_TYPES:
        return str(kind)
    if kind not in ("item", "property"):
        raise ValueError(f"{part.get('id')} is of the unknown type {excerpt(kind)}")
    return ""


def _entity(found: _Found) -> Entity:
    image = first_text(found.claims, IMAGE)
    return Entity(
        id=found.id,
        label=found.label,
        description=found.description,
        aliases=found.aliases,
        image=clean(image) if image else None,
        popularity=None if found.sitelinks is None else float(found.sitelinks),
    )


def _map(part: Json, key: str) -> Json:
    value = part.get(key, {})
    if type(value) is not dict:
        raise ValueError(f"{part['id']}: {key} is {excerpt(value)}, not a map in braces")
    return value


def _text(texts: Json, language: str) -> str:
    """The text in one language, "" where there is none.  Raises ValueError."""
    if language not in texts:
        return ""
    return _value(texts[language], language)


def _texts(texts: Json, language: str) -> list[str]:
    values = texts.get(language, [])
    if type(values) is not list:
        raise ValueError(f"aliases in {language!r} are no list: {excerpt(values)}")
    return [_value(value, language) for value in values]


def _value(value: object, language: str) -> str:
    if type(value) is not dict or type(value.get("value")) is not str:
        raise ValueError(f"a text in {language!r} is no text: {excerpt(value)}")
    return clean(value["value"])


_ROWS_AT_ONCE = 4096
_IDS_AT_ONCE = 500


class Labels:
    """Write with `add`, then `finish`, then read."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, str, int]] = []
        self._connection = sqlite3.connect("", isolation_level=None)  # "": a temporary file of SQLite's own
        for statement in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            self._connection.execute(f"PRAGMA {statement}")
        self._connection.execute("CREATE TABLE labels(number INTEGER, label TEXT, line INTEGER)")

    def add(self, entity_id: str, label: str, line: int) -> None:
        """Remember a label ("" for an entity without one).  Where an id comes again, the first time counts."""
        self._waiting.append((_number(entity_id), label, line))
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._write()

    def finish(self) -> None:
        """Make what was added ready to be read."""
        self._write()
        self._execute("CREATE INDEX by_number ON labels(number)")

    def of(self, ids: Iterable[str]) -> dict[str, str]:
        """The labels of those ids that have one, in the dump or (properties) in the shipped table."""
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
        """Where the id stood first; 0 for one that was never added."""
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
    """The English labels of the most used properties of Wikidata."""
    text = Path(__file__).with_name("wikidata_properties.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines()[1:])


def _number(entity_id: str) -> int:
    """Items count upwards from 1, properties downwards from -1."""
    number = int(entity_id[1:])
    return number if entity_id[0] == "Q" else -number


def _place() -> Path:
    return Path(tempfile.gettempdir()) / "labels of the dump"
