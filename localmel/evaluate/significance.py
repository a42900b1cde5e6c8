"""Is a difference real?  Means of paired differences, two tests corrected for the number of pairs, and a verdict.

In: a value for each mention and system, and the resamples of their sentences.  Out: differences with intervals,
p-values, and the smallest difference that so many mentions can show.  The tests are those of SciPy and statsmodels
(extra `compare`).  Knows no model, no KB and no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.evaluate.resamples import Estimate, Resamples, ratio

LEVEL = 0.05
"A difference is beyond chance where both corrected p-values are below this."
POWER = 0.8
"How often the smallest difference that can be shown is found when it is there."
FEW_SENTENCES = 50
"Below this, resampled intervals are too narrow; a report says so."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """Means over the same mentions, one for each column, and what the resamples say of them."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    "The middle 95% of the resamples; NaN where all mentions stand in one sentence."
    error: NDArray[np.float64]
    "Standard deviation of the resampled means."
    p: NDArray[np.float64]
    "Two-sided, that the mean is 0: twice the share of resamples on the rarer side of 0, themselves counted as one."
    n: int

    def estimate(self, column: int) -> Estimate:
        """One of them as a number with its interval."""
        low, high = float(self.low[column]), float(self.high[column])
        known = not np.isnan(low)
        return Estimate(
            value=float(self.value[column]), low=low if known else None, high=high if known else None, n=self.n
        )


def means_of(columns: NDArray[Any], members: NDArray[Any], resamples: Resamples) -> Means:
    """Mean, interval and p-value of each column.

    columns: (n_members, n_columns), values of the mentions whose positions are `members`.  At least one member.
    A resample that draws no sentence of the members has no mean and is left out."""
    columns = np.asarray(columns, np.float64)
    drawn = resamples.totals(np.concatenate([columns, np.ones((len(columns), 1))], axis=1), members)
    means = ratio(drawn[:, :-1], drawn[:, -1:])
    means = means[~np.isnan(means).any(axis=1)]
    width = columns.shape[1]
    if len(means) and len(np.unique(resamples.cluster[members])) > 1:
        low, high = np.quantile(means, (0.025, 0.975), axis=0)
        below, above = (means <= 0.0).sum(axis=0), (means >= 0.0).sum(axis=0)
        p = np.minimum(1.0, 2.0 * (np.minimum(below, above) + 1.0) / (len(means) + 1.0))
        error = means.std(axis=0)
    else:
        low = high = np.full(width, np.nan)
        p, error = np.ones(width), np.full(width, np.nan)
    return Means(value=columns.mean(axis=0), low=low, high=high, error=error, p=p, n=len(columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Two systems on one dataset.  Differences are first minus second; above 0 the first is better."""

    dataset: str
    first: str
    second: str
    hits_at_1: Estimate
    mrr: Estimate
    accuracy: Estimate
    "Over all mentions, NIL included; the other two over mentions whose gold is in the KB."
    only_first: int
    "Mentions that only the first put at rank 1."
    only_second: int
    mcnemar: float
    "p of McNemar's exact test on HITS@1; takes mentions as independent."
    bootstrap: float
    "p of the resampled difference in HITS@1; keeps the mentions of a sentence together."
    mcnemar_corrected: float
    bootstrap_corrected: float
    "Both after Holm, over all pairs of the report."
    smallest: float | None
    "The smallest difference in HITS@1 that these mentions show in 80% of the cases; None where nothing can be said."

    @property
    def beyond_chance(self) -> bool:
        """Whether both tests, corrected, say so."""
        return max(self.mcnemar_corrected, self.bootstrap_corrected) < LEVEL

    @property
    def better(self) -> str | None:
        """The better system, or None where they are not distinguishable."""
        if not self.beyond_chance:
            return None
        return self.first if self.hits_at_1.value > 0 else self.second


def mcnemar_p(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test (statsmodels); 1 where no mention is decided differently."""
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, only_first], [only_second, 0]], exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value as it counts among the others (statsmodels).  Source: Holm, 1979."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, alpha=LEVEL, method="holm")[1]]


def smallest_difference(n: int, differing: float, *, design_effect: float = 1.0, tests: int = 1) -> float | None:
    """The difference in HITS@1 that McNemar's exact test finds with probability POWER at LEVEL.

    differing: the share of mentions that the two systems would decide differently were they equally good; a real
    difference comes on top of it.  design_effect: how many times more the mean varies than that of n independent
    mentions would; it makes n smaller.  With `tests` pairs in the report the first step of Holm is asked for.
    None where n mentions cannot show even the largest difference.  Source: Connor, 1987, with exact instead of normal
    probabilities."""
    from scipy.optimize import brentq

    n, level = max(1, round(n / max(design_effect, 1.0))), LEVEL / tests
    most = 1.0 - differing

    def lacks(difference: float) -> float:
        return power_of_mcnemar(n, difference, differing, level=level) - POWER

    if most <= 0.0 or lacks(most) < 0.0:
        return None
    return float(brentq(lacks, 0.0, most, xtol=1e-5))


def power_of_mcnemar(n: int, difference: float, differing: float, *, level: float = LEVEL) -> float:
    """How often the exact test rejects at `level`, over all numbers of mentions that may come out differently."""
    from scipy.stats import binom

    apart = differing + difference
    if apart <= 0.0:
        return 0.0
    counts = np.arange(int(binom.ppf(1e-9, n, apart)), int(binom.ppf(1.0 - 1e-9, n, apart)) + 1)
    rejected_to = binom.ppf(level / 2.0, counts, 0.5) - 1.0  # so many or fewer for one side are too uneven
    share = (apart + difference) / (2.0 * apart)
    rejected = binom.cdf(rejected_to, counts, share) + binom.sf(counts - rejected_to - 1.0, counts, share)
    return float((binom.pmf(counts, n, apart) * np.where(rejected_to >= 0.0, rejected, 0.0)).sum())


def enough_resamples(tests: int, *, least: int = 2000) -> int:
    """How many resamples are drawn, so that the smallest p they can give, 2 / (resamples + 1), survives Holm over so
    many pairs."""
    return max(least, 100 * tests)
