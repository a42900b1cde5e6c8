"""`localmel compare --vlm ... --llm ...` from end to end: planned, killed, gone on with, compared, refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.encode.minilm import MiniLM
from localmel.grid.plan import GridPlan, planned
from localmel.grid.run import run_grid
from localmel.kb.locate import open_kb
from localmel.store.progress import Listener, listening

Run = Callable[..., Any]
N = 12
CLOSED = "gone,engine=server,url=http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def place(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a benchmark of the starter KB's names, and scripts that play models."""
    from localmel.kb.locate import _STARTER_FILES

    folder = tmp_path_factory.mktemp("compare-grid")
    (folder / "data").mkdir()
    rows = [json.loads(line) for line in (_STARTER_FILES / "entities.jsonl").read_text().splitlines()[: 3 * N : 3]]
    lines = [
        {"id": f"val-{number}", "sentence": f"Here {row['label']} came.", "mention": row["label"], "answer": row["id"]}
        for number, row in enumerate(rows)
    ]
    (folder / "data" / "starters-val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "sees.jsonl").write_text('{"contains": "no sentence", "answer": ""}\n')
    (folder / "blind.jsonl").write_text('{"answer": "I cannot say."}\n')
    (folder / "first.jsonl").write_text('{"answer": "A", "probability": 0.6}\n')
    (folder / "slow.jsonl").write_text('{"answer": "B", "seconds": 0.05}\n')
    return folder


def grid(vlms: tuple[str, ...], llms: tuple[str, ...], *more: str) -> list[str]:
    models = [text for option, names in (("--vlm", vlms), ("--llm", llms)) for name in names for text in (option, name)]
    return ["compare", *models, "--engine", "scripted", "--data", "data", "--kb", "starter", *more]


SIDES = (("./sees.jsonl", "./blind.jsonl"), ("./first.jsonl", "./slow.jsonl"))
CELLS = ["sees+first", "sees+slow", "blind+first", "blind+slow"]


@pytest.fixture(scope="module")
def killed(localmel: Run, environment: dict[str, str], place: Path) -> tuple[Path, Any]:
    """A grid that was killed in its second cell and then gone on with; and how that ended."""
    command = [sys.executable, "-m", "localmel.cli", *grid(*SIDES, "--out", "killed")]
    process = subprocess.Popen(
        command, env=environment, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journal = place / "killed" / "cells" / "sees+slow" / "journals" / "rerank.jsonl"
    deadline = time.monotonic() + 900
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and len(journal.read_bytes().splitlines()) > 3:
            break
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (place / "killed" / "cells" / "sees+slow" / "evaluate").exists()
    return place / "killed", localmel(*grid(*SIDES, "--out", "killed", "--json"), cwd=place, seconds=900)


@pytest.mark.slow(reason="starts a grid twice")
def test_a_killed_grid_goes_on_where_it_stopped(killed: tuple[Path, Any]) -> None:
    out, done = killed
    assert done.returncode == 0, done.stderr
    assert "cell 1 of" not in done.stderr, "it had finished"
    assert "cell 2 of 4: sees+slow" in done.stderr
    assert "going on: " in done.stderr
    found = json.loads(done.stdout)
    assert list(found["datasets"]["starters"]["systems"]) == CELLS
    manifest = json.loads((out / "cells" / "sees+slow" / "rerank" / "manifest.json").read_text())
    assert 0 < manifest["figures"]["answers_now"] < manifest["figures"]["answers_kept"] == N
    resources = json.loads((out / "cells" / "sees+slow" / "evaluate" / "manifest.json").read_text())["resources"]
    assert resources["models"]["seconds"] > manifest["seconds"], "the first process took time, too"
    assert (out / "report" / "comparison.html").is_file()


@pytest.mark.slow(reason="starts a grid twice")
def test_again_there_is_nothing_to_do(localmel: Run, killed: tuple[Path, Any], place: Path) -> None:
    out, first = killed
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    again = localmel(*grid(*SIDES, "--out", "killed", "--json"), cwd=place)
    assert again.returncode == 0, again.stderr
    assert "nothing to do: killed already has these 4 cells and their comparison" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow(reason="starts a grid twice")
def test_a_dry_run_counts_what_is_sent_and_says_what_is_done(
    localmel: Run, killed: tuple[Path, Any], place: Path
) -> None:
    out, _ = killed
    done = localmel(*grid(*SIDES, "--out", "killed", "--dry-run", "--json"), cwd=place)
    assert done.returncode == 0, done.stderr
    work = {f"{one['stage']} {one['name']}": one for one in json.loads(done.stdout)["work"]}
    assert list(work) == ["generate sees", "generate blind", *(f"rerank {name}" for name in CELLS)]
    assert {one["state"] for one in work.values()} == {"done"}
    for name, folder in (("generate sees", out / "vlms" / "sees"), ("rerank sees+first", out / "cells" / CELLS[0])):
        figures = json.loads((folder / name.split()[0] / "manifest.json").read_text())["figures"]
        tokens = work[name]["tokens"]
        assert (tokens["prompt"], tokens["requests"]) == (figures["prompt_tokens"], N)
        assert tokens["counted"]


def test_a_dry_run_over_missing_weights_says_how_they_come_and_writes_nothing(localmel: Run, place: Path) -> None:
    models = ["--vlm", "llava-v1.6-mistral-7b", "--vlm", "none", "--llm", "qwen2.5-7b-instruct,quantization=4bit"]
    command = ["compare", *models, "--data", "data", "--kb", "starter", "--out", "planned", "--dry-run"]
    before = sorted(place.rglob("*"))
    told = localmel(*command, cwd=place)
    assert told.returncode == 4, "as the run would end"
    assert "localmel weights install BUNDLE.tar" in told.stderr
    assert "'llava-v1.6-mistral-7b' is in the catalog but not on this machine" in told.stderr
    assert "weights are missing" in told.stdout
    as_json = localmel(*command, "--json", cwd=place)
    found = json.loads(as_json.stdout)
    assert (as_json.returncode, found["exit_code"]) == (4, 4)
    assert [one["model"] for one in found["missing"]] == ["llava-v1.6-mistral-7b", "qwen2.5-7b-instruct"]
    described = found["work"][0]
    assert (described["tokens"]["requests"], described["tokens"]["counted"]) == (N, False)
    assert described["memory_bytes"] > 14e9
    assert sorted(place.rglob("*")) == before
    run = localmel(*command[:-1], cwd=place)
    assert (run.returncode, run.stdout) == (4, "")
    assert "localmel weights install BUNDLE.tar" in run.stderr
    assert sorted(place.rglob("*")) == before


def test_a_failing_cell_is_named_at_the_end_and_the_others_are_compared(localmel: Run, place: Path) -> None:
    done = localmel(*grid(("none",), ("./first.jsonl", CLOSED, "none"), "--out", "failing"), cwd=place)
    assert done.returncode == 3
    assert done.stdout.startswith("starters: ")
    assert "error: 1 of 3 cells failed: none+gone" in done.stderr
    assert "report: failing/report/comparison.html" in done.stderr
    assert "Traceback" not in done.stderr
    names = sorted(one.name for one in (place / "failing" / "cells").iterdir())
    (failed,) = (name for name in names if (place / "failing" / "cells" / name / "failed.json").exists())
    assert failed.startswith("none+gone")


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--vlm", "none", "--vlm", "none", "--llm", "none"], 2, "--vlm none is given twice"),
        (["--vlm", "none", "--llm", "a", "--llm", "none", "--limit", "0"], 2, "--limit 0 leaves no mention"),
        (["--vlm", "a", "--vlm", "none", "--llm", "none", "--dataset", "x", "--dataset", "y"], 2, "takes one dataset"),
        (["--vlm", "a", "--vlm", "none", "--llm", "none", "some/run"], 2, "do not go with --vlm and --llm"),
        (["--vlm", "a", "--vlm", "none", "--llm", "none", "--split", "dev"], 3, "has no split 'dev'"),
    ],
)
def test_what_cannot_be_planned_is_refused(localmel: Run, place: Path, more: list[str], code: int, said: str) -> None:
    engine = [] if "--engine" in more else ["--engine", "scripted"]
    done = localmel("compare", *more, *engine, "--data", "data", "--kb", "starter", "--out", "refused", cwd=place)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "refused").exists()


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["--vlm", "a", "--llm", "b", "--llm", "c"], 2, "a grid of models needs --data"),
        (["--limit", "5", "some/run", "other/run"], 2, "--limit is for a grid of models"),
    ],
)
def test_what_is_not_said_is_asked_for(localmel: Run, place: Path, command: list[str], code: int, said: str) -> None:
    done = localmel("compare", *command, cwd=place)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_an_unknown_model_is_refused_with_what_there_is(localmel: Run, place: Path) -> None:
    models = ["--vlm", "nobody-made-this", "--vlm", "none", "--llm", "none", "--engine", "transformers"]
    done = localmel("compare", *models, "--data", "data", "--kb", "starter", "--out", "refused", cwd=place)
    assert done.returncode == 4
    assert "neither installed nor in the catalog" in done.stderr
    assert "localmel weights list" in done.stderr
    assert not (place / "refused").exists()


