"""Several systems on the same mentions: the numbers of the evaluation, every pair, slices, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from localmel.errors import BadInput
from localmel.evaluate.answer_details import AnswerDetails
from localmel.evaluate.comparison import (
    Disagreement,
    SystemAnswer,
    compare_systems,
    disagreements_of,
    sample_of,
)
from localmel.evaluate.protocol import EvaluationSettings, Outcome, evaluate
from localmel.evaluate.significance import compare

Make = Callable[..., Outcome]
Draw = Callable[..., list[Outcome]]
Worse = Callable[[list[Outcome], int], list[Outcome]]


def test_every_number_is_that_of_the_evaluation(draw: Draw, worse: Worse) -> None:
    first = draw(90)
    second = worse(first, 2)
    found = compare_systems({"d": {"A": first, "B": second}}, k=16, calibrated=["A", "B"]).datasets[0]
    settings = EvaluationSettings(k=16)
    for name, outcomes in (("A", first), ("B", second)):
        assert dict(found.metrics[name]) == dict(evaluate(outcomes, settings).overall.metrics)
    pair, paired = found.pairs[0], compare(first, second, settings)
    assert pair.hits_at_1.value == pytest.approx(paired.hits_at_1.value)
    assert pair.mrr.value == pytest.approx(paired.mrr.value)
    assert (pair.only_first, pair.only_second) == (paired.only_first, paired.only_second)
    assert pair.mcnemar == pytest.approx(paired.p)
    accuracy = [evaluate(outcomes, settings).overall.metrics["accuracy"].value for outcomes in (first, second)]
    assert pair.accuracy.value == pytest.approx(accuracy[0] - accuracy[1])
    assert (found.n, found.n_nil, found.n_sentences) == (90, sum(one.gold is None for one in first), 30)


def test_a_case_counted_by_hand(outcome: Make) -> None:
    first = [outcome(name) for name in "abcdefgh"]
    second = [outcome(name, rank=2.0, predicted="Q9") for name in "abcdefg"] + [outcome("h")]
    found = compare_systems({"d": {"A": first, "B": second}}, k=16).datasets[0]
    (pair,) = found.pairs
    assert pair.hits_at_1.value == pytest.approx(7 / 8)
    assert pair.mrr.value == pytest.approx(7 / 16)
    assert (pair.only_first, pair.only_second) == (7, 0)
    assert pair.mcnemar == pair.mcnemar_corrected == pytest.approx(2 / 2**7)
    assert pair.better == found.leader == "A"


def test_systems_that_answer_alike_are_not_distinguishable(draw: Draw) -> None:
    outcomes = draw(60)
    (pair,) = compare_systems({"d": {"A": outcomes, "B": outcomes[::-1]}}, k=16).datasets[0].pairs
    assert (pair.better, pair.mcnemar, pair.bootstrap) == (None, 1.0, 1.0)
    assert (pair.hits_at_1.value, pair.hits_at_1.low, pair.hits_at_1.high) == (0.0, 0.0, 0.0)


def test_holm_counts_the_pairs_of_all_datasets(draw: Draw, worse: Worse) -> None:
    first = draw(90)
    systems = {"A": first, "B": worse(first, 9), "C": worse(first, 2)}
    alone = compare_systems({"d": systems}, k=16)
    both = compare_systems({"d": systems, "e": systems}, k=16)
    assert (alone.tests, both.tests) == (3, 6)
    for one, other in zip(alone.datasets[0].pairs, both.datasets[0].pairs, strict=True):
        assert one.mcnemar == other.mcnemar
        assert one.mcnemar <= one.mcnemar_corrected <= other.mcnemar_corrected
    least = min(both.datasets[0].pairs, key=lambda pair: pair.mcnemar)
    assert least.mcnemar_corrected == pytest.approx(min(1.0, 6 * least.mcnemar))


def test_the_order_of_mentions_does_not_matter_and_that_of_systems_only_the_sign(draw: Draw, worse: Worse) -> None:
    first = draw(60)
    second = worse(first, 3)
    there = compare_systems({"d": {"A": first, "B": second}}, k=16).datasets[0]
    back = compare_systems({"d": {"B": second[::-1], "A": first[::-1]}}, k=16).datasets[0]
    assert there.metrics["A"] == back.metrics["A"]
    assert there.pairs[0].hits_at_1.negated().value == back.pairs[0].hits_at_1.value
    assert there.leader == back.leader == "A"
    assert there.pair("B", "A") is there.pairs[0]


def test_only_probabilities_are_looked_at_for_calibration(draw: Draw, worse: Worse) -> None:
    outcomes = draw(40)
    found = compare_systems({"d": {"linker": outcomes, "cosine": worse(outcomes, 2)}}, k=16, calibrated=["linker"])
    assert list(found.datasets[0].reliability) == ["linker"]
    assert "ece" in found.datasets[0].metrics["linker"]
    assert "ece" not in found.datasets[0].metrics["cosine"]


def test_a_slice_is_its_mentions_and_nothing_else(draw: Draw, worse: Worse) -> None:
    first = draw(90)
    second = worse(first, 2)
    ids = {one.mention_id for one in first[:40]}
    found = compare_systems({"d": {"A": first, "B": second}}, k=16, slices={"d": {"some": ids}}).datasets[0].slices[0]
    part = [one for one in first if one.mention_id in ids]
    expected = evaluate(part, EvaluationSettings()).overall
    assert (found.n, found.n_in_kb, found.metric) == (40, expected.n_in_kb, "hits@1")
    assert found.values["A"].value == pytest.approx(expected.metrics["hits@1"].value)
    assert found.differences["B"].value == pytest.approx(found.values["B"].value - found.values["A"].value)
    assert list(found.differences) == ["B"]


def test_a_slice_without_mentions_has_no_numbers(draw: Draw) -> None:
    outcomes = draw(30)
    slices = {"d": {"empty": frozenset[str](), "unknown": frozenset({"no such id"})}}
    for found in compare_systems({"d": {"A": outcomes, "B": outcomes}}, k=16, slices=slices).datasets[0].slices:
        assert (found.n, found.n_sentences, dict(found.values), dict(found.differences)) == (0, 0, {}, {})


def test_a_slice_of_nil_is_counted_by_accuracy(outcome: Make) -> None:
    first = [outcome("a"), outcome("b", gold=None, predicted=None), outcome("c", gold=None, predicted=None)]
    second = [first[0], outcome("b", gold=None, predicted="Q9"), first[2]]
    slices = {"d": {"NIL": {"b", "c"}}}
    (found,) = compare_systems({"d": {"A": first, "B": second}}, k=16, slices=slices).datasets[0].slices
    assert (found.metric, found.n_in_kb, found.values["A"].value, found.values["B"].value) == ("accuracy", 0, 1.0, 0.5)


def test_other_mentions_golds_or_sentences_are_refused(outcome: Make) -> None:
    first = [outcome(name) for name in "abc"]
    for other in (
        first[:2],
        [*first[:2], outcome("c", gold="Q2", predicted="Q2")],
        [*first[:2], outcome("c", cluster="a")],
    ):
        with pytest.raises(BadInput, match=r"different ones|have another gold or sentence in 'B'"):
            compare_systems({"d": {"A": first, "B": other}}, k=16)


def test_one_system_and_nothing_but_nil_are_refused(outcome: Make) -> None:
    with pytest.raises(BadInput, match="d: 1 system; a comparison needs two"):
        compare_systems({"d": {"A": [outcome("a")]}}, k=16)
    nil = [outcome("a", gold=None, predicted=None)]
    with pytest.raises(BadInput, match="none of 1 mentions has its gold in the KB"):
        compare_systems({"d": {"A": nil, "B": nil}}, k=16)


def test_a_single_sentence_gives_numbers_without_intervals(outcome: Make) -> None:
    first = [outcome("a", cluster="one"), outcome("b", cluster="one")]
    second = [first[0], outcome("b", cluster="one", rank=3.0, predicted="Q9")]
    (pair,) = compare_systems({"d": {"A": first, "B": second}}, k=16).datasets[0].pairs
    assert (pair.hits_at_1.value, pair.hits_at_1.low, pair.smallest, pair.better) == (0.5, None, None, None)


# --- disagreements --------------------------------------------------------------------------------------------------


def given(outcome: Outcome) -> SystemAnswer:
    return SystemAnswer(outcome=outcome, candidates=(), details=AnswerDetails())


def test_only_differing_answers_disagree(outcome: Make) -> None:
    wrong = {"rank": 2.0, "predicted": "Q9"}
    first = [outcome("a"), outcome("b"), outcome("c", **wrong), outcome("d", gold=None, predicted=None)]
    second = [outcome("d", gold=None, predicted="Q9"), outcome("c", **wrong), outcome("b", **wrong), outcome("a")]
    found = disagreements_of("x", {"A": list(map(given, first)), "B": list(map(given, second))})
    assert [(one.mention_id, one.gold, one.pattern) for one in found] == [
        ("b", "Q1", (True, False)),
        ("d", None, (True, False)),
    ]


def many(outcome: Make) -> list[Disagreement]:
    """90 mentions that only A has right, 5 only B, 5 neither."""
    found = []
    for number in range(100):
        first = outcome(f"{number:03d}", predicted="Q1" if number < 90 else "Q9")
        second = outcome(f"{number:03d}", predicted="Q1" if 90 <= number < 95 else "Q8")
        given_by = {"A": given(first), "B": given(second)}
        found.append(Disagreement(dataset="x", mention_id=f"{number:03d}", gold="Q1", answers=given_by))
    return found


def test_a_rare_pattern_is_not_lost_in_the_sample(outcome: Make) -> None:
    sample = sample_of(many(outcome), 12)
    assert Counter(one.pattern for one in sample) == {(True, False): 4, (False, True): 4, (False, False): 4}
    assert [one.mention_id for one in sample] == sorted(one.mention_id for one in sample)
    assert Counter(one.pattern for one in sample_of(many(outcome), 40))[(True, False)] == 30


def test_a_sample_is_the_same_every_time_and_never_larger(outcome: Make) -> None:
    every = many(outcome)
    assert sample_of(every, 12) == sample_of(every, 12)
    assert sample_of(every, 12, seed=1) != sample_of(every, 12)
    assert sample_of(every, 100) == every
    assert sample_of(every, 0) == []
    assert sample_of([], 5) == []
