"""The protocol of M3EL and DWE+: a hundred candidates by fuzzy name, and how high a system ranks the gold in them.

In: surfaces, one name per entity, and later the rank that a system gives the gold among the candidates.
Out: candidates with their scores; recall@100 and T@1, 5, 10, 20 with intervals.  The gold is never added to the
candidates: where its name does not bring it in, it is a miss for every k.

The score is RapidFuzz's WRatio, as is usual in the field.  In a large KB it is computed only for names that share a
word with the surface (a misspelt word is replaced by the most similar words) and for the names with the highest plain
ratio.  Equal scores are ordered by the plain ratio, then by a fixed shuffle, so that the order of the KB favours no
entity.  Knows no KB, no alias and no picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.evaluate.resamples import Estimate, Resamples
from localmel.records import MentionId
from localmel.store import progress

LABEL = "100 candidates by fuzzy name"
CANDIDATES = 100
TOP = (1, 5, 10, 20)
"The values of k in T@k."
NEAREST = 400
"How many names with the highest plain ratio are scored; ties with the last of them are scored too."
_SURFACES_AT_ONCE = 64
_COMMON = 4000
"A word that occurs in more names than this adds none, unless all words of the surface are that common."
_LEAST_ALIKE = 75.0
_CORRECTIONS = 5
_SCATTER = 2654435761


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FuzzyCandidates:
    """The candidates of one surface, best first."""

    places: NDArray[Any]  # (n,) int64, into the names
    scores: NDArray[Any]  # (n,) float64, WRatio between 0 and 100


class NamePool:
    """The names of a KB, prepared for fuzzy search."""

    def __init__(self, names: Sequence[str]) -> None:
        """Index the names: one per entity, folded."""
        self._names = names
        postings: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            for word in set(name.split()):
                postings.setdefault(word, []).append(place)
        self._postings = postings
        self._vocabulary = list(postings)
        self._corrected: dict[str, list[str]] = {}

    def candidates(
        self, surfaces: Sequence[str], *, n: int = CANDIDATES, nearest: int = NEAREST, workers: int = -1
    ) -> list[FuzzyCandidates]:
        """Return the n best entities for each folded surface, fewer in a small KB; none for a surface without letters.

        Each distinct surface is scored once.  workers: threads, -1 for one per core; the result is the same."""
        distinct = list(dict.fromkeys(surfaces))
        found: dict[str, FuzzyCandidates] = {}
        times = {surface: 0 for surface in distinct}
        for surface in surfaces:
            times[surface] += 1
        for start in range(0, len(distinct), _SURFACES_AT_ONCE):
            some = distinct[start : start + _SURFACES_AT_ONCE]
            for surface, best in zip(some, self._score(some, n, nearest, workers), strict=True):
                found[surface] = best
                progress.advance(times[surface])
        return [found[surface] for surface in surfaces]

    def _score(self, surfaces: Sequence[str], n: int, nearest: int, workers: int) -> list[FuzzyCandidates]:
        from rapidfuzz import fuzz
        from rapidfuzz.process import cdist

        ratios = cdist(surfaces, self._names, scorer=fuzz.ratio, dtype=np.float32, workers=workers)
        best = []
        for surface, alike in zip(surfaces, ratios, strict=True):
            if not surface or not len(alike):
                best.append(FuzzyCandidates(places=np.zeros(0, np.int64), scores=np.zeros(0)))
                continue
            places = self._pool(surface, alike, max(n, nearest))
            names = [self._names[place] for place in places]
            scores = cdist([surface], names, scorer=fuzz.WRatio, dtype=np.float64, workers=workers)[0]
            order = np.lexsort((_shuffled(places), -alike[places], -scores))[:n]
            best.append(FuzzyCandidates(places=places[order], scores=scores[order]))
        return best

    def _pool(self, surface: str, alike: NDArray[Any], nearest: int) -> NDArray[Any]:
        """Return the positions of the names to score, in ascending order."""
        n = len(alike)
        last = np.partition(alike, n - nearest)[n - nearest] if n > nearest else -1.0
        parts = [np.flatnonzero(alike >= last)]
        words = {one for word in surface.split() for one in self._spellings(word)}
        rare = [word for word in words if len(self._postings[word]) <= _COMMON] or words
        parts += [np.asarray(self._postings[word], np.int64) for word in rare]
        return np.unique(np.concatenate(parts))

    def _spellings(self, word: str) -> list[str]:
        """Return the word itself where a name contains it, else the most similar words of names."""
        from rapidfuzz import fuzz, process

        if word in self._postings:
            return [word]
        if word not in self._corrected:
            near = process.extract(
                word, self._vocabulary, scorer=fuzz.ratio, score_cutoff=_LEAST_ALIKE, limit=_CORRECTIONS
            )
            self._corrected[word] = [found for found, _, _ in near]
        return self._corrected[word]


def _shuffled(places: NDArray[Any]) -> NDArray[Any]:
    scattered: NDArray[Any] = (places * _SCATTER) & 0xFFFFFFFF
    return scattered


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzyOutcome:
    """One mention whose gold is in the KB."""

    mention_id: MentionId
    cluster: str
    "The sentence: its mentions are resampled together."
    rank: float
    "Rank of the gold among the candidates, from 1, ties at their mean rank; infinity where it is no candidate."

    def __post_init__(self) -> None:
        if not self.rank >= 1.0:
            raise ValueError(f"outcome of {self.mention_id!r} has rank {self.rank}; ranks start at 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzyCounts:
    """Counts of how well one system ranks the candidates."""

    n: int
    recall: Estimate | None
    "Share of mentions whose gold is among the candidates, at any rank.  None without mentions."
    top: dict[int, Estimate]
    "T@k over all mentions; a gold that is no candidate is a miss."
    top_given: dict[int, Estimate]
    "T@k over mentions whose gold is among the candidates, comparable with published figures, whose recall is 1."


def fuzzy_counts(outcomes: Sequence[FuzzyOutcome], *, samples: int = 2000, seed: int = 0) -> FuzzyCounts:
    """Compute the shares with clustered 95% intervals.  The order of the outcomes does not matter."""
    ordered = sorted(outcomes, key=lambda one: one.mention_id)
    if not ordered:
        return FuzzyCounts(n=0, recall=None, top={}, top_given={})
    ranks = np.array([one.rank for one in ordered])
    inside = np.isfinite(ranks)
    resamples = Resamples([one.cluster for one in ordered], samples=samples, seed=seed)
    everyone, given = np.arange(len(ordered)), np.flatnonzero(inside)

    def share(hits: NDArray[Any], members: NDArray[Any]) -> Estimate:
        return resamples.share(hits[members], np.ones(len(members)), members)

    return FuzzyCounts(
        n=len(ordered),
        recall=share(inside, everyone),
        top={k: share(ranks <= k, everyone) for k in TOP},
        top_given={k: share(ranks <= k, given) for k in TOP} if len(given) else {},
    )
