"""What every reader of the import gives: entities and triples, each with the place where it was read.

In: nothing.  Out: the row types, the protocol of a source, and the one policy for lines that cannot be used.
Knows no file format and no database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from localmel.errors import BadInput, ImportProblem
from localmel.records import Entity

"Told how many more bytes of the files (as they lie on disk, compressed) have been read."


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityRow:
    """An entity with where it was read."""

    entity: Entity
    source: str
    line: int


class TripleRow(NamedTuple):
    """A triple with where it was read; a bare tuple, because millions of them pass through."""

    head: str
    predicate: str
    relation: str
    tail_id: str
    "Empty for a literal."
    tail: str
    source: str
    line: int


class KbSource(Protocol):
    """Something to import.  Call `entities` to its end, then `triples`; heads may be unknown, ids may stand twice."""

    @property
    def total_bytes(self) -> int:
        """What the `on_bytes` given to the source adds up to when both have been read to their ends."""

    def entities(self) -> Iterator[EntityRow]:
        """Every entity, in the order of the file."""

    def triples(self) -> Iterator[TripleRow]:
        """Every triple, in the order of the file."""


class Problems:
    """What happens to a line that cannot be used, for the readers and the store alike.

    Without `on_problem`, problems are collected and raised together as one BadInput: at the 20th, or by `finish`,
    which whoever started the import calls once at the end.  With it, each is handed over, counted, and left out."""

    LIMIT = 20

    def __init__(self, *, on_problem: Callable[[ImportProblem], None] | None = None) -> None:
        self.count = 0
        self._on_problem = on_problem
        self._collected: list[ImportProblem] = []

    def report(self, problem: ImportProblem) -> None:
        """Note one problem.  Raises BadInput when it is one too many."""
        self.count += 1
        if self._on_problem is not None:
            self._on_problem(problem)
            return
        self._collected.append(problem)
        if self.count >= self.LIMIT:
            self._raise(f"{self.count} lines cannot be used, and reading stopped there")

    def finish(self) -> None:
        """Raise what has been collected, if anything."""
        if self._collected:
            self._raise("1 line cannot be used" if self.count == 1 else f"{self.count} lines cannot be used")

    def _raise(self, fact: str) -> None:
        listed = [f"  {problem.fact}" + (f" ({problem.hint})" if problem.hint else "") for problem in self._collected]
        raise BadInput("\n".join([f"{fact}:", *listed]), hint="mend them, or add --skip-bad to import all the others")


def excerpt(value: object, width: int = 60) -> str:
    """A value as a problem shows it: quoted and short."""
    try:
        text = repr(value[:width] if isinstance(value, str | bytes | list | tuple) else value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= width else f"{text[: width - 1]}…"
