"""Your own ontology in one file: one row per entity; every column that localmel does not know is a relation.

In: a CSV (comma, semicolon or tab) or JSON lines with `name` (or `label`) and optionally `id`, `description`,
`aliases`, `image`, `popularity`.  Out: rows.  In a CSV cell `|` separates several values; in JSON a list holds them.
A tail that is the id of another row, or the name of exactly one, is an edge to it; any other is a literal.
Keeps the names and ids of the file in memory, nothing else."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localmel.errors import BadInput
from localmel.kb.importers.reading import (
    EntityRow,
    Problems,
    TripleRow,
    clean,
    excerpt,
    ignored_problems,
    numbered_lines,
    parsed_lines,
    size_of,
    stem_suffix,
)
from localmel.kb.importers.tables import entity_of, json_object, text_of
from localmel.records import Entity, EntityId

_KEYS = ("id", "name", "label", "description", "aliases", "image", "popularity")
JSON_LINES = (".jsonl", ".ndjson", ".json")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

Row = tuple[dict[str, Any], list[tuple[str, str]]]
"The values under the known keys; relation and tail of each fact, in the order of the row."


@dataclass(slots=True)
class _Names:
    """The ids and names that the tails of a file may point to."""

    by_line: dict[int, EntityId] = field(default_factory=dict)
    ids: set[EntityId] = field(default_factory=set)
    by_name: dict[str, EntityId | None] = field(default_factory=dict)
    "None if several entities have the name."

    def new_id(self, name: str) -> EntityId:
        """Make an id from a name: its letters and digits in lower case, with a number if that is taken."""
        folded = unicodedata.normalize("NFKC", name).casefold()
        slug = "-".join("".join(char if char.isalnum() else " " for char in folded).split()) or "entity"
        candidate, number = f"local:{slug}", 2
        while candidate in self.ids:
            candidate, number = f"local:{slug}-{number}", number + 1
        return candidate

    def add(self, line: int, entity: Entity) -> None:
        """Remember an entity.  If its id repeats, the first row counts; the store reports the second."""
        if entity.id in self.ids:
            return
        self.by_line[line] = entity.id
        self.ids.add(entity.id)
        same = self.by_name.setdefault(entity.label, entity.id) == entity.id
        self.by_name[entity.label] = entity.id if same else None

    def tail_id(self, tail: str, head: EntityId) -> EntityId:
        found = tail if tail in self.ids else self.by_name.get(tail)
        return found if found and found != head else ""


class OntologySource:
    """One file, read twice: for the entities, then for the triples, which may point to any of them."""

    def __init__(self, path: Path, *, problems: Problems) -> None:
        self._path = path
        self._problems = problems
        self._names: _Names | None = None

    @property
    def total_bytes(self) -> int:
        """Return twice the size of the file."""
        return 2 * size_of(self._path)

    def entities(self) -> Iterator[EntityRow]:
        """Yield one entity per row that is not empty."""
        yield from self._entities(_Names())

    def _entities(self, names: _Names) -> Iterator[EntityRow]:
        for number, (row, _) in self._rows(self._problems):
            try:
                entity = _entity(row, names)
            except ValueError as error:
                self._problems.report(str(error), self._path, number)
                continue
            names.add(number, entity)
            yield EntityRow(entity=entity, source=str(self._path), line=number)
        self._names = names

    def triples(self) -> Iterator[TripleRow]:
        """Yield one triple per value in a relation column.  The column's title is predicate and relation."""
        names = self._names or _Names()
        if self._names is None:
            for _ in self._entities(names):
                pass
        for number, (_, facts) in self._rows(ignored_problems()):
            if head := names.by_line.get(number):
                for relation, tail in facts:
                    yield TripleRow(head, relation, relation, names.tail_id(tail, head), tail, str(self._path), number)

    def _rows(self, problems: Problems) -> Iterator[tuple[int, Row]]:
        """Yield each row with its line."""
        if stem_suffix(self._path) in JSON_LINES:
            return parsed_lines(self._path, problems, _json_row)
        return _csv_rows(self._path, problems)


