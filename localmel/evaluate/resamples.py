"""Sentences drawn again and again: the one bootstrap under every interval.

In: which sentence each mention stands in.  Out: sums over each resample, and 95% percentile intervals.
One draw serves all metrics and slices, so that they can be compared; knows nothing of what is summed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELLS = 2_000_000
"Numbers held at once while sums are taken: 16 MB in float64."


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95% interval and the n mentions it is over.

    `low` and `high` are None where there is no interval: all mentions stand in one sentence, or the number has none."""

    value: float
    low: float | None
    high: float | None
    n: int

    def negated(self) -> Estimate:
        """The same with the sign turned: a difference seen from the other side."""
        low, high = (None if bound is None else -bound for bound in (self.high, self.low))
        return Estimate(value=-self.value, low=low, high=high, n=self.n)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Resamples:
    """As many clusters as there are, drawn with replacement, `samples` times; all mentions of a cluster come along.

    Draws the same clusters as `metrics.share_of` with the same seed.  Source: Field and Welsh, 2007 (clusters drawn
    whole); percentile intervals as in Efron and Tibshirani, 1993, chapter 13."""

    def __init__(self, clusters: Sequence[str], *, samples: int = 2000, seed: int = 0) -> None:
        """clusters: one name per mention; none at all is legal.  Raises ValueError for fewer than one sample."""
        if samples < 1:
            raise ValueError(f"{samples} resamples give no interval")
        names = {name: number for number, name in enumerate(sorted(set(clusters)))}
        self.cluster: NDArray[np.int64] = np.array([names[name] for name in clusters], np.int64)
        "(n_mentions,): the number of each mention's cluster."
        self.counts: NDArray[np.uint16] = np.zeros((samples, len(names)), np.uint16)
        "(samples, n_clusters): how often each cluster was drawn."
        random = np.random.default_rng(seed)
        for row in self.counts if len(names) else ():
            row[:] = np.bincount(random.integers(0, len(names), len(names)), minlength=len(names))

    def totals(self, columns: NDArray[Any], members: NDArray[Any]) -> NDArray[np.float64]:
        """Sums over every resample.  columns: (n_members, n_columns), values of the mentions whose positions are
        `members`.  Returns (samples, n_columns)."""
        here, place = np.unique(self.cluster[members], return_inverse=True)
        sums = np.zeros((len(here), columns.shape[1]))
        np.add.at(sums, place, columns)
        parts = [self.counts[rows][:, here].astype(np.float64) @ sums for rows in self._blocks(len(here))]
        return np.concatenate(parts)

    def areas(self, positive: NDArray[Any], score: NDArray[Any], members: NDArray[Any]) -> NDArray[np.float64]:
        """The area under the ROC curve in every resample: positives above negatives, ties half.

        positive, score: (n_members,).  Returns (samples,), NaN where a resample has one kind only."""
        order = np.argsort(score, kind="stable")
        cluster, high, score = self.cluster[members][order], positive[order].astype(bool), score[order]
        below = np.searchsorted(score, score[high], "left")  # negatives up to here score lower
        up_to = np.searchsorted(score, score[high], "right")  # and up to here, not higher
        parts = []
        for rows in self._blocks(len(members)):
            weight = self.counts[rows][:, cluster].astype(np.float64)
            negatives = np.cumsum(np.where(high, 0.0, weight), axis=1)
            negatives = np.pad(negatives, ((0, 0), (1, 0)))
            pairs = (weight[:, high] * (negatives[:, below] + negatives[:, up_to])).sum(axis=1) / 2
            parts.append(ratio(pairs, weight[:, high].sum(axis=1) * negatives[:, -1]))
        return np.concatenate(parts)

    def interval(self, values: NDArray[Any], members: NDArray[Any]) -> tuple[float, float] | tuple[None, None]:
        """The middle 95% of (samples,) values; resamples without a value (NaN) are left out.

        None where fewer than two clusters hold `members`, or no resample has a value: nothing can be said."""
        known = values[~np.isnan(values)]
        if not len(known) or len(np.unique(self.cluster[members])) < 2:
            return None, None
        low, high = np.quantile(known, (0.025, 0.975))
        return float(low), float(high)

    def _blocks(self, width: int) -> Iterator[slice]:
        step = max(1, _CELLS // max(width, 1))
        return (slice(start, start + step) for start in range(0, len(self.counts), step))


def ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """Element by element; NaN, without a warning, where there is nothing to divide by."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    quotient: NDArray[np.float64] = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
