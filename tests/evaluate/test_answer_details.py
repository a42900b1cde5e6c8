"""What a line may carry: absent is None, and whatever is not what it should be is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from localmel.evaluate.answer_details import Carried, carried_of
from localmel.records import Triple

anything = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
names = some.sampled_from([*Carried.__dataclass_fields__, "id", "gold"])


def test_a_line_of_a_run_without_a_language_model_carries_nothing() -> None:
    assert carried_of({"id": "1-0", "gold": "Q1"}) == Carried()


def test_everything_is_read() -> None:
    line = {
        "seconds": 1, "prompt_tokens": 900, "image_tokens": 800, "output_tokens": 12, "first_token_seconds": 0.2,
        "attempts": 2, "unparsed": False, "offered": ["Q1", "Q2"], "triples": [["Jordan", "team", "Bulls", "image"]],
    }  # fmt: skip
    found = carried_of(line)
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
        carried_of({name: value})


@given(some.dictionaries(names, anything))
def test_no_line_raises_anything_else(line: dict[str, object]) -> None:
    try:
        found = carried_of(line)
    except ValueError:
        return
    for name in Carried.__dataclass_fields__:
        assert (getattr(found, name) is None) == (line.get(name) is None)
