"""Your own ontology in one file: a row per entity, and every column that is not ours is a relation.

In: a CSV (comma, semicolon or tab) or JSON lines with `name` (or `label`) and optionally `id`, `description`,
`aliases`, `image`, `popularity`.  Out: rows.  In a CSV cell `|` stands between several values; in JSON a list does.
A tail that is the id of another row, or the name of exactly one, is an edge to it; any other is a literal.
Keeps the names and ids of the file in memory, nothing else of it."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, ImportProblem
from localmel.kb.importers.reading import (
    EntityRow,
    Problems,
    TripleRow,
    clean,
    excerpt,
    read_blocks,
    size_of,
    stem_suffix,
)
from localmel.kb.importers.tables import aliases_of, json_object, popularity_of, text_of
from localmel.records import Entity, EntityId

_KEYS = ("id", "name", "label", "description", "aliases", "image", "popularity")
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

Facts = list[tuple[str, str]]
"Relation and tail, in the order of the row."


@dataclass(slots=True)
class _Names:
    """What the tails of a file may point to."""

    by_line: dict[int, EntityId] = field(default_factory=dict)
    ids: set[EntityId] = field(default_factory=set)
    by_name: dict[str, EntityId | None] = field(default_factory=dict)
    "None where several entities have the name."

    def new_id(self, name: str) -> EntityId:
        """An id made from a name: its letters and digits in lower case; a number follows where it is taken."""
        folded = unicodedata.normalize("NFKC", name).casefold()
        slug = "-".join("".join(char if char.isalnum() else " " for char in folded).split()) or "entity"
        candidate, number = f"local:{slug}", 2
        while candidate in self.ids:
            candidate, number = f"local:{slug}-{number}", number + 1
        return candidate

    def add(self, line: int, entity: Entity) -> None:
        """Where an id stands twice the first row counts; the store reports the second."""
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

    def __init__(
        self,
        path: Path,
        *,
        problems: Problems,
    ) -> None:
        self._path = path
        self._problems = problems
        self._names: _Names | None = None

    @property
    def total_bytes(self) -> int:
        """The size of the file, twice."""
        return 2 * size_of(self._path)

    def entities(self) -> Iterator[EntityRow]:
        """One per row that is not empty."""
        names = _Names()
        for number, row, _ in self._rows(self._problems):
            try:
                entity = _entity(row, names)
            except ValueError as error:
                self._problems.report(ImportProblem(str(error), source=str(self._path), line=number))
                continue
            names.add(number, entity)
            yield EntityRow(entity=entity, source=str(self._path), line=number)
        self._names = names

    def triples(self) -> Iterator[TripleRow]:
        """One per value in a relation column.  The predicate is the title of the column, like the relation."""
        if self._names is None:
            for _ in self.entities():
                pass
        names = self._names
        assert names is not None
        source = str(self._path)
        told_before = Problems(on_problem=lambda problem: None)
        for number, _, facts in self._rows(told_before):
            head = names.by_line.get(number)
            if head is None:
                continue
            for relation, tail in facts:
                yield TripleRow(head, relation, relation, names.tail_id(tail, head), tail, source, number)

    def _rows(self, problems: Problems) -> Iterator[tuple[int, dict[str, Any], Facts]]:
        """Each row with its line, the values under our own keys, and its facts."""
        lines = (
            (number, line)
            for block in read_blocks(self._path, problems)
            for number, line in enumerate(block.lines, block.first)
        )
        read = _json_rows if stem_suffix(self._path) in _JSON_LINES else _csv_rows
        return read(lines, str(self._path), problems)


def _entity(row: dict[str, Any], names: _Names) -> Entity:
    if "name" in row and "label" in row:
        raise ValueError("both a name and a label; which one is it?")
    label = text_of(row, "label" if "label" in row else "name", required=True).strip()
    entity_id = text_of(row, "id").strip()
    return Entity(
        id=entity_id or names.new_id(label),
        label=label,
        description=text_of(row, "description").strip(),
        aliases=aliases_of(row),
        image=text_of(row, "image").strip() or None,
        popularity=popularity_of(row),
    )


# --- JSON lines --------------------------------------------------------------------------------------------------


def _json_rows(
    lines: Iterator[tuple[int, str]], source: str, problems: Problems
) -> Iterator[tuple[int, dict[str, Any], Facts]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row, facts = _json_row(json_object(line))
        except ValueError as error:
            problems.report(ImportProblem(str(error), source=source, line=number))
            continue
        yield number, row, facts


def _json_row(found: dict[str, Any]) -> tuple[dict[str, Any], Facts]:
    row: dict[str, Any] = {}
    facts: Facts = []
    for key, value in found.items():
        if key.strip().lower() in _KEYS:
            row[key.strip().lower()] = value
            continue
        relation = clean(key)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict | list):
                raise ValueError(f"{relation} is no text, number or list of these: {excerpt(value)}")
            tail = part if isinstance(part, str) else "" if part is None else json.dumps(part)
            if tail.strip() and not relation:
                raise ValueError(f"a value under an empty key: {excerpt(tail)}")
            if tail.strip():
                facts.append((relation, tail.strip()))
    return row, facts


# --- CSV ---------------------------------------------------------------------------------------------------------


def _csv_rows(
    lines: Iterator[tuple[int, str]], source: str, problems: Problems
) -> Iterator[tuple[int, dict[str, Any], Facts]]:
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
    titles = _titles(reader, source, first[0])
    while True:
        start = position + 1
        try:
            cells = next(reader)
            if not any(cell.strip() for cell in cells):
                continue
            row, facts = _csv_row(titles, cells)
        except StopIteration:
            return
        except csv.Error as error:
            problems.report(ImportProblem(f"the row that starts here is not CSV ({error})", source=source, line=start))
            continue
        except ValueError as error:
            problems.report(ImportProblem(str(error), source=source, line=start))
            continue
        yield start, row, facts


def _delimiter(header: str) -> str:
    unquoted = re.sub('"[^"]*"', "", header)
    return max(",;\t", key=unquoted.count)


def _titles(reader: Iterator[list[str]], source: str, line: int) -> list[str]:
    hint = "make the first line name the columns, for example: name,description,aliases,country"
    try:
        titles = [clean(title) for title in next(reader, [])]
    except csv.Error as error:
        raise BadInput(f"{source}:{line}: the first line does not read as CSV ({error})", hint=hint) from None
    titles = [title.lower() if title.lower() in _KEYS else title for title in titles]
    ours = [title for title in titles if title in _KEYS]
    if len(set(ours)) < len(ours):
        raise BadInput(f"{source}:{line}: a column stands twice: {', '.join(ours)}", hint=hint)
    if ("name" in ours) == ("label" in ours):
        fact = "both a column name and a column label" if "name" in ours else "no column name (or label)"
        raise BadInput(f"{source}:{line}: {fact}; the first line is {excerpt(', '.join(titles))}", hint=hint)
    return titles


def _csv_row(titles: list[str], cells: list[str]) -> tuple[dict[str, Any], Facts]:
    cells = [clean(cell) for cell in cells]
    while len(cells) > len(titles) and not cells[-1]:
        cells.pop()
    if len(cells) != len(titles):
        shown = excerpt(", ".join(cells))
        raise ValueError(f"{len(cells)} cells where the first line names {len(titles)} columns: {shown}")
    row: dict[str, Any] = {}
    facts: Facts = []
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
