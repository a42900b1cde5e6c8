"""Search in two steps: an index finds candidates by one vector per entity, and the matcher scores them.

In: a matcher, the sides of a KB's entities, features of mentions.  Out: the best entities by the matcher's score.
The settings limit how many pairs the second step scores per mention, regardless of the size of the KB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.index import NO_ID, VectorIndex
from localmel.matchers.kind import Found
from localmel.matchers.prepared import lifted_mentions
from localmel.matchers.protocol import Matcher, Side

Given = TypeVar("Given")
_VALUES_AT_ONCE = 1 << 24
"Approximate number of values of candidates' tokens in memory at once."
_CANDIDATES_AT_ONCE = 256
"Maximum number of a mention's candidates scored together, so that one with many pictures pads no more than these."
_ENTITIES_AT_ONCE = 4096


class EntitySides(Protocol):
    """The sides of the n entities of a KB, on disk or in memory."""

    def __len__(self) -> int: ...

    def of(self, positions: NDArray[np.int64]) -> Side:
        """Return the sides of the entities at these positions."""
        ...


class HeldSides:
    """Sides in memory."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def __len__(self) -> int:
        return len(self._side)

    def of(self, positions: NDArray[np.int64]) -> Side:
        """Return the sides of the entities at these positions."""
        return self._side.rows(torch.from_numpy(positions))


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStepSettings:
    """Settings that control how many entities the matcher scores per mention."""

    candidates: int = 128
    "Minimum number of candidates from the first step."
    most: int = 2048
    "Maximum number: candidates are doubled until a miss is unlikely, or up to this number."
    certainty: float = 6.0
    "How many standard deviations a missed entity's score would have to rise in the second step; 0 never doubles."

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= self.most or self.certainty < 0:
            raise BadInput(
                f"candidates {self.candidates}, most {self.most} or certainty {self.certainty} is out of its range"
            )


