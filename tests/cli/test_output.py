"""What is printed counts in the right number, and holds nothing that a terminal would obey."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.cli.output import counted, json_text, printable

STEERING = [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u2028\u2029\u202a\u202e\u2066\u2069"]


@given(value=st.recursive(st.text() | st.integers() | st.sampled_from(STEERING), st.lists))
def test_json_says_the_same_and_steers_nothing(value: object) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert not set(STEERING) & set(text)


@given(text=st.text(), char=st.sampled_from(STEERING))
def test_a_line_for_people_steers_nothing(text: str, char: str) -> None:
    assert printable(text + char).endswith("�")
    assert not set(STEERING) & set(printable(text))
    assert printable("Ærøskøbing, 東京, “quoted”") == "Ærøskøbing, 東京, “quoted”"


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 models"), (1, "1 model"), (2, "2 models"), (1200, "1,200 models")]
)
def test_one_is_one(number: int, words: str) -> None:
    assert counted(number, "model") == words
    assert counted(1, "entity", "entities") == "1 entity"
    assert counted(3, "entity", "entities") == "3 entities"
