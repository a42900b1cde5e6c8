"""What a grid tells of models that never answered, are made up, are not here, or are named by mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import BadInput, MissingWeights, UsageError
from localmel.grid.cells import refuse_grids
from localmel.grid.estimate import estimate_of
from tests.grid.grid_world import World
from tests.runs.reranked_world import lines_of

N = 4


@pytest.fixture(scope="module")
def llms(world: World) -> tuple[str, ...]:
    """One that answers, one that fails each time, one that says nothing that can be read."""
    works = world.script("works", {"answer": "A"})
    return "none", works, world.script("prob", {"problem": "gave up"}), world.script("silent", {"answer": "I cannot."})


@pytest.fixture(scope="module")
def run(world: World, llms: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished grid in which a VLM is a name without a script."""
    out = tmp_path_factory.mktemp("finished") / "grid"
    notes: list[str] = []
    assert not world.run(world.grid(("lava",), llms, limit=N), out, notes=notes).failed
    assert "lava answers are made up: no such script" in notes
    return out


# --- models that gave no answer, or are none ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lava+prob", "lava+silent"])
def test_a_model_that_never_answered_is_told_wherever_its_numbers_stand(run: Path, name: str) -> None:
    said = f"{name}: the model gave no usable answer for {N} of {N} mentions; their retrieval order is counted instead."
    found = json.loads((run / "report" / "comparison.json").read_text())
    assert said in found["notes"]
    assert found["systems"][name]["costs"]["failed_open"] == 1.0
    assert said in (run / "report" / "comparison.md").read_text()
    assert "| failed open |" in (run / "report" / "comparison.md").read_text()
    assert f"{name}: the model gave no usable answer" in (run / "report" / "comparison.html").read_text()
    assert "failed open" in (run / "report" / "comparison.html").read_text()
    lines = lines_of(run / "cells" / name / "evaluate" / "rankings.jsonl")
    assert [line["failed_open"] for line in lines] == [True] * N


def test_of_a_model_that_answers_and_of_none_nothing_is_said(run: Path) -> None:
    found = json.loads((run / "report" / "comparison.json").read_text())
    costs = {name: system["costs"]["failed_open"] for name, system in found["systems"].items()}
    assert (costs["lava+works"], costs["lava+none"]) == (0.0, None)
    assert not [note for note in found["notes"] if note.startswith(("lava+works", "lava+none"))]
    assert "failed_open" not in lines_of(run / "cells" / "lava+none" / "evaluate" / "rankings.jsonl")[0]


def test_answers_that_are_made_up_are_noted_and_those_of_a_script_are_not(run: Path) -> None:
    notes = json.loads((run / "report" / "comparison.json").read_text())["notes"]
    assert [note for note in notes if "made up" in note] == ["lava answers are made up: no such script."]


# --- a folder of a grid, and steps that were removed --------------------------------------------------------------


def test_the_folder_of_a_grid_is_no_run_and_its_runs_are_named(run: Path) -> None:
    with pytest.raises(BadInput, match=r"is a grid, not a run; its runs are in .*/cells/") as refused:
        refuse_grids([run])
    names = ("lava+none", "lava+prob", "lava+silent", "lava+works")
    assert refused.value.hint == " ".join(["localmel compare", *(f"{run}/cells/{name}" for name in names)])


@pytest.mark.parametrize("removed", ["cells/lava+works/rerank", "cells/lava+works/evaluate"])
def test_a_cell_whose_step_was_removed_counts_as_made(
    world: World, llms: tuple[str, ...], run: Path, tmp_path: Path, removed: str
) -> None:
    out = shutil.copytree(run, tmp_path / "grid", symlinks=True)
    grid = world.grid(("lava",), llms, limit=N)
    assert world.run(grid, out).made == ()
    shutil.rmtree(out / removed)
    assert world.run(grid, out).made == ("lava+works",)
    assert (out / removed / "manifest.json").is_file()


# --- what is refused, and what is said instead --------------------------------------------------------------------


def test_a_single_cell_is_refused_after_its_models(world: World, llms: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be compared with anything"):
        world.run(world.grid(("none",), llms[1:2]), tmp_path / "grid")
    with pytest.raises(BadInput, match=r"llm nobody: cannot read the script .*nobody\.jsonl"):
        world.run(world.grid(("none",), (str(tmp_path / "nobody.jsonl"),)), tmp_path / "grid")
    with pytest.raises(MissingWeights, match="'nobody' is neither installed nor in the catalog"):
        world.run(world.grid(("none",), ("nobody",), engine="transformers"), tmp_path / "grid")
    with pytest.raises(UsageError, match="'colour=red' is not a setting of a model"):
        world.grid(("none",), ("nobody,colour=red",))
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("qwen2.5-7b-instrct", "--llm qwen2.5-7b-instruct, or localmel weights list, or localmel weights install"),
        ("xyzzy", "localmel weights list, or localmel weights install"),
        ("qwen2.5-7b-instruct", "localmel weights install"),
    ],
)
def test_a_name_that_nothing_has_is_told_with_one_that_is_near(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    with pytest.raises(MissingWeights) as refused:
        world.run(world.grid(("none",), ("none", name), engine="transformers"), tmp_path / "grid")
    assert refused.value.hint.startswith(hint)


def test_a_script_without_its_engine_is_told_the_engine(world: World, llms: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(MissingWeights) as refused:
        world.run(world.grid(("none",), llms[:2], engine="transformers"), tmp_path / "grid")
    assert refused.value.hint.startswith("--engine scripted")


def test_an_estimate_tells_the_exit_code_of_a_run_that_would_be_refused(
    world: World, llms: tuple[str, ...], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localmel.grid.estimate.open_models", lambda _: world.models)
    gone = world.script("gone", {"answer": "A"})

    def told(llms: tuple[str, ...], out: Path, **given: Any) -> dict[str, Any]:
        found = estimate_of(world.grid(("lava",), llms, limit=N, **given), world.kb, out)
        assert len(found["table"]) == 1 + len(llms)
        return found

    assert told(llms, tmp_path / "new")["exit_code"] == 0
    assert "lava answers are made up: no such script" in told(llms, tmp_path / "new")["notes"]
    out = shutil.copytree(run, tmp_path / "grid", symlinks=True)
    assert world.run(world.grid(("lava",), (*llms, gone), limit=N), out).made == ("lava+gone",)
    Path(gone).unlink()
    assert told((*llms, gone), tmp_path / "new")["exit_code"] == 3
    assert told((*llms, gone), out)["exit_code"] == 0, "its cell is finished: nothing is asked"
    shutil.rmtree(out / "cells" / "lava+gone" / "rerank")
    assert told((*llms, gone), out)["exit_code"] == 3
    assert told(("none", "nobody"), tmp_path / "new", engine="transformers")["exit_code"] == 4
    assert not (tmp_path / "new").exists()
