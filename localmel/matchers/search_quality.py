"""How good a matcher is on its validation mentions, and how true the search in two steps is to its own scores.

In: a network and its inputs.  Out: the rank of each gold among the best, and what the search costs and misses."""

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
"Of each mention this many entities are ranked; a gold behind them counts as not found."
_MENTIONS_AT_ONCE = 256
_COMPARED = 16
"Mentions of which all pairs are scored, to see whether the search misses any."


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuality:
    """Cost, misses and range of scores of the two-step search, over validation mentions."""

    same_best: float
    "Share of mentions for which it finds the same best 16 as scoring every entity does."
    compared: int
    "How many mentions that was looked at for."
    scored: float
    "Entities that the matcher itself scored, for each mention."
    first: float
    "Mean score of the best entity."
    last: float
    "Mean score of the 16th."

    def note(self, n_entities: int) -> str:
        """Return it in words."""
        if not self.scored:
            same = f"{self.same_best:.0%} of {self.compared} mentions"
            return f"search in one step: the same best 16 as by scoring every entity for {same}"
        return (
            f"search in two steps: the same best 16 as by scoring every entity for {self.same_best:.0%} of "
            f"{self.compared} mentions; for each mention {self.scored:,.0f} of {n_entities:,} entities were scored"
        )


def validated(network: nn.Module, inputs: TrainingInputs, workers: Workers, *, nearest: int) -> Validated:
    """Rank by a search in two steps; each process prepares all entities and searches for its own mentions."""
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
    """The search of a network as it is now, over sides that are made in memory."""
    network.eval()
    matcher: Any = network
    sides = sides_in_memory(matcher, entities)
    index, longest = index_sides(sides, ExactSettings())
    return TwoStepSearch(matcher, sides, index, longest), sides


def found_for(
    search: TwoStepSearch[Any], mentions: EntityFeatures[Any], rows: NDArray[Any], k: int
) -> Iterator[tuple[NDArray[Any], Found]]:
    """Yield some rows, and the best k of each."""
    for start in range(0, len(rows), _MENTIONS_AT_ONCE):
        some = rows[start : start + _MENTIONS_AT_ONCE]
        yield some, search.search(mentions.of(some), k)


def gold_ranks(
    search: TwoStepSearch[Any], mentions: EntityFeatures[Any], gold: NDArray[Any], workers: Workers | None = None
) -> Tensor:
    """(m,) float64 rank of each gold among the best; infinity behind them, 0 without a gold.

    1 + how many are higher + half of the others that are level with it."""
    workers = workers or Alone()
    ranks = np.zeros(len(gold))
    own = np.flatnonzero(gold >= 0)[workers.number :: workers.of]
    for rows, found in found_for(search, mentions, own, BEST):
        ranks[rows] = ranks_in(found, gold[rows])
    return workers.sum(torch.from_numpy(ranks))


def ranks_in(found: Found, gold: NDArray[Any]) -> NDArray[np.float64]:
    """(m,) rank of each gold among what was found; infinity where it is not there."""
    at = (found.entities == gold[:, None]) & (found.entities != NO_ID)
    right = np.where(at, found.scores, -np.inf).max(axis=1, keepdims=True)
    above, level = (found.scores > right).sum(axis=1), (found.scores == right).sum(axis=1) - 1
    return np.where(at.any(axis=1), 1.0 + above + level / 2, np.inf)


def appraised(network: nn.Module, inputs: TrainingInputs) -> tuple[Tensor, SearchQuality]:
    """`gold_ranks` of the validation mentions, and how the search that found them did.

    All pairs are scored for a few mentions, spread over them."""
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
