"""The plain form of a KB: entities as JSON lines, triples as a table with tabs.

In: a .jsonl file with `id`, `label` and optionally `description`, `aliases`, `image`, `popularity` per line, and a
.tsv file whose first line names the columns head, predicate, relation, tail_id, tail; either may be compressed.
Out: rows.  A quote is an ordinary character; "NA" is a name.  Does not know whether a head exists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from localmel.errors import BadInput
from localmel.kb.importers.reading import (
    Block,
    EntityRow,
    Problems,
    TripleRow,
    clean,
    excerpt,
    parsed_lines,
    read_blocks,
    size_of,
)
from localmel.records import Entity

COLUMNS = ("head", "predicate", "relation", "tail_id", "tail")
_KEYS = frozenset({"id", "label", "description", "aliases", "image", "popularity"})
_DECODE: Callable[[str], Any] = json.JSONDecoder(strict=False).decode


class TablesSource:
    """Entities from one file and triples from another; either may be absent."""

    def __init__(self, *, entities: Path | None = None, triples: Path | None = None, problems: Problems) -> None:
        self._entities = entities
        self._triples = triples
        self._problems = problems

    @property
    def total_bytes(self) -> int:
        """Return the size of both files."""
        return size_of(self._entities, self._triples)

    def entities(self) -> Iterator[EntityRow]:
        """Yield one entity per line that is not blank."""
        if self._entities is not None:
            source = str(self._entities)
            for number, entity in parsed_lines(self._entities, self._problems, _entity):
                yield EntityRow(entity=entity, source=source, line=number)

    def triples(self) -> Iterator[TripleRow]:
        """Yield one triple per line below the header that is not blank."""
        if self._triples is None:
            return
        source = str(self._triples)
        blocks = read_blocks(self._triples, self._problems)
        block = next(blocks, Block(1, [""]))
        order = _order(block.lines[0], source)
        yield from self._rows(Block(2, block.lines[1:]), source, order)
        for block in blocks:
            yield from self._rows(block, source, order)

    def _rows(self, block: Block, source: str, order: Sequence[int]) -> Iterator[TripleRow]:
        pick = None if order == (0, 1, 2, 3, 4) else itemgetter(*order)
        number = block.first - 1
        for line in block.lines:
            number += 1
            fields = line.split("\t")
            fact = f"{len(fields)} fields between tabs, not 5"
            if len(fields) == 5:
                head, predicate, relation, tail_id, tail = pick(fields) if pick else fields
                if head and relation and not relation.isspace() and tail and not tail.isspace():
                    yield TripleRow(head, predicate, relation, tail_id, tail, source, number)
                    continue
                fact = "head, relation or tail is empty"
            if line.strip():
                self._problems.report(f"{fact}: {excerpt(line)}", source, number)


def _order(header: str, source: str) -> tuple[int, ...]:
    """Return the place of each of our columns in the header."""
    names = [name.strip().lower() for name in header.split("\t")]
    if sorted(names) == sorted(COLUMNS):
        return tuple(map(names.index, COLUMNS))
    hint = f"make the first line: {'<tab>'.join(COLUMNS)}"
    fact = f"{source}:1: the first line must name the columns {', '.join(COLUMNS)}; it is {excerpt(header)}"
    raise BadInput(fact, hint=hint)


def json_value(line: str) -> Any:
    """Return the JSON value on a line.  Raises ValueError that says what is wrong."""
    try:
        return _DECODE(line)
    except json.JSONDecodeError as error:
        shown = excerpt(line[max(0, error.pos - 20) :])
        raise ValueError(f"not JSON ({error.msg} at column {error.colno}): {shown}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON that can be read ({error}): {excerpt(line)}") from None


def json_object(line: str) -> dict[str, Any]:
    """Return the JSON object on a line, its texts cleaned.  Raises ValueError that says what is wrong."""
    row = json_value(line)
    if type(row) is not dict:
        raise ValueError(f"not a JSON object in braces: {excerpt(line)}")
    if "\\" in line or "\t" in line:  # only an escape or a tab can hold what reading has not replaced
        return {clean(key): _cleaned(value, key) for key, value in row.items()}
    return row


def _cleaned(value: object, key: str) -> object:
    if isinstance(value, str):
        text = clean(value)
        if key == "id" and text != value:
            raise ValueError(f"id {excerpt(value)} holds control characters or has blanks around it")
        return text
    if isinstance(value, list):
        return [clean(part) if isinstance(part, str) else part for part in value]
    return value


def _entity(line: str) -> Entity:
    row = json_object(line)
    if not row.keys() <= _KEYS:
        unknown = ", ".join(repr(key) for key in row if key not in _KEYS)
        raise ValueError(f"unknown key {unknown}; the keys are {', '.join(sorted(_KEYS))}")
    return entity_of(row, text_of(row, "id", required=True), text_of(row, "label", required=True).strip())


def entity_of(row: dict[str, Any], entity_id: str, label: str) -> Entity:
    """Return the entity with this id and label and the optional values of `row`.  Raises ValueError."""
    return Entity(
        id=entity_id,
        label=label,
        description=text_of(row, "description").strip(),
        aliases=_aliases_of(row),
        image=text_of(row, "image").strip() or None,
        popularity=_popularity_of(row),
    )


def text_of(row: dict[str, Any], key: str, *, required: bool = False) -> str:
    """Return the text under a key, empty if it is absent or null.  Raises ValueError."""
    value = row.get(key)
    if type(value) is str:
        return value
    if value is not None:
        raise ValueError(f"{key} is not a text: {excerpt(value)}")
    if required:
        raise ValueError(f"no {key}: {excerpt(row)}")
    return ""


def _aliases_of(row: dict[str, Any]) -> tuple[str, ...]:
    value = row.get("aliases")
    if value is None:
        return ()
    if type(value) is not list or not all(type(alias) is str for alias in value):
        raise ValueError(f"aliases is not a list of texts: {excerpt(value)}")
    return tuple(stripped for alias in value if (stripped := alias.strip()))


def _popularity_of(row: dict[str, Any]) -> float | None:
    value = row.get("popularity")
    if value is None:
        return None
    if type(value) not in (int, float):
        raise ValueError(f"popularity is not a number: {excerpt(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("popularity is too large a number") from None
