"""Tests of a difference: by hand, against other implementations, and against a thousand simulated comparisons."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from numpy.typing import NDArray
from scipy.stats import binom, bootstrap

from localmel.evaluate.paired import mcnemar
from localmel.evaluate.resamples import Resamples
from localmel.evaluate.significance import (
    LEVEL,
    POWER,
    PairedTest,
    enough_resamples,
    holm,
    mcnemar_p,
    means_of,
    power_of_mcnemar,
    smallest_difference,
)

SIMULATIONS = 1000
RIGHT = 0.85


# --- by hand and against others -------------------------------------------------------------------------------------


def test_holm_counted_by_hand() -> None:
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1, never falling
    assert holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(some.integers(0, 300), some.integers(0, 300))
def test_mcnemar_is_that_of_the_evaluation(only_first: int, only_second: int) -> None:
    assert mcnemar_p(only_first, only_second) == pytest.approx(mcnemar(only_first, only_second), abs=1e-12)


def test_mcnemar_counted_by_hand() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 0) == pytest.approx(2 / 32)
    assert mcnemar_p(5, 1) == pytest.approx(2 * 7 / 64)


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
    theirs = bootstrap((values,), np.mean, n_resamples=9999, method="percentile", random_state=1)
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
    assert exact[0] == pytest.approx(mcnemar_p(int((first & ~second)[:, 0].sum()), int((second & ~first)[:, 0].sum())))
    assert np.mean((exact < LEVEL) & (resampled < LEVEL)) <= 0.06


def test_one_test_alone_would_call_them_different_too_often() -> None:
    """Why there are two: McNemar's knows no sentences, and resampling no small numbers."""
    together = sentences(200, 5)
    first, second = draw_right(together, (RIGHT, RIGHT), seed=3, together=0.6)
    assert np.mean(called_different(first, second, Resamples(together))[0] < LEVEL) > 0.06
    few = np.zeros((50, 1))
    few[:5] = 1.0
    assert means_of(few, np.arange(50), Resamples(sentences(50, 1))).p[0] < LEVEL < mcnemar_p(5, 0)


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
