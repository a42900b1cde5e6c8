"""Tests of a difference: by hand, against other implementations, and against a thousand simulated comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import binom

from localmel.errors import BadInput
from localmel.evaluate.protocol import EvaluationSettings, Outcome, evaluate
from localmel.evaluate.resamples import Resamples
from localmel.evaluate.significance import (
    LEVEL,
    POWER,
    PairedTest,
    compare,
    enough_resamples,
    holm,
    mcnemar,
    means_of,
    power_of_mcnemar,
    smallest_difference,
)

Make = Callable[..., Outcome]
Draw = Callable[..., list[Outcome]]
Worse = Callable[[list[Outcome], int], list[Outcome]]
Bootstrap = Callable[..., tuple[float, float, float]]
QUICK = EvaluationSettings(samples=200)
SIMULATIONS = 1000
RIGHT = 0.85


# --- by hand and against others -------------------------------------------------------------------------------------


def test_holm_counted_by_hand() -> None:
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1, never falling
    assert holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_means_are_those_of_the_mentions_drawn_one_by_one() -> None:
    random = np.random.default_rng(3)
    clusters = [f"s{number // 3}" for number in range(30)]
    resamples = Resamples(clusters, samples=50)
    members = np.array([0, 1, 4, 7, 8, 20, 29])
    columns = random.normal(size=(len(members), 2))
    found = means_of(columns, members, resamples)
    slow = []
    for counts in resamples.counts:
        weights = counts[resamples.cluster[members]]
        if weights.sum():
            slow.append((columns * weights[:, None]).sum(axis=0) / weights.sum())
    drawn = np.array(slow)
    assert found.value == pytest.approx(columns.mean(axis=0))
    assert (found.low, found.high) == (
        pytest.approx(np.quantile(drawn, 0.025, axis=0)),
        pytest.approx(np.quantile(drawn, 0.975, axis=0)),
    )
    assert found.error == pytest.approx(drawn.std(axis=0))
    for column in range(2):
        rarer = min((drawn[:, column] <= 0).sum(), (drawn[:, column] >= 0).sum())
        assert found.p[column] == pytest.approx(min(1.0, 2 * (rarer + 1) / (len(drawn) + 1)))


def test_the_interval_is_that_of_scipy_but_for_the_draws() -> None:
    values = np.random.default_rng(4).normal(0.1, 1, 200)
    resamples = Resamples([str(number) for number in range(200)], samples=9999)
    found = means_of(values[:, None], np.arange(200), resamples)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", random_state=1)
    assert found.low[0] == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert found.high[0] == pytest.approx(theirs.confidence_interval.high, abs=0.01)
    assert found.error[0] == pytest.approx(theirs.standard_error, rel=0.05)


def test_mentions_of_one_sentence_say_nothing_of_chance() -> None:
    found = means_of(np.ones((4, 1)), np.arange(4), Resamples(["one"] * 4, samples=20))
    assert (found.p[0], found.estimate(0).low, found.estimate(0).value) == (1.0, None, 1.0)


def test_no_difference_anywhere_is_p_1() -> None:
    found = means_of(np.zeros((9, 1)), np.arange(9), Resamples(list("abcdefghi"), samples=20))
    assert (found.p[0], found.low[0], found.high[0]) == (1.0, 0.0, 0.0)


# --- what so many mentions can show ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "difference", "differing"), [(7, 0.5, 0.2), (10, 0.3, 0.0), (9, 0.0, 0.6), (6, 1.0, 0.0)]
)
def test_power_is_the_sum_over_every_outcome(n: int, difference: float, differing: float) -> None:
    """Every mention falls to the first, to the second, or to both alike: count the outcomes that the test rejects."""
    first, second = differing / 2 + difference, differing / 2
    slow = 0.0
    for ways in itertools.product((0, 1, 2), repeat=n):
        only_first, only_second = ways.count(0), ways.count(1)
        if mcnemar(only_first, only_second) <= LEVEL:
            slow += first**only_first * second**only_second * (1 - first - second) ** (n - only_first - only_second)
    assert power_of_mcnemar(n, difference, differing) == pytest.approx(slow, abs=1e-8)


def test_the_smallest_difference_is_the_one_with_that_power() -> None:
    for n, differing in ((500, 0.1), (2000, 0.02), (60, 0.3)):
        found = smallest_difference(n, differing)
        assert found is not None
        assert power_of_mcnemar(n, found, differing) == pytest.approx(POWER, abs=1e-3)


def test_more_mentions_show_less_and_more_pairs_need_more() -> None:
    assert smallest_difference(2000, 0.1) < smallest_difference(500, 0.1)  # type: ignore[operator]
    assert smallest_difference(500, 0.1) < smallest_difference(500, 0.1, tests=6)  # type: ignore[operator]
    assert smallest_difference(500, 0.1, design_effect=2.0) == smallest_difference(250, 0.1)
    assert smallest_difference(500, 0.1, design_effect=0.5) == smallest_difference(500, 0.1)


def test_too_few_mentions_show_nothing() -> None:
    assert smallest_difference(5, 0.0) is None
    assert smallest_difference(1, 1.0) is None
    assert smallest_difference(6, 0.0) is not None  # six to none is p .031


def test_resamples_are_as_many_as_holm_needs() -> None:
    for tests in (1, 18, 21, 100):
        assert 2 / (enough_resamples(tests) + 1) * tests < LEVEL


def test_both_tests_must_agree() -> None:
    def test(mcnemar_corrected: float, bootstrap_corrected: float, value: float) -> PairedTest:
        estimate = means_of(np.full((3, 1), value), np.arange(3), Resamples(list("abc"), samples=5)).estimate(0)
        return PairedTest(
            dataset="d", first="A", second="B", hits_at_1=estimate, mrr=estimate, accuracy=estimate, only_first=1,
            only_second=0, mcnemar=0.0, bootstrap=0.0, mcnemar_corrected=mcnemar_corrected,
            bootstrap_corrected=bootstrap_corrected, smallest=None,
        )  # fmt: skip

    assert test(0.04, 0.049, 0.1).better == "A"
    assert test(0.04, 0.049, -0.1).better == "B"
    assert test(0.05, 0.01, 0.1).better is None
    assert test(0.01, 0.05, 0.1).better is None


# --- a thousand comparisons -----------------------------------------------------------------------------------------


def sentences(n_sentences: int, most: int) -> list[str]:
    """Names of sentences with 1 to `most` mentions each."""
    sizes = np.random.default_rng(7).integers(1, most + 1, n_sentences)
    return [f"{number:06d}" for number, size in enumerate(sizes) for _ in range(size)]


def draw_right(
    clusters: list[str], rights: tuple[float, ...], *, seed: int, alike: float = 0.6, together: float = 0.0
) -> NDArray[np.bool_]:
    """Which mentions each system has right in each simulation: (n_systems, n_mentions, SIMULATIONS).

    `alike`: how often two systems decide a mention by the same chance; `together`: how often by its sentence's."""
    random = np.random.default_rng(seed)
    _, place = np.unique(np.array(clusters), return_inverse=True)
    shape = (len(clusters), SIMULATIONS)

    def chance() -> NDArray[Any]:
        of_sentence = random.random((place.max() + 1, SIMULATIONS))[place]
        return np.where(random.random(shape) < together, of_sentence, random.random(shape))

    common, same = chance(), random.random(shape) < alike
    return np.stack([np.where(same, common, chance()) < right for right in rights])


