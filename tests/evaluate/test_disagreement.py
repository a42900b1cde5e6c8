"""Mentions about which systems disagree, and the sample of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from localmel.evaluate.answer_details import Carried
from localmel.evaluate.disagreement import Disagreement, Given, disagreements_of, sample_of
from localmel.evaluate.protocol import Outcome

Make = Callable[..., Outcome]


def given(outcome: Outcome) -> Given:
    return Given(outcome=outcome, candidates=(), carried=Carried())


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
        found.append(Disagreement(dataset="x", mention_id=f"{number:03d}", gold="Q1", given=given_by))
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