def _entity(row: dict[str, Any], names: _Names) -> Entity:
    if "name" in row and "label" in row:
        raise ValueError("both a name and a label; which one is it?")
    label = text_of(row, "label" if "label" in row else "name", required=True).strip()
    return entity_of(row, text_of(row, "id").strip() or names.new_id(label), label)


def _json_row(line: str) -> Row:
    row: dict[str, Any] = {}
    facts: list[tuple[str, str]] = []
    for key, value in json_object(line).items():
        if key.strip().lower() in _KEYS:
            row[key.strip().lower()] = value
            continue
        relation = clean(key)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict | list):
                raise ValueError(f"{relation} is not a text, a number or a list of these: {excerpt(value)}")
            tail = part if isinstance(part, str) else "" if part is None else json.dumps(part)
            if tail.strip() and not relation:
                raise ValueError(f"a value under an empty key: {excerpt(tail)}")
            if tail.strip():
                facts.append((relation, tail.strip()))
    return row, facts


# --- CSV ---------------------------------------------------------------------------------------------------------


def _csv_rows(path: Path, problems: Problems) -> Iterator[tuple[int, Row]]:
    lines = numbered_lines(path, problems)
    first = next(((number, line) for number, line in lines if line.strip()), (1, ""))
    position = first[0] - 1  # the line the reader has come to

    def with_ends() -> Iterator[str]:
        nonlocal position
        position = first[0]
        yield first[1] + "\n"
        for number, line in lines:
            position = number
            yield line + "\n"

    reader = csv.reader(with_ends(), delimiter=_delimiter(first[1]), strict=True)
    titles = _titles(reader, f"{path}:{first[0]}")
    while True:
        start = position + 1
        try:
            cells = next(reader)
            if any(cell.strip() for cell in cells):
                yield start, _csv_row(titles, cells)
        except StopIteration:
            return
        except csv.Error as error:
            problems.report(f"the row that starts here is not CSV ({error})", path, start)
        except ValueError as error:
            problems.report(str(error), path, start)


def _delimiter(header: str) -> str:
    unquoted = re.sub('"[^"]*"', "", header)
    return max(",;\t", key=unquoted.count)


def _titles(reader: Iterator[list[str]], place: str) -> list[str]:
    hint = "make the first line name the columns, for example: name,description,aliases,country"
    try:
        titles = [clean(title) for title in next(reader, [])]
    except csv.Error as error:
        raise BadInput(f"{place}: cannot read the first line as CSV ({error})", hint=hint) from None
    titles = [title.lower() if title.lower() in _KEYS else title for title in titles]
    ours = [title for title in titles if title in _KEYS]
    if len(set(ours)) < len(ours):
        raise BadInput(f"{place}: a column repeats: {', '.join(ours)}", hint=hint)
    if ("name" in ours) == ("label" in ours):
        fact = "both a column name and a column label" if "name" in ours else "no column name (or label)"
        raise BadInput(f"{place}: {fact}; the first line is {excerpt(', '.join(titles))}", hint=hint)
    return titles


def _csv_row(titles: list[str], cells: list[str]) -> Row:
    cells = [clean(cell) for cell in cells]
    while len(cells) > len(titles) and not cells[-1]:
        cells.pop()
    if len(cells) != len(titles):
        shown = excerpt(", ".join(cells))
        raise ValueError(f"{len(cells)} cells, but the first line names {len(titles)} columns: {shown}")
    row: dict[str, Any] = {}
    facts: list[tuple[str, str]] = []
    for title, cell in zip(titles, cells, strict=True):
        parts = [part.strip() for part in cell.split("|") if part.strip()]
        if not parts:
            continue
        if title == "aliases":
            row[title] = parts
        elif title == "popularity":
            row[title] = float(cell) if _NUMBER.fullmatch(cell) else cell
        elif title in _KEYS:
            row[title] = cell
        elif not title:
            raise ValueError(f"a value in a column without a title: {excerpt(cell)}")
        else:
            facts.extend((title, part) for part in parts)
    return row, facts
