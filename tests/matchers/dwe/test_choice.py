"""What DWE+ is to see: checked when it is chosen, the same again from a card, and just the parts that are used."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import UsageError
from localmel.matchers.dwe.choice import DweChoice, choice_from
from localmel.matchers.dwe.network import SWITCHES
from localmel.see.attributes import attributes
from localmel.settings import EngineSettings

MODEL = EngineSettings(engine="scripted", weights="./script.jsonl")
spoken = [name for name, one in attributes().items() if one.choices]


@st.composite
def choices(draw: st.DrawFn) -> DweChoice:
    by = draw(st.sampled_from(["", "clip", "vlm"]))
    written = draw(st.lists(st.sampled_from(["abstract", "written"]), unique=True))
    return DweChoice(
        detector=draw(st.sampled_from(["", "none", "tiles", "faces+./there"])),
        faces=draw(st.sampled_from(["", "faces", "./there"])),
        attributes=by,
        asked=tuple(draw(st.lists(st.sampled_from(spoken), unique=True))) if by else (),
        model=MODEL if by == "vlm" else None,
        identity=draw(st.booleans()),
        threshold=draw(st.floats(-1, 1)),
        written=tuple(written),  # type: ignore[arg-type]
        written_by=draw(st.sampled_from(["", "m"])) if "written" in written else "",
    )


@given(choices(), st.booleans())
def test_a_card_gives_the_choice_back_and_what_is_off_is_not_chosen(choice: DweChoice, pictures: bool) -> None:
    assert choice_from(json.loads(json.dumps(choice.as_json()))) == choice
    off = set(choice.without(pictures=pictures))
    assert off <= set(SWITCHES)
    assert ("written" in off) == (not choice.written)
    assert ("identity" in off) == (not (pictures and choice.identity))
    assert ("faces" in off) == (not (pictures and choice.faces))
    assert ("attributes" in off) == (not (pictures and choice.attributes))
    assert ("objects" in off) == (choice.detector == "none")


def test_nothing_that_may_harm_is_on_unless_it_is_chosen() -> None:
    choice = DweChoice()
    assert choice.without(pictures=True) == ("faces", "identity", "written", "attributes")
    assert choice.objects == "tiles"
    assert not choice.identity_settings.on
    asked = DweChoice(attributes="clip").attribute_settings
    assert asked is not None
    assert not {"skin colour", "ethnicity"} & {one.name for one in asked.attributes}
    named = DweChoice(attributes="clip", asked=("skin colour",)).attribute_settings
    assert named is not None
    assert [one.name for one in named.attributes] == ["subject", "skin colour"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"faces": "none"}, "finds nothing"),
        ({"detector": "tiles+none"}, "finds nothing"),
        ({"attributes": "gpt"}, "clip and vlm"),
        ({"asked": ("setting",)}, "nobody is asked for setting"),
        ({"attributes": "clip", "asked": ("shoe size",)}, "no attribute shoe size"),
        ({"attributes": "clip", "asked": ("number",)}, "CLIP cannot say number"),
        ({"attributes": "clip", "asked": ("ethnicity",)}, "CLIP cannot say ethnicity"),
        ({"attributes": "vlm"}, "a model is named where vlm is asked"),
        ({"model": MODEL}, "a model is named where nobody is asked"),
        ({"attributes": "vlm", "model": replace(MODEL, allow_remote=True)}, "runs on this machine"),
        ({"identity": True, "threshold": 1.5}, "cosines lie between"),
        ({"identity": True, "threshold": float("nan")}, "cosines lie between"),
        ({"written": ("novel",)}, "no texts novel; there are abstract and written"),
        ({"written": ("written", "written")}, "each once"),
        ({"written_by": "m"}, "texts of 'm' are not looked at"),
    ],
)
def test_what_does_not_fit_together_is_said_with_an_option(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        DweChoice(**given)
    assert caught.value.hint


def test_what_wants_pictures_is_refused_where_none_are_seen() -> None:
    DweChoice(written=("abstract",)).check_pictures(seen=False, encoder="all-MiniLM-L6-v2")
    chosen = DweChoice(detector="tiles", faces="faces", attributes="clip", identity=True)
    chosen.check_pictures(seen=True, encoder="clip")
    with pytest.raises(UsageError, match="--detector, --faces, --attributes, --identity: no pictures") as caught:
        chosen.check_pictures(seen=False, encoder="all-MiniLM-L6-v2")
    assert "CLIP" in caught.value.hint


@pytest.mark.parametrize("wrong", [{"looks": 1}, {"detector": 3}, {"model": {"engine": "x", "speed": 2}}, {"asked": 4}])
def test_a_card_that_says_something_else_is_no_choice(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError, UsageError)):
        choice_from({**DweChoice().as_json(), **wrong})