def covered(values: NDArray[Any], truth: float, clusters: list[str]) -> float:
    """The share of simulations whose interval holds the truth.  values: (n_mentions, SIMULATIONS)."""
    found = means_of(values, np.arange(len(clusters)), Resamples(clusters))
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


@pytest.mark.parametrize(("n_sentences", "most", "together"), [(400, 1, 0.0), (200, 5, 0.0), (200, 5, 0.6)])
def test_95_percent_intervals_hold_the_truth_in_93_to_97_percent(n_sentences: int, most: int, together: float) -> None:
    clusters = sentences(n_sentences, most)
    first, second = draw_right(clusters, (RIGHT, RIGHT - 0.03), seed=1, together=together)
    assert 0.93 <= covered(first.astype(float), RIGHT, clusters) <= 0.97
    assert 0.93 <= covered(first.astype(float) - second, 0.03, clusters) <= 0.97


def test_intervals_of_mrr_hold_the_truth_in_93_to_97_percent() -> None:
    clusters = sentences(200, 4)
    ranks = np.array([1, 1, 1, 1, 2, 3, 8, np.inf])
    drawn = np.random.default_rng(2).choice(1 / ranks, (len(clusters), SIMULATIONS))
    assert 0.93 <= covered(drawn, float(np.mean(1 / ranks)), clusters) <= 0.97


def called_different(first: NDArray[Any], second: NDArray[Any], resamples: Resamples) -> tuple[NDArray[Any], ...]:
    """McNemar's and the resampled p of every simulation."""
    only_first, only_second = (first & ~second).sum(axis=0), (second & ~first).sum(axis=0)
    fewer = np.minimum(only_first, only_second)
    exact = np.minimum(1.0, 2 * binom.cdf(fewer, only_first + only_second, 0.5))
    members = np.arange(len(first))
    return exact, means_of(first.astype(float) - second, members, resamples).p


