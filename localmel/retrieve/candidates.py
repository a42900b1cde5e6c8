"""Find candidate entities for mentions: those whose name matches, and those the matcher ranks highest.

In: surfaces, and the matcher's features of the mentions.  Out: for each mention its candidates, as positions in the
packed KB, each with the matcher's score on the cosine scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.kb.names import NameIndex, NameMatch
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kind import KbSearch
from localmel.records import Alike, Mention, Triple
from localmel.settings import RetrieveSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The unranked candidates of one mention."""

    positions: NDArray[Any]  # (n,) int64
    matches: tuple[NameMatch | None, ...]
    "How each candidate matched by name; None if it was found by vector only."
    cosine: NDArray[Any]  # (n,) float32: the matcher's score of mention and candidate
    alike: tuple[Alike, ...] = ()
    "Entities whose pictures resemble the mention's, if the matcher looks for them; they need not be candidates."


def united(
    matches: Sequence[NameMatch], near: NDArray[Any], packed: PackedKb
) -> tuple[NDArray[Any], tuple[NameMatch | None, ...]]:
    """Return the positions of entities found by name, then by vector only, and the name match of each."""
    by_name = packed.positions(np.array([match.row for match in matches], np.int64))
    by_vector = near[(near >= 0) & ~np.isin(near, by_name)]  # an index that finds fewer pads with NO_ID
    return np.concatenate([by_name, by_vector]), (*matches, *[None] * len(by_vector))


class Finder(Protocol):
    """Finds candidates in one KB."""

    def shown(
        self,
        mentions: Sequence[Mention],
        stated: Sequence[Sequence[Triple]],
        encode: Callable[[Sequence[str]], NDArray[Any]],
    ) -> Any:
        """Return the matcher's features of m mentions; see `KbSearch.shown`."""
        ...

    def find(self, surfaces: Sequence[str], shown: Any) -> list[Candidates]:
        """Return the candidates of each mention.  surfaces: (m,); shown: features of the same mentions."""
        ...


class CandidateFinder:
    """A `Finder` that uses names and a matcher."""

    def __init__(self, kb: KnowledgeBase, packed: PackedKb, search: KbSearch, settings: RetrieveSettings) -> None:
        self._packed, self._search, self._settings = packed, search, settings
        self._names = NameIndex(kb, use_counts=settings.use_counts)

    def shown(
        self,
        mentions: Sequence[Mention],
        stated: Sequence[Sequence[Triple]],
        encode: Callable[[Sequence[str]], NDArray[Any]],
    ) -> Any:
        """Return the matcher's features of m mentions."""
        return self._search.shown(mentions, stated, encode)

    def find(self, surfaces: Sequence[str], shown: Any) -> list[Candidates]:
        """Return the entities found by name and the matcher's best ones, for each mention."""
        named = [self._names.find(surface, limit=self._settings.by_name) for surface in surfaces]
        near = self._search.best(shown, min(self._settings.by_vector, len(self._packed.rows))).entities
        both = [united(matches, own, self._packed) for matches, own in zip(named, near, strict=True)]
        return self.weighed(both, shown)

    def weighed(
        self, found: Sequence[tuple[NDArray[Any], tuple[NameMatch | None, ...]]], shown: Any
    ) -> list[Candidates]:
        """Return the candidates of each mention with the matcher's scores.  found: positions and name matches."""
        scores = self._search.scores_of(shown, [positions for positions, _ in found])
        alike = self._search.alike(shown) or [()] * len(found)
        return [
            Candidates(positions=positions, matches=matches, cosine=self._search.as_cosines(own), alike=seen)
            for (positions, matches), own, seen in zip(found, scores, alike, strict=True)
        ]
