"""What a line may carry: absent is None, and whatever is not what it should be is named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from localmel.evaluate.answer_details import AnswerDetails, Costs, costs_of, details_of
from localmel.records import Triple
from localmel.report.tables import COST_TITLES, cost_cells, size_in_words

anything = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
names = some.sampled_from([*AnswerDetails.__dataclass_fields__, "id", "gold"])


def test_a_line_of_a_run_without_a_language_model_carries_nothing() -> None:
    assert details_of({"id": "1-0", "gold": "Q1"}) == AnswerDetails()


def test_everything_is_read() -> None:
    line = {
        "seconds": 1, "prompt_tokens": 900, "image_tokens": 800, "output_tokens": 12, "first_token_seconds": 0.2,
        "attempts": 2, "unparsed": False, "offered": ["Q1", "Q2"], "triples": [["Jordan", "team", "Bulls", "image"]],
    }  # fmt: skip
    found = details_of(line)
    assert (found.seconds, found.prompt_tokens, found.attempts, found.unparsed) == (1, 900, 2, False)
    assert found.offered == ("Q1", "Q2")
    assert found.triples == (Triple(head="Jordan", relation="team", tail="Bulls", source="image"),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", -1),
        ("seconds", float("nan")),
        ("prompt_tokens", 1.5),
        ("output_tokens", True),
        ("attempts", "2"),
        ("unparsed", 0),
        ("failed_open", "yes"),
        ("offered", "Q1"),
        ("offered", ["Q1", None]),
        ("triples", [["head", "relation", "tail"]]),
        ("triples", [["head", "relation", "", "text"]]),
        ("triples", [["head", "relation", "tail", "dream"]]),
    ],
)
def test_what_is_not_what_it_should_be_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        details_of({name: value})


@settings(deadline=None)
@given(some.dictionaries(names, anything))
def test_no_line_raises_anything_else(line: dict[str, object]) -> None:
    try:
        found = details_of(line)
    except ValueError:
        return
    for name in AnswerDetails.__dataclass_fields__:
        assert (getattr(found, name) is None) == (line.get(name) is None)


# --- costs ----------------------------------------------------------------------------------------------------------


def test_costs_counted_by_hand() -> None:
    lines = [
        AnswerDetails(prompt_tokens=100, output_tokens=10, first_token_seconds=0.1, attempts=1, unparsed=False),
        AnswerDetails(
            prompt_tokens=300, output_tokens=30, first_token_seconds=0.5, attempts=3, unparsed=True, failed_open=True
        ),
        AnswerDetails(prompt_tokens=200, output_tokens=20, first_token_seconds=0.2, attempts=1, unparsed=False),
        AnswerDetails(
            prompt_tokens=200, output_tokens=20, first_token_seconds=0.2, attempts=2, unparsed=False, failed_open=False
        ),
    ]
    found = costs_of(lines, resources={"seconds": 8, "peak_memory_bytes": 3 * 2**30, "models": {"generate": "llava"}})
    assert found == Costs(
        mentions_per_second=0.5, prompt_tokens=200.0, output_tokens=20.0, first_token_seconds=0.2,
        peak_memory_bytes=3 * 2**30, unparsed=0.25, failed_open=0.5, retried=0.5,
        models={"generate": "llava"},
    )  # fmt: skip
    cells = dict(zip(COST_TITLES, cost_cells(found), strict=True))
    assert cells == {
        "mentions/s": "0.5", "prompt tokens": "200.0", "image tokens": "–", "output tokens": "20.0",
        "first token, s": "0.2", "peak memory": "3.0 GiB", "unparsed": "25.0%",
        "failed open": "50.0%", "retried": "50.0%",
    }  # fmt: skip


def test_seconds_are_those_of_the_system_then_of_its_lines_then_of_the_run() -> None:
    lines = [AnswerDetails(seconds=1.0), AnswerDetails(seconds=3.0)]
    assert costs_of(lines, resources={"seconds": 1.0}, run_seconds=10).mentions_per_second == 2.0
    assert costs_of(lines, run_seconds=10).mentions_per_second == 0.5
    found = costs_of([AnswerDetails(seconds=1.0), AnswerDetails()], run_seconds=10)
    assert (found.mentions_per_second, found.whole_run) == (0.2, True)
    assert cost_cells(found)[0] == "0.2*"
    assert costs_of(lines).whole_run is False


def test_tokens_of_the_whole_run_come_before_those_of_lines() -> None:
    """A question about several mentions has one count: no line can hold it."""
    lines = [
        AnswerDetails(prompt_tokens=5, first_token_seconds=0.5),
        AnswerDetails(prompt_tokens=7, first_token_seconds=0.7),
    ]
    told = costs_of(lines, resources={"prompt_tokens": 300, "image_tokens": 100, "first_token_seconds": 0.1})
    assert (told.prompt_tokens, told.image_tokens, told.output_tokens, told.first_token_seconds) == (150, 50, None, 0.1)
    plain = costs_of(lines)
    assert (plain.prompt_tokens, plain.image_tokens, plain.first_token_seconds) == (6, None, 0.6)
    assert costs_of([], resources={"prompt_tokens": 300}).prompt_tokens is None
    with pytest.raises(ValueError, match="prompt_tokens is '300'"):
        costs_of(lines, resources={"prompt_tokens": "300"})


def test_a_run_that_tells_nothing_costs_nothing_that_is_known() -> None:
    assert costs_of([AnswerDetails(), AnswerDetails()]) == Costs()
    assert costs_of([]) == Costs()
    assert set(cost_cells(Costs())) == {"–"}


@pytest.mark.parametrize("resources", [{"seconds": -1}, {"peak_memory_bytes": "much"}, {"models": ["llava"]}])
def test_resources_of_another_form_are_refused(resources: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(resources))):
        costs_of([AnswerDetails()], resources=resources)


def test_sizes_are_read_by_people() -> None:
    assert [size_in_words(n) for n in (2**20, 700 * 2**20, 15 * 2**30)] == ["1 MiB", "700 MiB", "15.0 GiB"]
