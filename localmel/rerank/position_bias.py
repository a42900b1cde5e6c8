"""Does the model prefer a place in its list?  Where its choices stand, against where they would stand by chance.

In: votes of each mention.  Out: shares by place, a test, and how often all orders agree.  Needs no gold: candidates are
shuffled for each mention, so a model that looks at them chooses every place equally often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from localmel.rerank.choice import Vote

_Z = 1.959964
"Standard normal deviate of a 95% interval."


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceShare:
    """One place of the list, from 1."""

    place: int
    chosen: float
    low: float
    high: float
    "95% interval of `chosen` (Wilson)."
    by_chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionBias:
    """Over the first order of each mention: later ones are turns of it, and no draws of their own."""

    n: int
    "Mentions for which a candidate was chosen, among as many candidates as most mentions have."
    nil: float
    "Share of first orders whose answer was NIL."
    places: tuple[PlaceShare, ...]
    moved: float
    "Share of choices that would have to move for all places to be equal: 0 none, near 1 all stand in one place."
    chi_square: float
    p: float
    "Of a model that looks at no place, by chance as uneven as this or more."
    agreement: float | None
    "Share of mentions of which all orders gave the same answer; None where there was one order only."
    n_orders: int
    "The most orders of a mention."


def position_bias(votes: Sequence[Sequence[Vote]]) -> PositionBias | None:
    """votes: for each mention its orders, first order first.  None where no candidate was ever chosen."""
    asked = [one for one in votes if one]
    chosen = [one[0] for one in asked if one[0].option is not None and len(one[0].order) > 1]
    if not chosen:
        return None
    (n_places, n), *_ = Counter(len(vote.order) for vote in chosen).most_common(1)
    counts = Counter(vote.place for vote in chosen if len(vote.order) == n_places)
    expected = n / n_places
    chi_square = math.fsum((counts[place] - expected) ** 2 / expected for place in range(n_places))
    several = [one for one in asked if len(one) > 1]
    agreeing = sum(len({vote.option for vote in one}) == 1 for one in several)
    return PositionBias(
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
    share, square = count / n, _Z * _Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return PlaceShare(place=place + 1, chosen=share, low=middle - half, high=middle + half, by_chance=1 / n_places)


def upper_chi_square(value: float, degrees: int) -> float:
    """Probability that a chi-square of so many degrees of freedom reaches `value`: the finite sums of
    Abramowitz and Stegun, 26.4.4 and 26.4.5."""
    if value <= 0:
        return 1.0
    half = value / 2
    first = 1 if degrees % 2 else 2
    tail = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    logs = (degree / 2 * math.log(half) - math.lgamma(degree / 2 + 1) for degree in range(first, degrees - 1, 2))
    return min(1.0, tail + math.fsum(math.exp(log - half) for log in logs))
