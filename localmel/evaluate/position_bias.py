"""Measure whether a reranker prefers a position in its list: against the gold's positions, and against chance.

In: the order in which candidates were offered, the answer, and, for `position_bias`, the gold.  Out: shares by place
with intervals or a test.  `place_preference` needs no gold: candidates are shuffled for each mention, so a model that
prefers no place chooses every place equally often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from localmel.evaluate.metrics import wilson_interval
from localmel.evaluate.resamples import Estimate, Resamples
from localmel.evaluate.significance import means_of
from localmel.records import EntityId

# --- against the positions of the gold --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The candidates of one mention in the order in which the reranker saw them, with its answer."""

    cluster: str
    offered: tuple[EntityId, ...]
    chosen: EntityId | None
    "None: NIL."
    gold: EntityId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place of the list, counted from 1."""

    place: int
    gold: float
    "Share of mentions whose gold was here."
    chosen: float
    "Share of mentions for which this place was chosen."
    right: float | None
    "Share of right answers among mentions whose gold was here; None where there are none."


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionBias:
    """The share of each place among choices and among golds; a pull of 0 means no preference for the first place."""

    n: int
    pull: Estimate
    "How much more often the first place is chosen than it holds the gold."
    places: tuple[Place, ...]


def position_bias(offers: Sequence[Offer], *, samples: int = 2000, seed: int = 0) -> PositionBias | None:
    """Compute the shares by place over the mentions whose gold was offered; return None where there are none.

    Only these mentions count because only for them could the choice have been right.
    Source: Zheng et al., 2023 (position bias of judges)."""
    offers = [one for one in offers if one.gold is not None and one.gold in one.offered]
    if not offers:
        return None
    gold = np.array([one.offered.index(one.gold) for one in offers])
    chosen = np.array([one.offered.index(one.chosen) if one.chosen in one.offered else -1 for one in offers])
    resamples = Resamples([one.cluster for one in offers], samples=samples, seed=seed)
    pull = means_of(((chosen == 0).astype(float) - (gold == 0))[:, None], np.arange(len(offers)), resamples)
    places = []
    for place in range(max(len(one.offered) for one in offers)):
        here = gold == place
        places.append(
            Place(
                place=place + 1,
                gold=float(here.mean()),
                chosen=float((chosen == place).mean()),
                right=float((chosen[here] == place).mean()) if here.any() else None,
            )
        )
    return PositionBias(n=len(offers), pull=pull.estimate(0), places=tuple(places))


# --- against chance ---------------------------------------------------------------------------------------------------


class Answered(Protocol):
    """The outcome of one order of the candidates (see `rerank.choice.Vote`)."""

    @property
    def order(self) -> tuple[int, ...]:
        """The option at each place."""

    @property
    def place(self) -> int:
        """The place that was chosen; the number of places for NIL."""

    @property
    def option(self) -> int | None:
        """The option that was chosen; None for NIL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceShare:
    """One place of the list, counted from 1."""

    place: int
    chosen: float
    low: float
    high: float
    "95% Wilson interval of `chosen`."
    by_chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePreference:
    """The places chosen in the first order of each mention; later orders are rotations, not independent draws."""

    n: int
    "Mentions for which a candidate was chosen, among those with the most common number of candidates."
    nil: float
    "Share of first orders that were answered NIL."
    places: tuple[PlaceShare, ...]
    moved: float
    "Share of choices that would have to move to make all places equal: 0 none; near 1 all are in one place."
    chi_square: float
    p: float
    "Probability that a model without a preference is at least this uneven."
    agreement: float | None
    "Share of mentions whose orders all led to the same answer; None where each was asked in one order only."
    n_orders: int
    "The highest number of orders of a mention."


def place_preference(answers: Sequence[Sequence[Answered]]) -> PlacePreference | None:
    """Test whether all places are chosen equally often.  Returns None where no candidate was ever chosen.

    answers: the orders of each mention, the first one first."""
    asked = [one for one in answers if one]
    chosen = [one[0] for one in asked if one[0].option is not None and len(one[0].order) > 1]
    if not chosen:
        return None
    (n_places, n), *_ = Counter(len(answer.order) for answer in chosen).most_common(1)
    counts = Counter(answer.place for answer in chosen if len(answer.order) == n_places)
    expected = n / n_places
    chi_square = math.fsum((counts[place] - expected) ** 2 / expected for place in range(n_places))
    several = [one for one in asked if len(one) > 1]
    agreeing = sum(len({answer.option for answer in one}) == 1 for one in several)
    return PlacePreference(
        n=n,
        nil=sum(one[0].option is None for one in asked) / len(asked),
        places=tuple(_share(place, counts[place], n, n_places) for place in range(n_places)),
        moved=math.fsum(abs(counts[place] - expected) for place in range(n_places)) / (2 * n),
        chi_square=chi_square,
        p=upper_chi_square(chi_square, n_places - 1),
        agreement=agreeing / len(several) if several else None,
        n_orders=max(len(one) for one in asked),
    )


def _share(place: int, count: int, n: int, n_places: int) -> PlaceShare:
    low, high = wilson_interval(count, n)
    return PlaceShare(place=place + 1, chosen=count / n, low=low, high=high, by_chance=1 / n_places)


def upper_chi_square(value: float, degrees: int) -> float:
    """Return the probability that a chi-square variable with so many degrees of freedom is at least `value`.

    Source: the finite sums of Abramowitz and Stegun, 26.4.4 and 26.4.5; SciPy is an extra that reranking lacks."""
    if value <= 0:
        return 1.0
    half = value / 2
    first = 1 if degrees % 2 else 2
    tail = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    logs = (degree / 2 * math.log(half) - math.lgamma(degree / 2 + 1) for degree in range(first, degrees - 1, 2))
    return min(1.0, tail + math.fsum(math.exp(log - half) for log in logs))