def test_a_folder_of_something_else_is_left_alone(localmel: Run, place: Path) -> None:
    done = localmel(*grid(*SIDES, "--out", "data"), cwd=place)
    assert done.returncode == 3
    assert "data is not a grid: it has starters-val.jsonl" in done.stderr


@pytest.mark.slow(reason="starts five processes, each of which opens encoder, network and KB")
def test_on_several_gpus_cells_run_in_processes_that_see_one_each(
    home: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(home))
    monkeypatch.chdir(place)
    plan = GridPlan(
        vlms=("./sees.jsonl", "none"),
        llms=("./first.jsonl", CLOSED),
        data=Path("data"),
        kb="starter",
        engine="scripted",
    )
    notes: list[str] = []
    with open_kb("starter") as kb, listening(Listener(on_note=notes.append)):
        found = run_grid(
            planned(plan),
            kb,
            tmp_path / "grid",
            encoder=MiniLM(),
            gpus=("5", "7"),
        )
    assert found.finished == ("sees+first", "none+first")
    assert len(found.failed) == 2
    assert all("127.0.0.1:9" in failure.fact for failure in found.failed.values())
    started = [note for note in notes if note.startswith("GPU ")]
    assert len(started) == 6
    assert {note.split(":")[0] for note in started} == {"GPU 5", "GPU 7"}
    assert found.comparison is not None
