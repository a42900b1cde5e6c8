"""Is a difference real?  Paired differences, two tests corrected for the number of pairs, and the power of the tests.

In: outcomes of two systems, or a value per mention and system, and resamples of their sentences.  Out: differences with
intervals, p-values, and the smallest difference that so many mentions can detect.  Refuses to compare systems that did
not answer the same questions.  The extra `compare` (SciPy, statsmodels) is needed for Holm and power only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.evaluate.protocol import EvaluationSettings, Outcome, counted_rank, in_order
from localmel.evaluate.resamples import Estimate, Resamples, ratio

LEVEL = 0.05
"A difference is significant where both corrected p-values are below this level."
POWER = 0.8
"How often the smallest detectable difference is found when it exists."
FEW_SENTENCES = 50
"With fewer sentences bootstrap intervals are too narrow; a report warns of that."

# --- means of differences ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """Means over the same n mentions, one per column, with their bootstrap results.  Arrays have shape (n_columns,)."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    "The middle 95% of the resampled means; NaN where all mentions are in one sentence."
    error: NDArray[np.float64]
    "Standard deviation of the resampled means."
    p: NDArray[np.float64]
    "Two-sided p of a mean of 0: twice the share of resamples on the rarer side of 0, with one added to both counts."
    n: int

    def estimate(self, column: int) -> Estimate:
        """Return one of the means with its interval."""
        low, high = float(self.low[column]), float(self.high[column])
        has_interval = not np.isnan(low)
        return Estimate(
            value=float(self.value[column]),
            low=low if has_interval else None,
            high=high if has_interval else None,
            n=self.n,
        )


def means_of(columns: NDArray[Any], members: NDArray[Any], resamples: Resamples) -> Means:
    """Compute mean, interval and p-value of each column.

    columns: (n_members, n_columns), values of the mentions whose positions are `members`; at least one member.
    A resample that draws no sentence of the members has no mean and is ignored."""
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


# --- two systems ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The paired differences of two systems: first minus second, so that above 0 the first is better."""

    first: str
    second: str
    n: int
    "Mentions whose gold is in the KB."
    n_sentences: int
    hits_at_1: Estimate
    mrr: Estimate
    only_first: int
    "Mentions that only the first ranks correctly at 1."
    only_second: int
    p: float
    "Two-sided p of McNemar's exact test on HITS@1, not corrected for multiple comparisons."


