"""Sentences: which system leads, which differences are significant, and what "not significant" means."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from localmel.evaluate.comparison import Compared, compare_systems
from localmel.evaluate.protocol import Outcome
from localmel.evaluate.resamples import Estimate
from localmel.report.sentences import (
    method_in_words,
    p_value,
    plus,
    signed,
    summary_of,
    verdict_of,
    warnings_of,
)

Make = Callable[..., Outcome]


@pytest.fixture
def compared(outcome: Make) -> Callable[..., Compared]:
    """`compared({"d": {"A": 40, "B": 10}})`: of 60 mentions, each system has so many right, the first ones."""

    def make(datasets: dict[str, dict[str, int]]) -> Compared:
        def outcomes(n_right: int) -> list[Outcome]:
            wrong = {"rank": 2.0, "predicted": "Q9"}
            return [outcome(f"{number:02d}", **({} if number < n_right else wrong)) for number in range(60)]

        return compare_systems(
            {name: {key: outcomes(n) for key, n in systems.items()} for name, systems in datasets.items()}, k=16
        )

    return make


def test_a_clear_lead_is_said_with_its_size(compared: Callable[..., Compared]) -> None:
    (line,) = summary_of(compared({"d": {"A": 50, "B": 10}}))
    assert line.startswith("d: A has the highest HITS@1, 0.833 [")
    assert "It is significantly better than B (by 0.667 [" in line
    assert line.endswith("]).")


def test_what_is_not_significant_is_said_so_with_the_smallest_detectable_difference(
    compared: Callable[..., Compared],
) -> None:
    found = compared({"d": {"A": 30, "B": 29}})
    (line,) = summary_of(found)
    smallest = found.datasets[0].pairs[0].smallest
    assert "It is not significantly better than B (+0.017 [0.000, " in line
    assert line.endswith(f"; {smallest:.3f} would be detectable).")
    assert verdict_of(found.datasets[0].pairs[0]) == "not significant"


def test_significant_differences_come_before_the_others(compared: Callable[..., Compared]) -> None:
    (line,) = summary_of(compared({"d": {"A": 50, "B": 10, "C": 49}}))
    assert "It is significantly better than B (by 0.667" in line
    assert "]). It is not significantly better than C (+0.017" in line


def test_several_datasets_begin_with_the_whole(compared: Callable[..., Compared]) -> None:
    first, *each = summary_of(compared({"d": {"A": 50, "B": 10}, "e": {"A": 45, "B": 5}}))
    assert first == (
        "A has the highest HITS@1 on all 2 datasets, "
        "and is significantly better than every other system on all of them."
    )
    assert [line[:2] for line in each] == ["d:", "e:"]
    first = summary_of(compared({"d": {"A": 50, "B": 10}, "e": {"A": 5, "B": 45}}))[0]
    assert first == "No system leads everywhere: A on d and B on e has the highest HITS@1."
    first = summary_of(compared({"d": {"A": 50, "B": 10}, "e": {"A": 30, "B": 29}}))[0]
    assert first.endswith("but is not significantly better than any other system on all of them.")


def test_of_many_systems_only_some_are_named(compared: Callable[..., Compared]) -> None:
    (line,) = summary_of(compared({"d": {"A": 50, **{name: 5 for name in "BCDEFG"}}}))
    assert "and 3 more" in line


def test_the_method_names_the_tests_the_number_of_pairs_and_few_sentences(compared: Callable[..., Compared]) -> None:
    words = " ".join(method_in_words(compared({"d": {"A": 50, "B": 10, "C": 9}})))
    assert "after Holm's correction for all 3 pairs" in words
    assert "McNemar's exact test" in words
    assert "does not mean that there is none" in words


def test_few_sentences_are_warned_of(outcome: Make) -> None:
    few = [outcome(name) for name in "abcd"]
    (line,) = warnings_of(compare_systems({"d": {"A": few, "B": few}}, k=16))
    assert line.startswith("d: fewer than 50 sentences.")
    enough = [outcome(f"{number}") for number in range(50)]
    assert warnings_of(compare_systems({"d": {"A": enough, "B": enough}}, k=16)) == []


def test_numbers_have_signs_and_nothing_has_none() -> None:
    assert [plus(value) for value in (0.0004, -0.0004, 0.1, -0.25)] == ["0.000", "0.000", "+0.100", "-0.250"]
    assert signed(Estimate(value=0.1, low=-0.1, high=0.3, n=5)) == "+0.100 [-0.100, +0.300]"
    assert signed(Estimate(value=0.1, low=None, high=None, n=5)) == "+0.100"
    assert [p_value(p) for p in (0.5, 0.001, 0.00099)] == ["0.500", "0.001", "< 0.001"]
