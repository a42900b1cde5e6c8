"""How good answers are: shares with intervals, ranking of doubt, calibration.

In: arrays of what was right and how sure the system was.  Out: numbers.  Pure functions; knows no model and no KB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A mean of n values with its 95% bootstrap interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share_of(hits: Sequence[float], clusters: Sequence[str], *, samples: int = 2000, seed: int = 0) -> Share:
    """The mean of `hits` with a percentile bootstrap over clusters (mentions of one sentence are drawn together)."""
    values = np.asarray(hits, np.float64)
    if not len(values):
        raise ValueError("no mentions to take a share of")
    _, group = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(sums), (samples, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Share(value=float(values.mean()), low=float(low), high=float(high), n=len(values))


def area_under_roc(positive: NDArray[Any], score: NDArray[Any]) -> float:
    """Probability that a positive scores above a negative; ties count half.  NaN where one kind is missing."""
    positive = np.asarray(positive, bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, place, counts = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float((rank[place][positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def f1_of(predicted: NDArray[Any], actual: NDArray[Any]) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean; 0 where there is nothing to divide by."""
    predicted, actual = np.asarray(predicted, bool), np.asarray(actual, bool)
    both = float((predicted & actual).sum())
    precision = both / max(int(predicted.sum()), 1)
    recall = both / max(int(actual.sum()), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)


def expected_calibration_error(probability: NDArray[Any], correct: NDArray[Any], *, bins: int = 15) -> float:
    """Mean distance between how sure and how often right, over `bins` bins of equal width, weighted by their mentions.

    Source: Naeini et al., 2015; 15 bins as in Guo et al., 2017."""
    probability, correct = np.asarray(probability, np.float64), np.asarray(correct, np.float64)
    place = np.minimum((probability * bins).astype(int), bins - 1)
    sure = np.bincount(place, probability, minlength=bins)
    right = np.bincount(place, correct, minlength=bins)
    return float(np.abs(sure - right).sum() / max(len(probability), 1))
