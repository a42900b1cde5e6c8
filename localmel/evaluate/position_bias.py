"""Does a reranker prefer a place in its list?  Where the right candidate stood, against which place was chosen.

In: for each mention the candidates in the order in which they were offered, the answer, the gold.  Out: shares by
place.  Only mentions whose gold was offered count, since only there could the choice have been right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localmel.evaluate.resamples import Estimate, Resamples
from localmel.evaluate.significance import means_of
from localmel.records import EntityId


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One mention, as it was put to the reranker."""

    cluster: str
    offered: tuple[EntityId, ...]
    chosen: EntityId | None
    "None: NIL."
    gold: EntityId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place of the list, from 1."""

    place: int
    gold: float
    "Share of mentions whose gold stood here."
    chosen: float
    "Share of mentions for which this place was chosen."
    right: float | None
    "Share of right answers where the gold stood here; None where it never did."


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionBias:
    """Without a preference the first place is chosen as often as the gold stands there: pull 0."""

    n: int
    pull: Estimate
    "How much more often the first place is chosen than the gold stands there."
    places: tuple[Place, ...]


def position_bias(offers: Sequence[Offer], *, samples: int = 2000, seed: int = 0) -> PositionBias | None:
    """Shares by place; None where no gold was offered.  Source: Zheng et al., 2023 (position bias of judges)."""
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