class TwoStepSearch(Generic[Given]):
    """A two-step search for the entities of mentions, by one matcher."""

    def __init__(
        self,
        matcher: Matcher[Given],
        entities: EntitySides,
        index: VectorIndex,
        longest: float,
        settings: TwoStepSettings | None = None,
    ) -> None:
        """Set up the search.  index: over the entities' lifted vectors by position; longest: see `lifted_entities`.

        Raises BadInput if the index was made with another matcher or from another KB."""
        if index.width != matcher.width + 1 or len(index) != len(entities):
            raise BadInput(
                f"the index holds {len(index):,} vectors of length {index.width}; the matcher and the KB ask for "
                f"{len(entities):,} of length {matcher.width + 1}",
                hint="index_sides(sides, settings)   # makes the index of these sides",
            )
        self._matcher, self._entities, self._index, self._longest = matcher, entities, index, longest
        self._settings = settings or TwoStepSettings()

    @torch.no_grad()
    def search(self, given: Given, k: int) -> Found:
        """Return the best k of each of m mentions.  Raises BadInput for features that the matcher refuses."""
        mentions = self._matcher.mentions(given)
        lifted, lengths = lifted_mentions(mentions.vectors.float().cpu().numpy())
        if self._matcher.vectors_say_all:
            first, places = self._first(lifted, lengths, k)
            return _best(first, places, k, n_scored=0)
        scores, entities = np.empty((len(lifted), k), np.float32), np.empty((len(lifted), k), np.int64)
        rows, n, n_scored = np.arange(len(lifted)), max(k, self._settings.candidates), 0
        places, second = np.empty((len(lifted), 0), np.int64), np.empty((len(lifted), 0), np.float32)
        while len(rows):
            first, wider = self._first(lifted[rows], lengths[rows], n)
            known = places.shape[1] if np.array_equal(wider[:, : places.shape[1]], places) else 0  # a graph may differ
            second = np.concatenate([second[:, :known], self._second(mentions, rows, wider[:, known:])], axis=1)
            places, n_scored = wider, n_scored + int((wider[:, known:] != NO_ID).sum())
            best = _best(second, places, k, n_scored=0)
            scores[rows], entities[rows] = best.scores, best.entities
            if n >= min(self._settings.most, len(self._entities)):
                break
            still = ~self._settled(first, second, best.scores[:, -1])
            rows, places, second, n = rows[still], places[still], second[still], min(2 * n, self._settings.most)
        return Found(scores=scores, entities=entities, n_scored=n_scored)

    def _first(self, lifted: NDArray[Any], lengths: NDArray[Any], n: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return inner products (m, n) and positions (m, n) of the first step, best first."""
        scores, places = self._index.search(lifted, min(n, len(self._entities)))
        return np.where(places == NO_ID, -np.inf, scores * (lengths * self._longest)[:, None]), places

    def _second(self, mentions: Side, rows: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the matcher's scores of the mentions at `rows` and their candidates at `places`, shape (m, n)."""
        width = sum(tokens.there.shape[1] * tokens.values.shape[2] for tokens in mentions.tokens.values())
        at_once = max(1, _VALUES_AT_ONCE // max(1, width * min(places.shape[1], _CANDIDATES_AT_ONCE)))
        scores = np.full(places.shape, -np.inf, np.float32)
        for start in range(0, len(rows), at_once):
            some = slice(start, start + at_once)
            own = mentions.rows(torch.from_numpy(rows[some]))
            for first in range(0, places.shape[1], _CANDIDATES_AT_ONCE):
                theirs = places[some, first : first + _CANDIDATES_AT_ONCE]
                used, numbers = np.unique(np.maximum(theirs, 0), return_inverse=True)
                candidates = self._entities.of(used).to(mentions.vectors.device)
                candidates = candidates.rows(torch.from_numpy(numbers.reshape(theirs.shape)))
                made = self._matcher.scores(own, candidates).float().cpu().numpy()
                scores[some, first : first + _CANDIDATES_AT_ONCE] = made
        return np.where(places == NO_ID, -np.inf, scores)

    def _settled(self, first: NDArray[Any], second: NDArray[Any], last: NDArray[Any]) -> NDArray[Any]:
        """Return whether an unscored entity is unlikely to be among the best k, (m,) bool.  last: (m,) the k-th score.

        The difference between first-step and second-step scores is assumed to be distributed alike for the later half
        of the candidates and for the entities after them, whose first-step scores are no better than the last
        candidate's."""
        exhausted = np.isneginf(first[:, -1])  # the index knows no further ones
        later = slice(first.shape[1] // 2, None)
        change = np.where(exhausted[:, None], 0.0, second[:, later]) - np.where(
            exhausted[:, None], 0.0, first[:, later]
        )
        reach = change.mean(axis=1) + self._settings.certainty * change.std(axis=1)
        settled: NDArray[Any] = exhausted | (last > first[:, -1] + reach)
        return settled


@torch.no_grad()
def search_all(matcher: Matcher[Given], entities: EntitySides, given: Given, k: int) -> Found:
    """Return the best k by the matcher's score of every pair: the reference for `TwoStepSearch`, at a cost linear in
    n."""
    mentions = matcher.mentions(given)
    pieces = [np.arange(first, min(first + _ENTITIES_AT_ONCE, len(entities)))
              for first in range(0, len(entities), _ENTITIES_AT_ONCE)]  # fmt: skip
    device = mentions.vectors.device
    made = [matcher.scores(mentions, entities.of(piece).to(device)).float().cpu().numpy() for piece in pieces]
    scores = np.concatenate([np.empty((len(mentions), 0), np.float32), *made], axis=1)
    places = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return _best(scores, places, k, n_scored=scores.size)


def agreement(one: Found, other: Found) -> float:
    """Return the share of mentions for which both found the same entities, in any order."""
    if not len(one.entities):
        return 1.0
    return float((np.sort(one.entities, axis=1) == np.sort(other.entities, axis=1)).all(axis=1).mean())


def _best(scores: NDArray[Any], places: NDArray[Any], k: int, *, n_scored: int) -> Found:
    """Return the best k of scores and places (m, c), padded to k if c is smaller."""
    missing = max(0, k - scores.shape[1])
    scores = np.pad(scores.astype(np.float32), ((0, 0), (0, missing)), constant_values=-np.inf)
    places = np.pad(places, ((0, 0), (0, missing)), constant_values=NO_ID)
    order = np.lexsort((np.where(places == NO_ID, np.iinfo(np.int64).max, places), -scores), axis=1)[:, :k]
    return Found(
        scores=np.take_along_axis(scores, order, axis=1),
        entities=np.take_along_axis(places, order, axis=1),
        n_scored=n_scored,
    )
