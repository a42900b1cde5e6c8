"""How good answers are: ROC area, F1, calibration error and reliability bins.

In: arrays of what was right and how confident the system was.  Out: numbers.  Pure functions that know no model and no
KB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"Bins of equal width for calibration, as in Guo et al., 2017."
_Z = NormalDist().inv_cdf(0.975)
"Standard normal deviate of a 95% interval."


def area_under_roc(positive: NDArray[Any], score: NDArray[Any]) -> float:
    """Return the probability that a positive scores above a negative; ties count half.  NaN without both kinds."""
    positive = np.asarray(positive, bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, place, counts = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float((rank[place][positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def f1_of(predicted: NDArray[Any], actual: NDArray[Any]) -> tuple[float, float, float]:
    """Return precision, recall and their harmonic mean; 0 where there is nothing to divide by."""
    predicted, actual = np.asarray(predicted, bool), np.asarray(actual, bool)
    both = float((predicted & actual).sum())
    precision = both / max(int(predicted.sum()), 1)
    recall = both / max(int(actual.sum()), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)


def expected_calibration_error(probability: NDArray[Any], correct: NDArray[Any], *, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy over bins of equal width, weighted by their mentions.

    Source: Naeini et al., 2015."""
    probability, correct = np.asarray(probability, np.float64), np.asarray(correct, np.float64)
    place = _bin_of(probability, bins)
    sure = np.bincount(place, probability, minlength=bins)
    right = np.bincount(place, correct, minlength=bins)
    return float(np.abs(sure - right).sum() / max(len(probability), 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The answers whose probability falls into one bin: a point of the reliability curve."""

    n: int
    sure: float
    "Mean probability."
    right: float
    "Share of right answers, NIL answers included."
    low: float
    high: float
    "95% Wilson interval of `right`.  It treats mentions as independent: a guide to the eye, not a test."


def reliability_of(probability: NDArray[Any], correct: NDArray[Any], *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Return the bins that contain an answer, in rising order: the bins of the calibration error.

    Source: Niculescu-Mizil and Caruana, 2005."""
    probability, correct = np.asarray(probability, np.float64), np.asarray(correct, bool)
    place = _bin_of(probability, bins)
    found = []
    for number in np.unique(place):
        here = place == number
        n, n_right = int(here.sum()), int(correct[here].sum())
        low, high = wilson_interval(n_right, n)
        found.append(ReliabilityBin(n=n, sure=float(probability[here].mean()), right=n_right / n, low=low, high=high))
    return tuple(found)


def wilson_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of the share count / n.  Source: Wilson, 1927."""
    share, square = count / n, _Z * _Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return (middle - half if count else 0.0), (middle + half if count < n else 1.0)


def _bin_of(probability: NDArray[Any], bins: int) -> NDArray[Any]:
    number: NDArray[Any] = np.minimum((probability * bins).astype(int), bins - 1)
    return number
