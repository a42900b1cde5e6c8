"""Two systems on the same mentions: how far apart they are, and whether that can be chance.

In: the outcomes of both.  Out: a Comparison.  Over mentions whose gold is in the KB; refuses to compare systems that
were not asked the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localmel.errors import BadInput
from localmel.evaluate.protocol import EvaluationSettings, Outcome, counted_rank, in_order
from localmel.evaluate.resamples import Estimate, Resamples, ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """First minus second; above 0 the first is better."""

    first: str
    second: str
    n: int
    "Mentions whose gold is in the KB."
    n_sentences: int
    hits_at_1: Estimate
    mrr: Estimate
    only_first: int
    "Mentions that only the first put at rank 1."
    only_second: int
    p: float
    "McNemar's exact test on HITS@1, two-sided, not corrected for further comparisons."


def compare(
    first: Sequence[Outcome],
    second: Sequence[Outcome],
    settings: EvaluationSettings | None = None,
    *,
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Paired differences of HITS@1 and MRR with 95% intervals (sentences resampled, both systems together).

    The interval knows that mentions of one sentence go together; McNemar's test takes them as independent.  Where
    the two disagree, believe the interval.
    Raises BadInput where mentions, sentences or gold differ, or no gold is in the KB."""
    settings = settings or EvaluationSettings()
    pairs = [pair for pair in pairs_of(first, second, names) if pair[0].gold is not None]
    if not pairs:
        raise BadInput(f"{names[0]!r} and {names[1]!r} share no mention whose gold is in the KB")
    resamples = Resamples([one.cluster for one, _ in pairs], samples=settings.samples, seed=settings.seed)
    ranks = np.array([[counted_rank(outcome, settings) for outcome in pair] for pair in pairs])
    hit = ranks <= 1.0
    ones = np.ones(len(pairs))
    columns = np.stack([1.0 * hit[:, 0] - hit[:, 1], 1.0 / ranks[:, 0] - 1.0 / ranks[:, 1], ones], axis=1)
    every = np.arange(len(pairs))
    drawn = resamples.totals(columns, every)

    def estimate(column: int) -> Estimate:
        low, high = resamples.interval(ratio(drawn[:, column], drawn[:, 2]), every)
        return Estimate(value=float(columns[:, column].mean()), low=low, high=high, n=len(pairs))

    only_first, only_second = int((hit[:, 0] & ~hit[:, 1]).sum()), int((hit[:, 1] & ~hit[:, 0]).sum())
    return Comparison(
        first=names[0],
        second=names[1],
        n=len(pairs),
        n_sentences=resamples.counts.shape[1],
        hits_at_1=estimate(0),
        mrr=estimate(1),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: were both systems equally good, how often would the mentions that
    only one of them has right fall at least this unevenly?  1 where there are none.

    Whole numbers until the last division, so nothing overflows or rounds.  Raises ValueError for counts below 0."""
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts {only_first} and {only_second} must be 0 or more")
    n = only_first + only_second
    ways = term = 1  # n over 0
    for k in range(min(only_first, only_second)):
        term = term * (n - k) // (k + 1)
        ways += term
    return 1.0 if 2 * ways >= 2**n else float(2 * ways / 2**n)


def pairs_of(
    first: Sequence[Outcome], second: Sequence[Outcome], names: tuple[str, str]
) -> list[tuple[Outcome, Outcome]]:
    """The two outcomes of each mention, by mention id.  Raises BadInput where mentions, sentences or gold differ."""
    one, other = ({outcome.mention_id: outcome for outcome in in_order(outcomes)} for outcomes in (first, second))
    missing = [(names[1], sorted(one.keys() - other.keys())), (names[0], sorted(other.keys() - one.keys()))]
    lacks = [f"{name!r} lacks {len(ids)} ({_examples(ids)})" for name, ids in missing if ids]
    if lacks:
        raise BadInput(f"not the same mentions, {len(one)} and {len(other)}: {'; '.join(lacks)}")
    pairs = [(outcome, other[mention_id]) for mention_id, outcome in one.items()]
    differ = [a.mention_id for a, b in pairs if (a.gold, a.cluster) != (b.gold, b.cluster)]
    if differ:
        raise BadInput(f"{len(differ)} mentions have another gold or sentence in {names[1]!r} ({_examples(differ)})")
    return pairs


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (", ..." if len(ids) > 3 else "")
