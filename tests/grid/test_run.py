"""A grid of models: each asked once, every pair a run, whatever fails or is interrupted in between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingWeights
from localmel.grid import cells as grid_cells
from localmel.grid.run import CellsFailed
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import add_to_kb
from localmel.runs.finished_runs import answers_of_run, find_runs, read_run
from localmel.runs.leaderboard import leaderboard_of
from localmel.runs.rerank_report import gold_of, outcomes_of, read_reranked, summary_of
from tests.grid.grid_world import CLOSED, N, World
from tests.runs.reranked_world import lines_of

CELLS = ["first+left", "first+right", "second+left", "second+right"]


@pytest.fixture(scope="module")
def sides(world: World) -> tuple[tuple[str, str], tuple[str, str]]:
    """Two VLMs, of which the second says nothing that can be read of one sentence; two LLMs that like a letter."""
    unread = {"contains": "picture 2.", "answer": "I cannot say."}
    first = world.script("first", {"contains": "nobody", "answer": "A"})
    second = world.script("second", unread)
    left = world.script("left", {"answer": "A", "probability": 0.6})
    right = world.script("right", {"contains": "picture 4.", "problem": "it gave up"}, {"answer": "B"})
    return (first, second), (left, right)


@pytest.fixture(scope="module")
def run(world: World, sides: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished grid of four cells."""
    out = tmp_path_factory.mktemp("finished") / "grid"
    found = world.run(world.grid(*sides), out)
    assert (list(found.finished), found.failed) == (CELLS, {})
    assert found.comparison is not None
    assert found.made == tuple(CELLS)
    return out


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


# --- what is made -------------------------------------------------------------------------------------------------


def test_each_vlm_is_asked_once_and_its_cells_share_what_it_said(run: Path) -> None:
    assert sorted(one.name for one in (run / "vlms").iterdir()) == ["first", "second"]
    assert sorted(one.name for one in (run / "cells").iterdir()) == CELLS
    for name in CELLS:
        for stage in ("generate", "retrieve"):
            shared = (run / "vlms" / name.partition("+")[0] / stage).resolve()
            assert (run / "cells" / name / stage).resolve() == shared
            assert not (run / "cells" / name / stage).readlink().is_absolute()


def test_every_cell_is_a_run_that_comparisons_and_the_list_of_runs_read(run: Path) -> None:
    found, damaged = find_runs(run)
    assert (sorted(one.name for one in found), damaged) == (CELLS, [])
    board = leaderboard_of(run)
    assert sorted(row.run for row in board.rows) == [f"cells/{name}" for name in CELLS]
    assert {row.command for row in board.rows} == {"localmel compare"}
    assert all(row.mentions_per_second for row in board.rows)


def test_the_comparison_has_every_pair_and_tells_models_apart(run: Path) -> None:
    found = json.loads((run / "report" / "comparison.json").read_text())
    assert (run / "report" / "comparison.html").is_file()
    compared = found["datasets"]["orlo"]
    assert compared["n"] == N
    assert list(compared["systems"]) == CELLS
    assert len(compared["pairs"]) == 6
    text = json.dumps(found)
    assert "model of rerank" in text
    assert "not made alike" not in text
    costs = found["systems"]["second+left"]["costs"]
    assert costs["unparsed"] == pytest.approx(2 / N, abs=1e-6)
    assert costs["prompt_tokens"] > 0
    assert [Path(costs["models"][stage]).stem for stage in ("generate", "rerank")] == ["second", "left"]


def test_a_cell_counts_as_the_rerank_report_counts(world: World, run: Path) -> None:
    for name in CELLS:
        folder = run / "cells" / name
        reranked = read_reranked(folder)
        gold = gold_of(world.data, reranked)
        expected = {one.mention_id: one for one in outcomes_of(reranked, gold, model=True)}
        answers = answers_of_run(read_run(folder))["orlo"]["models"]
        assert [one.outcome.mention_id for one in answers] == [one.retrieved.mention.id for one in reranked.reranked]
        for one in answers:
            same = expected[one.outcome.mention_id]
            for field in ("gold", "rank", "among_candidates", "predicted"):
                assert getattr(one.outcome, field) == getattr(same, field)
            assert one.outcome.probability == pytest.approx(same.probability, abs=1e-6)
            assert one.outcome.nil_probability == pytest.approx(same.nil_probability, abs=1e-6)
        report = json.loads((folder / "evaluate" / "report.json").read_text())["datasets"]["orlo"]["systems"]["models"]
        metrics = report["slices"]["all"]["metrics"]
        after = summary_of(reranked, gold)["after"]
        assert {key: metrics[key]["value"] for key in ("hits@1", "mrr", "accuracy", "ece")} == pytest.approx(
            {key: after[key]["value"] for key in ("hits@1", "mrr", "accuracy", "ece")}, abs=1e-6
        )


