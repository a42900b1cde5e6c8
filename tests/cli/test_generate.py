"""`localmel generate` from end to end, with a scripted model: made once, gone on with, refused where it has to be."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
SCRIPTED = ("--engine", "scripted", "--engine-weights", "made-up", "--json")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmark of three sentences in val and one in train, one of them with a picture."""
    from PIL import Image

    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (40, 30), "navy").save(folder / "p.png")
    rows = [
        ("1-0", "Jordan met Barkley.", "Jordan", "p.png"),
        ("1-1", "Jordan met Barkley.", "Barkley", "p.png"),
        ("2-0", "Messi scored.", "Messi", "missing.png"),
        ("3-0", "It rained in Athens.", "Athens", None),
    ]
    for name, part in (("val", rows), ("train", [("9-0", "Paris, again.", "Paris", None)])):
        lines = [
            json.dumps({"id": id_, "sentence": sentence, "mention": mention, "answer": None, "image": image})
            for id_, sentence, mention, image in part
        ]
        (folder / f"small-{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_every_mention_of_the_split_is_described_once(localmel: Run, data: Path, tmp_path: Path) -> None:
    done = localmel("generate", data, "--run", "first", *SCRIPTED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["mentions"], figures["sentences"], figures["described"], figures["unparsed"]) == (4, 3, 4, 0)
    assert (figures["made"], figures["without_picture"], figures["answers_now"]) == (True, 1, 3)
    assert figures["prompt_tokens_per_mention"] > 50
    folder = tmp_path / "runs" / "first" / "generate"
    assert figures["folder"] == "runs/first/generate"
    rows = [json.loads(line) for line in (folder / "descriptions.jsonl").read_text().splitlines()]
    assert [row["mention_id"] for row in rows] == ["1-0", "1-1", "2-0", "3-0"]
    assert "there is no file" in rows[2]["notes"][0]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["command"].startswith("localmel generate ")

    again = localmel("generate", data, "--run", "first", *SCRIPTED, cwd=tmp_path)
    assert again.returncode == 0
    now = {"made": False, "answers_now": 0, "answers_per_second": 0.0, "load_seconds": 0.0}
    assert json.loads(again.stdout) == {**figures, **now}, "what the first run gave is not given now"
    assert "nothing to do: runs/first/generate" in again.stderr
    assert "no request was sent" in again.stderr


def test_for_people_there_is_a_table(localmel: Run, data: Path, tmp_path: Path) -> None:
    done = localmel("generate", data / "small-val.jsonl", "--run", tmp_path / "run", "--limit", "2", *SCRIPTED[:-1])
    assert done.returncode == 0, done.stderr
    assert "prompt tokens per mention" in done.stdout
    assert f"are in {tmp_path / 'run' / 'generate'}" in done.stdout
    assert "mentions" in done.stdout
    assert "answers per second" in done.stdout
    again = localmel("generate", data / "small-val.jsonl", "--run", f"{tmp_path}/run/", "--limit", "2", *SCRIPTED[:-1])
    words = dict(re.split(r"\s{2,}", line.strip()) for line in again.stdout.splitlines() if "  " in line.strip())
    assert (words["answers"], words["of these, given now"]) == ("1", "0")
    assert "answers per second" not in again.stdout
    assert "seconds it took" in words


def test_several_splits_are_one_run(localmel: Run, data: Path, tmp_path: Path) -> None:
    done = localmel(
        "generate", data, "--run", tmp_path / "run", "--split", "train", "--split", "val", "--format", "json", *SCRIPTED
    )
    assert json.loads(done.stdout)["mentions"] == 5


def failed(done: Any, code: int, words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--run", ".."], 2, "cannot name a run"),
        (["--run", "x", "--profile", "embedded"], 2, "asks no model for triples"),
        (["--run", "x", "--engine", "abacus"], 2, "abacus"),
        (["--run", "x", "--format", "xml"], 2, "xml"),
        (["--run", "x", "--engine-at-once", "0"], 2, "at_once must be above 0"),
        (["--run", "x", "--engine", "scripted", "--allow-remote"], 2, "--allow-remote applies to a server"),
        (["--run", "x", "--engine", "scripted", "--engine-url", "http://127.0.0.1"], 2, "--engine-url applies to"),
        (["--run", "/proc/none", *SCRIPTED], 3, "/proc/none: No such file"),
        (["--run", "~nobody-here/x", *SCRIPTED], 3, "cannot be the folder of a run"),
        (["--run", "x", "--engine", "scripted", "--split", "none"], 3, "has no split 'none'"),
        (["--run", "x", "--engine", "vllm", "--engine-weights", "no-such-model"], 4, "no-such-model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_said(
    localmel: Run, data: Path, tmp_path: Path, more: list[str], code: int, words: str
) -> None:
    failed(localmel("generate", data, *more, cwd=tmp_path), code, words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("url", ["http://example.com/v1", "http://192.0.2.1/v1", "http://2130706433/v1"])
def test_a_server_elsewhere_is_refused_before_a_name_is_looked_up(
    localmel: Run, data: Path, tmp_path: Path, url: str
) -> None:
    server = ("--engine", "server", "--engine-weights", "any", "--engine-url", url)
    done = localmel("generate", data, "--run", "x", *server, cwd=tmp_path)
    failed(done, 2, "pictures and texts would leave it")
    assert "--allow-remote" in done.stderr


def test_another_run_is_not_written_over(localmel: Run, data: Path, tmp_path: Path) -> None:
    assert localmel("generate", data, "--run", "x", *SCRIPTED, cwd=tmp_path).returncode == 0
    done = localmel("generate", data, "--run", "x", "--limit", "1", *SCRIPTED, cwd=tmp_path)
    failed(done, 3, "differs in inputs.mentions")
    failed(localmel("generate", data / "none.jsonl", "--run", "y", *SCRIPTED, cwd=tmp_path), 3, "none.jsonl")
    file = data / "small-val.jsonl"
    failed(localmel("generate", file, "--run", "y", "--split", "val", *SCRIPTED, cwd=tmp_path), 2, "is one file")


def test_a_file_where_the_run_should_stand_is_named(localmel: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    done = localmel("generate", data, "--run", "./file", *SCRIPTED, cwd=tmp_path)
    failed(done, 3, "file for a run: it is not a folder")
    assert json.loads(done.stderr)["hint"] == "choose another --run"
    failed(localmel("rerank", "--run", "./none", "--report", cwd=tmp_path), 3, "localmel rerank DATA --run ./none")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_control_characters_in_an_answer_are_read_and_reach_no_terminal(
    localmel: Run, data: Path, tmp_path: Path
) -> None:
    raw = '{"Messi": {"type": "person", "description": "a \x1b[31mred\x1b[0m\tman\x07", "triples": []}}'
    script = tmp_path / "script.jsonl"
    lines = [{"contains": "Messi", "answer": raw}, {"problem": "no \x1b[2J\x9b answer"}]
    script.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    engine = ("--engine", "scripted", "--engine-weights", str(script))
    done = localmel("generate", data, "--run", "x", *engine, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 mentions had no answer" in done.stderr
    folder = tmp_path / "runs" / "x" / "generate"
    texts = done.stdout + done.stderr
    texts += "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    assert all(char.isprintable() or char == "\n" for char in texts)
    (row,) = [json.loads(line) for line in (folder / "descriptions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert row["summary"] == "a [31mred [0m man"


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(
    environment: dict[str, str], localmel: Run, tmp_path: Path
) -> None:
    data = tmp_path / "many.jsonl"
    rows = [{"id": str(n), "sentence": f"Name{n} is here.", "mention": f"Name{n}", "answer": None} for n in range(4000)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["generate", str(data), "--run", str(tmp_path / "run"), *SCRIPTED]
    command = [sys.executable, "-m", "localmel.cli", *arguments]
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    journal = tmp_path / "run" / "journals" / "generate.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 50_000):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "run the same command to resume" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run" / "generate").exists()
    answered = journal.read_bytes().count(b'"answer"')
    assert 0 < answered < 4000
    done = localmel(*arguments)
    assert f"going on: {answered:,} answers of earlier runs are in" in done.stderr
    figures = json.loads(done.stdout)
    assert (figures["described"], figures["answers_now"]) == (4000, 4000 - answered)


def test_the_script_in_the_documentation_answers(localmel: Run, data: Path, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "generation.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in page.splitlines() if line.startswith('    {"contains"')]
    assert len(lines) == 2
    (tmp_path / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    engine = ("--engine", "scripted", "--engine-weights", "./answers.jsonl")
    done = localmel("generate", data, "--run", "x", *engine, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "runs" / "x" / "generate" / "descriptions.jsonl").read_text(encoding="utf-8").splitlines()
    assert next(row for row in map(json.loads, rows) if row["mention_id"] == "2-0")["summary"] == "a footballer"