@pytest.mark.parametrize(
    ("n_sentences", "most", "together"), [(400, 1, 0.0), (60, 1, 0.0), (200, 5, 0.6), (60, 5, 0.6)]
)
def test_equal_systems_are_called_different_in_at_most_6_percent(n_sentences: int, most: int, together: float) -> None:
    clusters = sentences(n_sentences, most)
    first, second = draw_right(clusters, (RIGHT, RIGHT), seed=3, together=together)
    exact, resampled = called_different(first, second, Resamples(clusters))
    assert exact[0] == pytest.approx(mcnemar(int((first & ~second)[:, 0].sum()), int((second & ~first)[:, 0].sum())))
    assert np.mean((exact < LEVEL) & (resampled < LEVEL)) <= 0.06


def test_one_test_alone_would_call_them_different_too_often() -> None:
    """Why there are two: McNemar's knows no sentences, and resampling no small numbers."""
    together = sentences(200, 5)
    first, second = draw_right(together, (RIGHT, RIGHT), seed=3, together=0.6)
    assert np.mean(called_different(first, second, Resamples(together))[0] < LEVEL) > 0.06
    few = np.zeros((50, 1))
    few[:5] = 1.0
    assert means_of(few, np.arange(50), Resamples(sentences(50, 1))).p[0] < LEVEL < mcnemar(5, 0)


def test_among_four_equal_systems_any_is_called_better_in_at_most_6_percent_of_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gc.collect", lambda *_: 0)  # statsmodels sweeps all memory for every correction
    clusters = sentences(250, 3)
    systems = draw_right(clusters, (RIGHT,) * 4, seed=5, together=0.3)
    resamples = Resamples(clusters)
    pairs = [called_different(one, other, resamples) for one, other in itertools.combinations(systems, 2)]
    suspects = np.any([(exact < LEVEL) & (resampled < LEVEL) for exact, resampled in pairs], axis=0)
    wrong = 0
    for number in np.flatnonzero(suspects):  # correction only raises p-values
        exact = holm([float(one[number]) for one, _ in pairs])
        resampled = holm([float(other[number]) for _, other in pairs])
        wrong += any(max(both) < LEVEL for both in zip(exact, resampled, strict=True))
    assert wrong / SIMULATIONS <= 0.06


@pytest.mark.parametrize(("n_sentences", "most", "together"), [(500, 1, 0.0), (200, 5, 0.6)])
def test_the_smallest_difference_is_found_in_about_80_percent(n_sentences: int, most: int, together: float) -> None:
    clusters = sentences(n_sentences, most)
    resamples, every = Resamples(clusters), np.arange(len(clusters))
    first, second = draw_right(clusters, (RIGHT, RIGHT), seed=6, together=together)
    hits = first.astype(float) - second
    apart, net = float(np.abs(hits).mean()), float(hits.mean())
    effect = float((means_of(hits, every, resamples).error ** 2).mean()) * len(clusters) / (apart - net**2)
    smallest = smallest_difference(len(clusters), apart, design_effect=effect)
    assert smallest is not None
    first, second = draw_right(clusters, (RIGHT, RIGHT - smallest), seed=8, together=together)
    exact, resampled = called_different(first, second, resamples)
    assert 0.7 <= np.mean((exact < LEVEL) & (resampled < LEVEL)) <= 0.9


# --- two systems ----------------------------------------------------------------------------------------------------


def test_two_systems_compared_by_hand(outcome: Make) -> None:
    first = [outcome("a"), outcome("b"), outcome("c", rank=4.0), outcome("d", gold=None, predicted=None)]
    second = [outcome("a", rank=2.0), outcome("b"), outcome("c"), outcome("d", gold=None, predicted="Q9")]
    found = compare(first, second, QUICK, names=("fused", "text only"))
    assert (found.first, found.second, found.n, found.n_sentences) == ("fused", "text only", 3, 3)
    assert (found.only_first, found.only_second, found.p) == (1, 1, 1.0)
    assert found.hits_at_1.value == 0.0
    assert found.mrr.value == pytest.approx((1 - 0.5 + 0.25 - 1) / 3)


def test_identical_systems_differ_by_nothing(draw: Draw) -> None:
    outcomes = draw(60)
    found = compare(outcomes, outcomes[::-1], QUICK)
    for difference in (found.hits_at_1, found.mrr):
        assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert (found.only_first, found.only_second, found.p) == (0, 0, 1.0)


