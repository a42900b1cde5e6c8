"""What the people and things of a place are called: "Dutch" and "Dutchman" lead to the Netherlands.

In: a folded surface.  Out: the folded names of the places.  Countries, continents, and regions and cities whose
adjective is no mere ending; the table is `demonyms.tsv`.  Knows no KB."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from localmel.kb.folding import fold

_TABLE = Path(__file__).parent / "demonyms.tsv"


def places_of(folded: str) -> tuple[str, ...]:
    """`"dutch"` -> `("netherlands", "kingdom of the netherlands")`; a plural is read as its singular; else empty."""
    table = _table()
    return table.get(folded) or table.get(folded.removesuffix("s"), ())


@cache
def _table() -> dict[str, tuple[str, ...]]:
    lines = _TABLE.read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return {demonym: tuple(map(fold, places.split(";"))) for demonym, places in rows}