def compare(
    first: Sequence[Outcome],
    second: Sequence[Outcome],
    settings: EvaluationSettings | None = None,
    *,
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Compute the paired differences in HITS@1 and MRR with 95% intervals, over mentions whose gold is in the KB.

    The interval keeps the mentions of a sentence together; McNemar's test treats them as independent.  Where the two
    disagree, trust the interval.
    Raises BadInput where mentions, sentences or gold differ, or no gold is in the KB."""
    settings = settings or EvaluationSettings()
    pairs = [pair for pair in pairs_of(first, second, names) if pair[0].gold is not None]
    if not pairs:
        raise BadInput(f"{names[0]!r} and {names[1]!r} share no mention whose gold is in the KB")
    resamples = Resamples([one.cluster for one, _ in pairs], samples=settings.samples, seed=settings.seed)
    ranks = np.array([[counted_rank(outcome, settings) for outcome in pair] for pair in pairs])
    hit = ranks <= 1.0
    columns = np.stack([1.0 * hit[:, 0] - hit[:, 1], 1.0 / ranks[:, 0] - 1.0 / ranks[:, 1]], axis=1)
    means = means_of(columns, np.arange(len(pairs)), resamples)
    only_first, only_second = int((hit[:, 0] & ~hit[:, 1]).sum()), int((hit[:, 1] & ~hit[:, 0]).sum())
    return Comparison(
        first=names[0],
        second=names[1],
        n=len(pairs),
        n_sentences=resamples.counts.shape[1],
        hits_at_1=means.estimate(0),
        mrr=means.estimate(1),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
    )


def pairs_of(
    first: Sequence[Outcome], second: Sequence[Outcome], names: tuple[str, str]
) -> list[tuple[Outcome, Outcome]]:
    """Pair the outcomes of each mention, by mention id.  Raises BadInput where mentions, sentences or gold differ."""
    one, other = ({outcome.mention_id: outcome for outcome in in_order(outcomes)} for outcomes in (first, second))
    missing = [(names[1], sorted(one.keys() - other.keys())), (names[0], sorted(other.keys() - one.keys()))]
    lacks = [f"{name!r} lacks {len(ids)} ({_examples(ids)})" for name, ids in missing if ids]
    if lacks:
        raise BadInput(f"cannot compare {len(one)} mentions with {len(other)} different ones: {'; '.join(lacks)}")
    pairs = [(outcome, other[mention_id]) for mention_id, outcome in one.items()]
    differ = [a.mention_id for a, b in pairs if (a.gold, a.cluster) != (b.gold, b.cluster)]
    if differ:
        raise BadInput(f"{len(differ)} mentions have another gold or sentence in {names[1]!r} ({_examples(differ)})")
    return pairs


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (", ..." if len(ids) > 3 else "")


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test; 1 where no mention is decided differently.

    It is the probability that, were both systems equally good, the mentions that only one of them gets right would
    split at least this unevenly.  The arithmetic is in whole numbers until the last division, so nothing overflows or
    rounds.  Raises ValueError for counts below 0."""
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts {only_first} and {only_second} must be 0 or more")
    n = only_first + only_second
    ways = term = 1  # n over 0
    for k in range(min(only_first, only_second)):
        term = term * (n - k) // (k + 1)
        ways += term
    return 1.0 if 2 * ways >= 2**n else float(2 * ways / 2**n)


# --- every pair of a report -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Two systems on one dataset.  Differences are first minus second; above 0 the first is better."""

    dataset: str
    first: str
    second: str
    hits_at_1: Estimate
    mrr: Estimate
    accuracy: Estimate
    "Over all mentions, NIL included; HITS@1 and MRR are over mentions whose gold is in the KB."
    only_first: int
    "Mentions that only the first ranks correctly at 1."
    only_second: int
    mcnemar: float
    "p of McNemar's exact test on HITS@1, which treats mentions as independent."
    bootstrap: float
    "p of the bootstrapped difference in HITS@1, which keeps the mentions of a sentence together."
    mcnemar_corrected: float
    bootstrap_corrected: float
    "Both p-values after Holm's correction over all pairs of the report."
    smallest: float | None
    "The smallest difference in HITS@1 that these mentions detect with 80% power; None where it cannot be computed."

    @property
    def significant(self) -> bool:
        """Return whether both tests reject after correction."""
        return max(self.mcnemar_corrected, self.bootstrap_corrected) < LEVEL

    @property
    def better(self) -> str | None:
        """The better system; None where the difference is not significant."""
        if not self.significant:
            return None
        return self.first if self.hits_at_1.value > 0 else self.second


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for being several (statsmodels).  Source: Holm, 1979."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, alpha=LEVEL, method="holm")[1]]


def smallest_difference(n: int, differing: float, *, design_effect: float = 1.0, tests: int = 1) -> float | None:
    """Return the difference in HITS@1 that McNemar's exact test detects with probability POWER at LEVEL.

    differing: the share of mentions that two equally good systems would decide differently; a real difference is
    added to it.  design_effect: how many times larger the variance of the mean is than that of n independent
    mentions; it reduces n.  tests: pairs in the report; the level is that of Holm's first step.
    Returns None where n mentions cannot detect even the largest difference.
    Source: Connor, 1987, with exact instead of normal probabilities."""
    from scipy.optimize import brentq

    n, level = max(1, round(n / max(design_effect, 1.0))), LEVEL / tests
    most = 1.0 - differing

    def lacks(difference: float) -> float:
        return power_of_mcnemar(n, difference, differing, level=level) - POWER

    if most <= 0.0 or lacks(most) < 0.0:
        return None
    return float(brentq(lacks, 0.0, most, xtol=1e-5))


def power_of_mcnemar(n: int, difference: float, differing: float, *, level: float = LEVEL) -> float:
    """Return how often the exact test rejects at `level`, summed over the possible numbers of discordant mentions."""
    from scipy.stats import binom

    apart = differing + difference
    if apart <= 0.0:
        return 0.0
    counts = np.arange(int(binom.ppf(1e-9, n, apart)), int(binom.ppf(1.0 - 1e-9, n, apart)) + 1)
    rejected_to = binom.ppf(level / 2.0, counts, 0.5) - 1.0  # the test rejects when one side has so many or fewer
    share = (apart + difference) / (2.0 * apart)
    rejected = binom.cdf(rejected_to, counts, share) + binom.sf(counts - rejected_to - 1.0, counts, share)
    return float((binom.pmf(counts, n, apart) * np.where(rejected_to >= 0.0, rejected, 0.0)).sum())


def enough_resamples(tests: int, *, least: int = 2000) -> int:
    """Return how many resamples to draw so that their smallest p, 2 / (resamples + 1), survives Holm over the tests."""
    return max(least, 100 * tests)
