"""The one policy for lines that cannot be used."""

from __future__ import annotations

import pytest

from localmel.errors import BadInput, ImportProblem
from localmel.kb.importers.reading import Problems, excerpt


def test_problems_are_collected_and_raised_together_at_the_end() -> None:
    problems = Problems()
    for line in (3, 7):
        problems.report("it is blue", "a.tsv", line)
    with pytest.raises(BadInput) as caught:
        problems.finish()
    assert caught.value.fact == "2 lines cannot be used:\n  a.tsv:3: it is blue\n  a.tsv:7: it is blue"
    assert "--skip-bad" in caught.value.hint


def test_the_twentieth_problem_ends_the_reading() -> None:
    problems = Problems()
    for line in range(1, 20):
        problems.report("it is blue", "a.tsv", line)
    with pytest.raises(BadInput, match="20 lines cannot be used, and reading stopped there") as caught:
        problems.report("it is blue", "a.tsv", 20)
    assert caught.value.fact.count("it is blue") == 20


def test_no_problem_is_no_error() -> None:
    problems = Problems()
    problems.finish()
    assert problems.count == 0


def test_a_collector_gets_every_problem_and_nothing_is_raised() -> None:
    seen: list[ImportProblem] = []
    problems = Problems(on_problem=seen.append)
    for line in range(1, 101):
        problems.report("it is blue", "a.tsv", line)
    problems.finish()
    assert [each.line for each in seen] == list(range(1, 101))
    assert problems.count == 100


def test_the_hint_of_a_problem_is_listed_with_it() -> None:
    problems = Problems()
    problems.report("it is blue", "a", 1, hint="paint it")
    with pytest.raises(BadInput, match=r"a:1: it is blue \(paint it\)"):
        problems.finish()


@pytest.mark.parametrize("value", ["x" * 1000, ["y"] * 1000, {"k": "z" * 1000}, b"\xff" * 1000, 10**50])
def test_an_excerpt_is_short(value: object) -> None:
    assert len(excerpt(value)) <= 60


def test_an_excerpt_of_a_value_nested_without_end_is_possible() -> None:
    nested: object = []
    for _ in range(100_000):
        nested = {"a": nested}
    assert excerpt(nested) == "a deeply nested dict"
    while isinstance(nested, dict):  # let go of it level by level
        nested = nested["a"]
