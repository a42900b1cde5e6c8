"""Two systems: the difference and its interval by hand, McNemar against SciPy and against equal systems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from localmel.errors import BadInput
from localmel.evaluate.metrics import share_of
from localmel.evaluate.paired import compare, mcnemar
from localmel.evaluate.protocol import EvaluationSettings, Outcome, evaluate

Make = Callable[..., Outcome]
Draw = Callable[..., list[Outcome]]
QUICK = EvaluationSettings(samples=200)


def worse(outcomes: list[Outcome], every: int) -> list[Outcome]:
    """The same mentions; every so many of those at rank 1 fall to rank 2."""
    return [
        replace(one, rank=2.0, predicted="Q9") if one.rank == 1.0 and number % every == 0 else one
        for number, one in enumerate(outcomes)
    ]


def test_a_case_counted_by_hand(outcome: Make) -> None:
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


def test_the_difference_is_that_of_the_two_evaluations(draw: Draw) -> None:
    first = draw(120)
    second = worse(first, every=2)
    one, other = evaluate(first, QUICK).overall.metrics, evaluate(second, QUICK).overall.metrics
    found = compare(first, second, QUICK)
    assert found.hits_at_1.value == pytest.approx(one["hits@1"].value - other["hits@1"].value)
    assert found.mrr.value == pytest.approx(one["mrr"].value - other["mrr"].value)
    assert found.only_first > 5
    assert found.only_second == 0
    assert found.hits_at_1.low is not None
    assert found.hits_at_1.low > 0
    assert found.p < 0.05


def test_the_interval_is_that_of_a_bootstrap_over_the_differences(draw: Draw) -> None:
    first = draw(90, share_nil=0.0)
    second = worse(first, every=3)
    hits = [float(a.rank == 1.0) - float(b.rank == 1.0) for a, b in zip(first, second, strict=True)]
    share = share_of(hits, [one.cluster for one in first], samples=200, seed=0)
    found = compare(first, second, QUICK).hits_at_1
    assert (found.value, found.low, found.high) == pytest.approx((share.value, share.low, share.high))


def test_changing_sides_changes_the_sign(draw: Draw) -> None:
    first = draw(90)
    there, back = compare(first, worse(first, every=3), QUICK), compare(worse(first, every=3), first, QUICK)
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
        "not the same mentions, 6 and 3: 'old' lacks 5 ('a', 'b', 'c', ...); 'new' lacks 2 ('g', 'h')"
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
    stats = pytest.importorskip("scipy.stats", reason="SciPy, the independent judge here, is not installed")
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