def test_a_line_tells_what_was_said_offered_and_tried(run: Path) -> None:
    folder = run / "cells" / "second+right"
    said = {row["mention_id"]: row for row in lines_of(run / "vlms" / "second" / "generate" / "descriptions.jsonl")}
    choices = {row["mention_id"]: row for row in lines_of(folder / "rerank" / "choices.jsonl")}
    lines = lines_of(folder / "evaluate" / "rankings.jsonl")
    assert len(lines) == N
    assert sum(line["unparsed"] for line in lines) == 2
    for line in lines:
        own = said.get(line["id"])
        assert line["unparsed"] == (own is None)
        assert line["attempts"] == (own["attempts"] if own else 3)
        assert [triple[1:] for triple in line["triples"]] == (own["triples"] if own else [])
        assert line.get("offered", []) == (choices[line["id"]]["offered"])
        assert ("offered" in line) == bool(choices[line["id"]]["votes"])
        assert len(line["candidates"]) <= 6
        if line["predicted"] is not None:
            assert line["candidates"][0][0] == line["predicted"]
    assert any("offered" not in line for line in lines), "the model gave up on one sentence"


def test_resources_are_those_of_all_stages(run: Path) -> None:
    folder = run / "cells" / "first+left"
    resources = manifest(folder / "evaluate")["resources"]["models"]
    figures = [manifest(folder / stage)["figures"] for stage in ("generate", "rerank")]
    for name in ("prompt_tokens", "output_tokens"):
        assert resources[name] == sum(one[name] for one in figures)
    seconds = [manifest(folder / stage)["seconds"] for stage in ("generate", "retrieve", "rerank")]
    assert resources["seconds"] == pytest.approx(sum(seconds), abs=0.02)
    assert set(resources["models"]) == {"generate", "rerank"}
    assert "peak_memory_bytes" not in resources
    assert manifest(folder / "evaluate")["places"]["kb"]


# --- gone on with -------------------------------------------------------------------------------------------------


def states(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.is_file() and path.name != ".lock"}


def test_what_is_finished_is_not_run_again(world: World, sides: Any, run: Path) -> None:
    before, notes = states(run), list[str]()
    found = world.run(world.grid(*sides), run, notes=notes)
    assert (found.made, found.failed, notes) == ((), {}, [])
    assert found.comparison is not None
    assert not found.comparison.made
    assert states(run) == before