def test_the_difference_is_that_of_the_two_evaluations(draw: Draw, worse: Worse) -> None:
    first = draw(120)
    second = worse(first, 2)
    one, other = evaluate(first, QUICK).overall.metrics, evaluate(second, QUICK).overall.metrics
    found = compare(first, second, QUICK)
    assert found.hits_at_1.value == pytest.approx(one["hits@1"].value - other["hits@1"].value)
    assert found.mrr.value == pytest.approx(one["mrr"].value - other["mrr"].value)
    assert found.only_first > 5
    assert found.only_second == 0
    assert found.hits_at_1.low is not None
    assert found.hits_at_1.low > 0
    assert found.p < 0.05


def test_the_interval_is_that_of_a_bootstrap_over_the_differences(
    draw: Draw, worse: Worse, bootstrap: Bootstrap
) -> None:
    first = draw(90, share_nil=0.0)
    second = worse(first, 3)
    hits = [float(a.rank == 1.0) - float(b.rank == 1.0) for a, b in zip(first, second, strict=True)]
    found = compare(first, second, QUICK).hits_at_1
    expected = bootstrap(hits, [one.cluster for one in first], samples=200, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx(expected)


def test_changing_sides_changes_the_sign(draw: Draw, worse: Worse) -> None:
    first = draw(90)
    there, back = compare(first, worse(first, 3), QUICK), compare(worse(first, 3), first, QUICK)
    assert there.hits_at_1.value == -back.hits_at_1.value
    assert (there.hits_at_1.low, there.hits_at_1.high) == pytest.approx(
        (-(back.hits_at_1.high or 0.0), -(back.hits_at_1.low or 0.0))
    )
    assert (there.p, there.only_first) == (back.p, back.only_second)


def test_other_mentions_are_refused_with_counts_and_examples(outcome: Make) -> None:
    first = [outcome(name) for name in "abcdef"]
    second = [outcome(name) for name in "fgh"]
    with pytest.raises(BadInput) as refusal:
        compare(first, second, names=("new", "old"))
    assert refusal.value.fact == (
        "cannot compare 6 mentions with 3 different ones: 'old' lacks 5 ('a', 'b', 'c', ...); 'new' lacks 2 ('g', 'h')"
    )


def test_another_gold_or_sentence_is_refused(outcome: Make) -> None:
    first = [outcome("a"), outcome("b"), outcome("c")]
    for other in (outcome("b", gold="Q2", predicted="Q2"), outcome("b", cluster="c")):
        with pytest.raises(BadInput, match=r"1 mentions have another gold or sentence in 'second' \('b'\)"):
            compare(first, [outcome("a"), other, outcome("c")])


def test_nothing_in_the_kb_is_nothing_to_compare(outcome: Make) -> None:
    nil = [outcome("a", gold=None, predicted=None)]
    with pytest.raises(BadInput, match="share no mention whose gold is in the KB"):
        compare(nil, nil)


def test_mcnemar_counted_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 1) == 1.0
    assert mcnemar(5, 0) == 2 / 32
    assert mcnemar(1, 5) == 2 * (1 + 6) / 64
    assert mcnemar(4, 4) == 1.0
    with pytest.raises(ValueError, match="counts -1 and 3"):
        mcnemar(-1, 3)


def test_mcnemar_is_the_binomial_test_of_scipy() -> None:
    pairs = [(one, other) for one in range(0, 30, 3) for other in range(0, 30, 2) if one + other]
    for one, other in [*pairs, (480, 520), (2000, 2101), (30_000, 31_000)]:
        assert mcnemar(one, other) == pytest.approx(stats.binomtest(one, one + other).pvalue, rel=1e-8)


def test_mcnemar_is_exact_for_any_number_of_mentions() -> None:
    assert mcnemar(0, 1000) == pytest.approx(2.0**-999)
    assert mcnemar(0, 5000) == 0.0  # too small for a float, and no error
    assert 0.0 < mcnemar(10_000, 10_400) < 0.01


def test_mcnemar_seldom_finds_a_difference_between_equal_systems() -> None:
    random = np.random.default_rng(0)
    n_found, simulations = 0, 2000
    for _ in range(simulations):
        first, second = random.random((2, 300)) < 0.8
        n_found += mcnemar(int((first & ~second).sum()), int((second & ~first).sum())) < 0.05
    assert 0.01 < n_found / simulations <= 0.06


def test_the_interval_of_equal_systems_holds_zero_about_95_times_in_100(outcome: Make) -> None:
    random = np.random.default_rng(1)
    held, simulations = 0, 300
    settings = EvaluationSettings(samples=200)
    for _ in range(simulations):
        ease = np.repeat(random.beta(2, 1, 100), 2)
        systems = [
            [
                outcome(f"{number}", cluster=f"{number // 2}", rank=1.0 if hit else 2.0, predicted=None)
                for number, hit in enumerate(random.random(200) < ease)
            ]
            for _ in range(2)
        ]
        found = compare(*systems, settings).hits_at_1
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    assert 0.91 <= held / simulations <= 0.98
