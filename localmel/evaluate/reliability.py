"""How sure a system was, against how often it was right: the curve behind the calibration error.

In: outcomes.  Out: bins of probability, the same that the calibration error is made of.  Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localmel.evaluate.protocol import Outcome

BINS = 15
"As in the calibration error."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The answers whose probability falls into one bin."""

    n: int
    sure: float
    "Mean probability."
    right: float
    "Share of right answers, NIL answers included."
    low: float
    high: float
    "95% interval of `right` (Wilson, mentions taken as independent): a guide to the eye, not a test."


def reliability_of(outcomes: Sequence[Outcome], *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The bins that hold an answer, in rising order.  Source: Niculescu-Mizil and Caruana, 2005; Wilson, 1927."""
    from scipy.stats import binomtest

    probability = np.array([one.probability for one in outcomes], np.float64)
    right = np.array([one.predicted == one.gold for one in outcomes], bool)
    place = np.minimum((probability * bins).astype(int), bins - 1)
    found = []
    for number in np.unique(place):
        here = place == number
        n, n_right = int(here.sum()), int(right[here].sum())
        interval = binomtest(n_right, n).proportion_ci(method="wilson")
        found.append(
            ReliabilityBin(
                n=n,
                sure=float(probability[here].mean()),
                right=n_right / n,
                low=float(interval.low),
                high=float(interval.high),
            )
        )
    return tuple(found)
