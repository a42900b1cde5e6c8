"""Measure a matcher on its validation mentions, and how well two-step search agrees with its own scores.

In: a network and its inputs.  Out: the rank of each gold among the best, and the cost and misses of the search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localmel.index import NO_ID, ExactSettings
from localmel.matchers.kind import Found
from localmel.matchers.prepared import LaidOutSides, index_sides, sides_in_memory
from localmel.matchers.protocol import EntityFeatures
from localmel.matchers.train.learner import Alone, TrainingInputs, Validated, Workers
from localmel.matchers.two_step import TwoStepSearch, agreement, search_all

BEST = 16
"Number of entities ranked per mention; a gold below them counts as not found."
_MENTIONS_AT_ONCE = 256
_COMPARED = 16
"Number of mentions for which all pairs are scored, to check for misses."


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuality:
    """Cost, misses and range of scores of the two-step search, over validation mentions."""

    same_best: float
    "Share of mentions for which the search finds the same best 16 as scoring every entity."
    compared: int
    "Number of mentions compared for `same_best`."
    scored: float
    "Mean number of entities per mention that the matcher itself scored."
    first: float
    "Mean score of the best entity."
    last: float
    "Mean score of the 16th entity."

    def note(self, n_entities: int) -> str:
        """Return a one-line summary."""
        if not self.scored:
            same = f"{self.same_best:.0%} of {self.compared} mentions"
            return f"search in one step: the same best 16 as by scoring every entity for {same}"
        return (
            f"search in two steps: the same best 16 as by scoring every entity for {self.same_best:.0%} of "
            f"{self.compared} mentions; for each mention {self.scored:,.0f} of {n_entities:,} entities were scored"
        )


def validated(network: nn.Module, inputs: TrainingInputs, workers: Workers, *, nearest: int) -> Validated:
    """Rank by two-step search; each process prepares all entities and searches for its own mentions."""
    search, _ = searched(network, inputs.entities)
    ranks = gold_ranks(search, inputs.validation, inputs.validation_gold, workers)
    near = None
    if nearest:
        own = np.arange(workers.number, len(inputs.gold), workers.of)
        found = np.zeros((len(inputs.gold), nearest), np.int64)
        for rows, best in found_for(search, inputs.mentions, own, nearest):
            found[rows] = best.entities
        near = workers.sum(torch.from_numpy(found)).numpy()
    return Validated(ranks=ranks, nearest=near)


def searched(network: nn.Module, entities: EntityFeatures[Any]) -> tuple[TwoStepSearch[Any], LaidOutSides]:
    """Return the search of a network with its current weights, over sides computed in memory."""
    network.eval()
    matcher: Any = network
    sides = sides_in_memory(matcher, entities)
    index, longest = index_sides(sides, ExactSettings())
    return TwoStepSearch(matcher, sides, index, longest), sides


def found_for(
    search: TwoStepSearch[Any], mentions: EntityFeatures[Any], rows: NDArray[Any], k: int
) -> Iterator[tuple[NDArray[Any], Found]]:
    """Yield batches of rows, with the best k entities of each row."""
    for start in range(0, len(rows), _MENTIONS_AT_ONCE):
        some = rows[start : start + _MENTIONS_AT_ONCE]
        yield some, search.search(mentions.of(some), k)


def gold_ranks(
    search: TwoStepSearch[Any], mentions: EntityFeatures[Any], gold: NDArray[Any], workers: Workers | None = None
) -> Tensor:
    """Return the rank of each gold among the best, (m,) float64; infinity below them, 0 without a gold.

    A rank is 1 + the number of higher entities + half of the other entities with the same score."""
    workers = workers or Alone()
    ranks = np.zeros(len(gold))
    own = np.flatnonzero(gold >= 0)[workers.number :: workers.of]
    for rows, found in found_for(search, mentions, own, BEST):
        ranks[rows] = ranks_in(found, gold[rows])
    return workers.sum(torch.from_numpy(ranks))


def ranks_in(found: Found, gold: NDArray[Any]) -> NDArray[np.float64]:
    """Return the rank of each gold among the entities found, shape (m,); infinity if it was not found."""
    at = (found.entities == gold[:, None]) & (found.entities != NO_ID)
    right = np.where(at, found.scores, -np.inf).max(axis=1, keepdims=True)
    above, level = (found.scores > right).sum(axis=1), (found.scores == right).sum(axis=1) - 1
    return np.where(at.any(axis=1), 1.0 + above + level / 2, np.inf)


def appraised(network: nn.Module, inputs: TrainingInputs) -> tuple[Tensor, SearchQuality]:
    """Return `gold_ranks` of the validation mentions, and the quality of the search behind them.

    All pairs are scored for a few mentions, evenly spread."""
    search, sides = searched(network, inputs.entities)
    rows, gold = np.flatnonzero(inputs.validation_gold >= 0), inputs.validation_gold
    ranks, scored, best = np.zeros(len(gold)), 0, []
    for some, found in found_for(search, inputs.validation, rows, BEST):
        ranks[some] = ranks_in(found, gold[some])
        scored += found.n_scored
        best.append(found.scores[:, [0, min(BEST, len(sides)) - 1]])
    first, last = np.concatenate(best).mean(axis=0).tolist()
    few = rows[np.unique(np.linspace(0, len(rows) - 1, min(_COMPARED, len(rows))).astype(int))]
    given = inputs.validation.of(few)
    matcher: Any = network  # a network is its matcher
    whole = search_all(matcher, sides, given, BEST)
    quality = SearchQuality(
        same_best=agreement(search.search(given, BEST), whole),
        compared=len(few),
        scored=scored / len(rows),
        first=first,
        last=last,
    )
    return torch.from_numpy(ranks), quality
