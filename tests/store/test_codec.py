"""Tests of JSON and dataclasses: what goes out comes back, and what does not fit is refused with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NewType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import BadInput, CorruptArtifact, UsageError
from localmel.store.codec import from_json, to_json

Name = NewType("Name", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    kind: Literal["text", "image"] = "text"
    score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    name: Name
    count: int
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = field(default_factory=dict)
    path: Path | None = None
    anything: Any = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UsageError(f"count is {self.count}; it must be 0 or more")


PARTS = st.builds(Part, kind=st.sampled_from(["text", "image"]), score=st.floats(allow_nan=False))
WHOLES = st.builds(
    Whole,
    name=st.text(),
    count=st.integers(0, 10**12),
    parts=st.lists(PARTS, max_size=3).map(tuple),
    by_name=st.dictionaries(st.text(), PARTS, max_size=2),
    path=st.none() | st.sampled_from([Path("/a/b"), Path("c")]),
    anything=st.none() | st.integers() | st.lists(st.text()),
)


@given(whole=WHOLES)
def test_what_is_written_is_read_as_the_same(whole: Whole) -> None:
    assert from_json(Whole, json.loads(json.dumps(to_json(whole))), where="here") == whole


def test_several_values_are_read_at_once() -> None:
    assert from_json(list[Part], [{}, {"score": 1}], where="here") == [Part(), Part(score=1.0)]


def test_a_field_with_a_default_may_be_missing() -> None:
    assert from_json(Whole, {"name": "n", "count": 1}, where="here") == Whole(name=Name("n"), count=1)


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    assert to_json({"a": np.float32(1.5), "b": [np.int64(2)]}) == {"a": 1.5, "b": [2]}


def test_what_json_cannot_hold_is_not_written() -> None:
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        to_json({"a": object()})


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"count": "1"}, r"Expected `int`, got `str` - at `\$\.count`"),
        ({"count": True}, r"Expected `int`, got `bool` - at `\$\.count`"),
        ({"count": -1}, "count is -1; it must be 0 or more"),
        ({"name": None}, r"Expected `str`, got `null` - at `\$\.name`"),
        ({"path": 4}, r"4 is no Path - at `\$\.path`"),
        ({"parts": [{}, {"kind": "sound"}]}, r"Invalid enum value 'sound' - at `\$\.parts\[1\]\.kind`"),
        ({"": 1}, r"unknown field `` - at `\$`"),
        ({"cuont": 1}, r"unknown field `cuont` - at `\$`"),
        ({"parts": [{}, {"scroe": 1.0}]}, r"unknown field `scroe` - at `\$\.parts\[1\]`"),
        ({"by_name": {"a": {"scroe": 1.0}}}, r"unknown field `scroe` - at `\$\.by_name\.a`"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(changed: dict[str, object], fact: str) -> None:
    with pytest.raises(CorruptArtifact, match=f"cannot read card.json: .*{fact}") as caught:
        from_json(Whole, {"name": "n", "count": 1, **changed}, where="card.json", again="do it again")
    assert caught.value.hint == "do it again"


@pytest.mark.parametrize("data", [None, [], "text", {"count": 1}])
def test_what_is_no_such_object_is_refused(data: object) -> None:
    with pytest.raises(BadInput, match=r"cannot read line 3: (Expected|Object missing)"):
        from_json(Whole, data, where="line 3", error=BadInput)


def test_more_keys_than_the_type_has_are_accepted_on_request() -> None:
    assert from_json(Part, {"score": 1.0, "seconds": 3}, where="here", more=True) == Part(score=1.0)