def test_models_can_be_added_later_and_the_report_follows(world: World, sides: Any, run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(run, tmp_path / "grid", symlinks=True)
    vlms, llms = sides
    found = world.run(world.grid((*vlms, "none"), (llms[0], "none")), out)
    assert found.finished == ("first+left", "first+none", "second+left", "second+none", "none+left", "none+none")
    assert found.made == ("first+none", "second+none", "none+left", "none+none")
    assert found.comparison is not None
    assert list(found.comparison.json["datasets"]["orlo"]["systems"]) == list(found.finished)
    alone = read_run(out / "cells" / "none+none")
    assert alone.inputs["models"] == {"generate": None, "rerank": None}
    line = lines_of(alone.stage / "rankings.jsonl")[0]
    assert {"offered", "triples", "attempts", "unparsed"}.isdisjoint(line)
    assert (out / "cells" / "second+right").is_dir(), "what is not asked for now stays"


def test_an_interrupted_grid_goes_on_and_ends_as_if_nothing_had_happened(
    world: World, sides: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, n_calls = tmp_path / "grid", grid_cells.rerank_stage, 0

    def stop_at_the_third(*given: Any, **more: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            raise KeyboardInterrupt
        return real(*given, **more)

    monkeypatch.setattr(grid_cells, "rerank_stage", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        world.run(world.grid(*sides), out)
    assert sorted(path.parent.parent.name for path in out.glob("cells/*/evaluate/manifest.json")) == CELLS[:2]
    assert not (out / "report").exists()
    found = world.run(world.grid(*sides), out)
    assert (found.made, n_calls) == (tuple(CELLS[2:]), 5)
    for name in CELLS:
        for file in ("rankings.jsonl", "report.json"):
            one, other = (folder / "cells" / name / "evaluate" / file for folder in (out, run))
            assert one.read_bytes() == other.read_bytes()


def test_two_processes_do_not_work_on_one_grid(world: World, sides: Any, run: Path) -> None:
    from filelock import FileLock

    with FileLock(run / ".lock"), pytest.raises(BadInput, match="another process is working on"):
        world.run(world.grid(*sides), run)


# --- what fails ---------------------------------------------------------------------------------------------------


def test_a_cell_that_fails_is_noted_and_the_others_go_on(world: World, sides: Any, tmp_path: Path) -> None:
    vlms, llms = sides
    away = f"gone,engine={CLOSED}"
    grid, out = world.grid(vlms[:1], (*llms, away)), tmp_path / "grid"
    notes: list[str] = []
    found = world.run(grid, out, notes=notes)
    (name,) = found.failed
    assert found.finished == ("first+left", "first+right")
    assert "127.0.0.1:9" in found.failed[name].fact
    assert json.loads((out / "cells" / name / "failed.json").read_text())["error"] == found.failed[name].fact
    assert found.comparison is not None
    assert len(found.comparison.json["datasets"]["orlo"]["systems"]) == 2
    with pytest.raises(CellsFailed, match=r"1 of 3 cells failed: first\+gone") as raised:
        found.raise_for_failures()
    assert raised.value.exit_code == 3
    assert any(note.startswith(f"{name} failed: ") for note in notes)
    again = world.run(grid, out)
    assert (again.made, list(again.failed)) == ((), [name])


def test_a_vlm_that_fails_takes_only_its_own_cells_along(world: World, sides: Any, tmp_path: Path) -> None:
    vlms, llms = sides
    found = world.run(world.grid((f"gone,engine={CLOSED}", vlms[0]), llms[:1]), tmp_path / "grid")
    assert found.finished == ("first+left",)
    assert len(found.failed) == 1
    assert found.comparison is None
    assert not (tmp_path / "grid" / "report").exists()


def test_a_failed_cell_that_works_later_is_failed_no_more(
    world: World, sides: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, out, real = world.grid(*sides), tmp_path / "grid", grid_cells.rerank_stage

    def fail_once(folder: Path, *given: Any, **more: Any) -> Any:
        if folder.name == "second+left":
            raise RuntimeError("a library raised this")
        return real(folder, *given, **more)

    monkeypatch.setattr(grid_cells, "rerank_stage", fail_once)
    first = world.run(grid, out)
    assert first.failed["second+left"].fact == "RuntimeError: a library raised this"
    assert first.comparison is not None
    monkeypatch.setattr(grid_cells, "rerank_stage", real)
    second = world.run(grid, out)
    assert (second.made, second.failed) == (("second+left",), {})
    assert not (out / "cells" / "second+left" / "failed.json").exists()
    assert second.comparison is not None
    assert list(second.comparison.json["datasets"]["orlo"]["systems"]) == CELLS


def test_a_damaged_cell_is_named_and_the_others_are_compared(
    world: World, sides: Any, run: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(run, tmp_path / "grid", symlinks=True)
    (out / "cells" / "first+right" / "evaluate" / "rankings.jsonl").write_text("{}\n")
    found = world.run(world.grid(*sides), out)
    assert list(found.failed) == ["first+right"]
    assert found.failed["first+right"].exit_code == CorruptArtifact.exit_code
    assert "rm -r" in found.failed["first+right"].hint


# --- what has changed ---------------------------------------------------------------------------------------------


def test_a_grid_is_not_gone_on_with_over_another_kb(world: World, sides: Any, run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(world.kb.folder, tmp_path / "kb")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "entities.jsonl").write_text('{"id": "new", "label": "Newcomer"}\n')
    problems = Problems()
    source = TablesSource(entities=tmp_path / "tables" / "entities.jsonl", triples=None, problems=problems)
    add_to_kb(folder, source, problems)
    before = states(run)
    with KnowledgeBase(folder) as kb:
        from localmel.grid.run import run_grid

        with pytest.raises(
            BadInput, match=r"cannot resume the grid in .*: grid\.inputs\.kb_fingerprint was"
        ) as refused:
            run_grid(world.grid(*sides), kb, run, models=world.models, encoder=world.encoder)
    assert "rm -r" in refused.value.hint
    assert states(run) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit": N - 1}, "grid.settings.limit was 24, is 23"),
        ({"split": "test"}, "grid.settings.split was val, is test"),
        ({"gold_outside": "miss"}, "grid.settings.gold_outside was refuse, is miss"),
    ],
)
def test_a_grid_is_not_gone_on_with_under_another_protocol(
    world: World, sides: Any, run: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        world.run(world.grid(*sides, **given), run)
    assert said in refused.value.fact


def test_a_model_that_changed_under_its_name_is_refused(world: World, sides: Any, run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(run, tmp_path / "grid", symlinks=True)
    shutil.rmtree(out / "cells" / "first+left" / "evaluate")
    (left,) = (Path(one) for one in sides[1][:1])
    before = left.read_text()
    try:
        left.write_text('{"answer": "C"}\n')
        with pytest.raises(BadInput, match=r"model\.llm left\.revision was"):
            world.run(world.grid(*sides), out)
    finally:
        left.write_text(before)


def test_a_model_that_is_run_otherwise_is_refused_even_where_all_is_finished(
    world: World, sides: Any, run: Path
) -> None:
    with pytest.raises(BadInput, match=r"model\.vlm first\.settings\.device was auto, is cpu"):
        world.run(world.grid(*sides, engine_device="cpu"), run)


def test_a_folder_of_something_else_is_left_alone(world: World, sides: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    (tmp_path / "file").touch()
    for out, said in ((tmp_path / "mine", "notes.txt"), (tmp_path / "file", "a file"), (run / "report", "comparison")):
        with pytest.raises(BadInput) as refused:
            world.run(world.grid(*sides), out)
        assert "is not a grid" in refused.value.fact
        assert said in refused.value.fact
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "grid.json").write_text('{"format": 2}')
    with pytest.raises(CorruptArtifact, match="cannot be read"):
        world.run(world.grid(*sides), tmp_path / "damaged")


def test_weights_that_are_missing_are_said_before_anything_is_run(world: World, tmp_path: Path) -> None:
    grid = world.grid(("nobody-made-this", "none"), ("none",), engine="transformers")
    with pytest.raises(MissingWeights, match="neither installed nor in the catalog"):
        world.run(grid, tmp_path / "grid")
    assert not (tmp_path / "grid").exists()


def test_a_model_that_sees_nothing_is_no_vlm(world: World, tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    grid = world.grid((str(tiny_models("tiny-llama")), "none"), ("none",), engine="transformers")
    with pytest.raises(LocalmelError, match="cannot see pictures"):
        world.run(grid, tmp_path / "grid")


# --- triples withheld ---------------------------------------------------------------------------------------------


def test_what_triples_are_worth_is_told_of_cells_with_the_same_models_only(
    world: World, sides: Any, tmp_path: Path
) -> None:
    vlms, llms = sides
    out = tmp_path / "grid"
    found = world.run(world.grid(vlms[:1], llms, without_triples=True), out)
    assert found.finished == (
        "first+left",
        "first+right",
        "first+left-without-triples",
        "first+right-without-triples",
    )
    assert found.comparison is not None
    gains = [note for note in found.comparison.json["notes"] if "triples are worth" in note]
    assert len(gains) == 2
    for name, note in zip(("first+left", "first+right"), gains, strict=True):
        assert f"to {name} (against {name}-without-triples)" in note
    withheld = out / "vlms" / "first-without-triples" / "retrieve" / "rankings.jsonl"
    assert all(row["triples"] == [] for row in lines_of(withheld))
    assert any(row["summary"] for row in lines_of(withheld)), "what else was said stays"
    line = lines_of(out / "cells" / "first+left-without-triples" / "evaluate" / "rankings.jsonl")[0]
    assert "triples" not in line
    assert line["attempts"] == 1
    assert (out / "vlms" / "first-without-triples" / "generate").is_symlink(), "the VLM is asked once"
