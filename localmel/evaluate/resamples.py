"""The clustered bootstrap behind every interval: sentences are resampled whole.

In: the sentence of each mention.  Out: sums over each resample, and 95% percentile intervals.
One set of resamples serves all metrics and slices, so that they can be compared.  Knows nothing of what is summed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELLS = 2_000_000
"Numbers held at once while summing: 16 MB in float64."


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95% interval and the n mentions it is computed over.

    `low` and `high` are None where there is no interval, as when all mentions are in one sentence."""

    value: float
    low: float | None
    high: float | None
    n: int

    def negated(self) -> Estimate:
        """Return the estimate with its sign reversed: a difference seen from the other side."""
        low, high = (None if bound is None else -bound for bound in (self.high, self.low))
        return Estimate(value=-self.value, low=low, high=high, n=self.n)

    def as_json(self) -> dict[str, Any]:
        """Return the estimate for programs, six decimals; `low` and `high` are null without an interval."""
        low, high = (None if bound is None else round(bound, 6) for bound in (self.low, self.high))
        return {"value": round(self.value, 6), "low": low, "high": high, "n": self.n}

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Resamples:
    """`samples` bootstrap resamples; each draws as many clusters as there are, with replacement and with all mentions.

    Source: Field and Welsh, 2007 (clusters drawn whole); percentile intervals as in Efron and Tibshirani, 1993,
    chapter 13."""

    def __init__(self, clusters: Sequence[str], *, samples: int = 2000, seed: int = 0) -> None:
        """Draw the resamples.  clusters: one name per mention, may be empty.  Raises ValueError for no samples."""
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
        """Sum each column over every resample, shape (samples, n_columns).

        columns: (n_members, n_columns), values of the mentions whose positions are `members`."""
        here, place = np.unique(self.cluster[members], return_inverse=True)
        sums = np.zeros((len(here), columns.shape[1]))
        np.add.at(sums, place, columns)
        parts = [self.counts[rows][:, here].astype(np.float64) @ sums for rows in self._blocks(len(here))]
        return np.concatenate(parts)

    def share(self, above: NDArray[Any], below: NDArray[Any], members: NDArray[Any]) -> Estimate:
        """Estimate sum(above) / sum(below) with its interval.  above, below: (n_members,) counts; n is sum(below)."""
        sums = self.totals(np.stack([above, below], axis=1).astype(np.float64), members)
        low, high = self.interval(ratio(sums[:, 0], sums[:, 1]), members)
        n = int(below.sum())
        return Estimate(value=float(above.sum()) / n, low=low, high=high, n=n)

    def areas(self, positive: NDArray[Any], score: NDArray[Any], members: NDArray[Any]) -> NDArray[np.float64]:
        """Compute the area under the ROC curve of every resample, shape (samples,); ties count half.

        positive, score: (n_members,).  NaN where a resample lacks positives or negatives."""
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
        """Return the middle 95% of the values, shape (samples,); resamples without a value (NaN) are ignored.

        Returns (None, None) where `members` are in fewer than two clusters, or no resample has a value."""
        known = values[~np.isnan(values)]
        if not len(known) or len(np.unique(self.cluster[members])) < 2:
            return None, None
        low, high = np.quantile(known, (0.025, 0.975))
        return float(low), float(high)

    def _blocks(self, width: int) -> Iterator[slice]:
        step = max(1, _CELLS // max(width, 1))
        return (slice(start, start + step) for start in range(0, len(self.counts), step))


def ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """Divide element by element; NaN, without a warning, where the divisor is not positive."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    quotient: NDArray[np.float64] = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
