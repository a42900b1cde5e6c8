"""Models on two sides become cells with names of their own; what does not fit is refused before anything opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import LocalmelError, UsageError
from localmel.grid.plan import Grid, GridPlan, planned, profile_json
from localmel.settings import load_profile


def grid(*, vlms: tuple[str, ...] = ("a", "b"), llms: tuple[str, ...] = ("c",), **given: Any) -> Grid:
    return planned(GridPlan(vlms=vlms, llms=llms, data=Path("data"), kb="kb", **given))


def names(one: Grid) -> list[str]:
    return [cell.name for cell in one.cells]


def test_every_pair_is_a_cell_vlm_by_vlm() -> None:
    found = grid(llms=("c", "d"))
    assert names(found) == ["a+c", "a+d", "b+c", "b+d"]
    assert [one.name for one in found.described] == ["a", "b"]
    assert list(found.models) == ["vlm a", "vlm b", "llm c", "llm d"]
    assert [cell.profile.generate.model.weights for cell in found.cells] == ["a", "a", "b", "b"]
    assert [cell.profile.rerank.model.weights for cell in found.cells] == ["c", "d", "c", "d"]


def test_all_but_the_models_is_the_same_in_all_cells() -> None:
    found = grid(vlms=("a", "b", "none"), llms=("c", "none"))
    usual = load_profile("qwen")
    kept = [profile_json(cell.profile) for cell in found.cells]
    for one in kept:
        for stage in ("generate", "rerank"):
            assert one[stage].pop("model")["context"] in (usual.generate.model.context, 0)
            one[stage].pop("backend")
    assert all(one == kept[0] for one in kept)


def test_none_stands_for_the_embedded_stage() -> None:
    found = grid(vlms=("a", "none"), llms=("c", "none"))
    assert names(found) == ["a+c", "a+none", "none+c", "none+none"]
    backends = [(cell.profile.generate.backend, cell.profile.rerank.backend) for cell in found.cells]
    assert backends == [("vlm", "llm"), ("vlm", "evidence"), ("embedded", "llm"), ("embedded", "evidence")]
    assert list(found.models) == ["vlm a", "llm c"]


def test_triples_can_be_withheld_from_each_pair() -> None:
    found = grid(vlms=("a",), without_triples=True)
    assert names(found) == ["a+c", "a+c-without-triples"]
    assert [one.name for one in found.described] == ["a", "a-without-triples"]


def test_settings_of_a_model_stand_behind_its_name() -> None:
    found = grid(vlms=("a", "a,quantization=4bit,context=2048,at_once=4"), engine="transformers", engine_device="cpu")
    plain, small = (one.vlm for one in found.described)
    assert (plain.label, small.label) == ("a", "a-quantization-4bit-context-2048-at_once-4")
    assert small.settings is not None
    assert (small.settings.quantization, small.settings.context, small.settings.at_once) == ("4bit", 2048, 4)
    assert (small.settings.engine, small.settings.device) == ("transformers", "cpu")


def test_a_path_is_called_by_its_last_part_and_two_of_one_name_are_told_apart() -> None:
    found = grid(vlms=("./x/tiny", "./y/tiny"), llms=("./answers/first.jsonl",), engine="scripted")
    first, second = (one.name for one in found.described)
    assert first != second
    assert all(name.startswith("tiny-") and len(name) == len("tiny-") + 6 for name in (first, second))
    assert found.cells[0].llm.label == "first"
    again = grid(vlms=("./y/tiny", "./x/tiny"), llms=("./answers/first.jsonl",), engine="scripted")
    assert [one.name for one in again.described] == [second, first], "whatever the order"


@given(st.lists(st.text("ab/.+ ,é\\", min_size=1, max_size=8), min_size=2, max_size=4, unique=True))
def test_whatever_a_model_is_called_its_cell_is_a_folder_of_its_own(vlms: list[str]) -> None:
    try:
        found = grid(vlms=tuple(vlms))
    except LocalmelError:
        return
    assert len({*names(found)}) == len(found.cells)
    for cell in found.cells:
        assert Path(cell.name).name == cell.name
        assert not cell.name.startswith(".")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"vlms": ("a", "b", "a")}, "--vlm a is given twice"),
        ({"vlms": ("a", "a,device=auto")}, "--vlm a,device=auto and --vlm a are the same"),
        ({"vlms": ()}, "no --vlm is given"),
        ({"llms": ()}, "no --llm is given"),
        ({"limit": -1}, "the limit must be at least 0, not -1"),
        ({"vlms": ("a", "b,colour=red")}, "'colour=red' is not a setting of a model"),
        ({"vlms": ("a", "b,weights=c")}, "'weights=c' is not a setting of a model"),
        ({"vlms": ("a", "b,context=many")}, "context is 'many', not of type int"),
        ({"vlms": ("a", "b,quantization=3bit")}, "3bit"),
        ({"vlms": ("a", "b,at_once=0")}, "at_once"),
        ({"vlms": ("a", "none,device=cpu")}, "takes no settings"),
        ({"vlms": ("a", ",device=cpu")}, "names no model"),
        ({"engine": "typewriter"}, "typewriter"),
        ({"gold_outside": "lost"}, "golds outside the KB cannot be 'lost'"),
        ({"profile": "embedded"}, "neither the profile nor the command names one"),
        ({"profile": "nobody"}, "there is no profile 'nobody'"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        grid(**given)
    assert said in refused.value.fact
