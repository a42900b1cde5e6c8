"""`localmel compare` and `localmel report` from end to end: in processes of their own, over real runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
ENTITIES = [
    {"id": "Q1", "label": "Michael Jordan", "description": "basketball player", "aliases": ["Jordan"], "popularity": 9},
    {"id": "Q2", "label": "Jordan", "description": "country <script>alert(1)</script>", "popularity": 8},
    {"id": "Q3", "label": "Chicago Bulls", "description": "basketball team", "aliases": ["Bulls"]},
]
FACTS = [("Q1", "member of", "Q3", "Chicago Bulls"), ("Q2", "capital", "", "Amman")]
VAL: list[tuple[str, str, str, str | None]] = [
    ("1-0", "Jordan dunks for the Bulls", "Jordan", "Q1"),
    ("1-1", "Jordan dunks for the Bulls", "Bulls", "Q3"),
    ("2-0", "The desert of \x1b[31mJordan\x1b[0m near <script>alert(1)</script> Amman", "Jordan", "Q2"),
    ("3-0", "Smith met nobody", "Smith", None),
]


@pytest.fixture(scope="module")
def world(
    home: Path,
    tables: Callable[..., list[Any]],
    write_split: Callable[..., None],
    localmel: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with `data/` and, in `runs/`, three evaluations over the KB `compared`."""
    folder = tmp_path_factory.mktemp("compared")
    built = localmel("kb", "build", "compared", *tables(folder / "tables", ENTITIES, FACTS))
    assert built.returncode == 0, built.stderr
    (folder / "data").mkdir()
    write_split(folder / "data" / "tiny-val.jsonl", VAL)
    for name, options in (("names", ["--system", "names"]), ("text", ["--system", "zero-shot"]), ("k", ["--k", "8"])):
        done = localmel("eval", folder / "data", "--kb", "compared", *options, "--out", folder / "runs" / name)
        assert done.returncode == 0, done.stderr
    return folder


def test_two_runs_are_compared_in_words_and_tables(localmel: Run, world: Path) -> None:
    done = localmel("compare", world / "runs" / "names", world / "runs" / "text")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny: ")
    assert "is not significantly better than" in done.stdout
    assert "not significant" in done.stdout.split("pair")[1]
    assert "fewer than 50 sentences" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_where_data_and_kb_cannot_be_found_it_says_what_is_left_out(localmel: Run, world: Path, tmp_path: Path) -> None:
    data = shutil.copytree(world / "data", tmp_path / "data")
    for name in ("names", "zero-shot"):
        done = localmel("eval", data, "--kb", "compared", "--system", name, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    shutil.rmtree(data)
    done = localmel("compare", tmp_path / "names", tmp_path / "zero-shot")
    assert done.returncode == 0, done.stderr
    assert f"No slices, sentences, pictures or names: cannot look into {data}" in done.stderr


def test_a_report_is_written_once_and_escapes_what_it_shows(localmel: Run, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = ["compare", world / "runs" / "names", world / "runs" / "text", "--out", out]
    command += ["--data", world / "data", "--kb", "compared"]
    first, again = localmel(*command, "--json"), localmel(*command, "--json")
    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert f"report: {out / 'comparison.html'}" in first.stderr
    assert f"nothing to do: {out} already has this comparison" in again.stderr
    assert json.loads(first.stdout) == json.loads(again.stdout) == json.loads((out / "comparison.json").read_text())
    assert localmel(*command).stdout.startswith("tiny: ")
    page = (out / "comparison.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert json.loads((out / "manifest.json").read_text())["command"].startswith("localmel compare ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["names"], 3, "with nothing: it is one run with one system"),
        (["names", "names"], 2, "is named twice"),
        (["names", "nothing"], 3, "does not exist"),
        (["names", "k"], 3, "follow different protocols: k is 16 and 8"),
        (["names", "text", "--data", "."], 2, "--data and --kb go together"),
        (["names", "text", "--examples", "-1"], 2, "--examples"),
        (["names", "text", "--data", ".", "--kb", "no-such-kb"], 3, "no-such-kb"),
    ],
)
def test_what_cannot_be_compared_is_said_with_the_next_command(
    localmel: Run, world: Path, arguments: list[str], code: int, said: str
) -> None:
    done = localmel("compare", *arguments, cwd=world / "runs")
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if code == 3 and "--data" not in arguments:
        assert "  try: " in done.stderr


def test_a_damaged_run_ends_with_6(localmel: Run, world: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(world / "runs" / "text", broken)
    (broken / "evaluate" / "manifest.json").write_text("{")
    done = localmel("compare", world / "runs" / "names", broken, "--json")
    assert done.returncode == 6
    assert set(json.loads(done.stderr)) == {"error", "hint"}


def test_runs_are_listed_newest_first_with_their_commands(localmel: Run, world: Path, tmp_path: Path) -> None:
    for seconds, name in enumerate(("text", "k", "names")):
        os.utime(world / "runs" / name / "evaluate" / "manifest.json", (1e9 + seconds, 1e9 + seconds))
    done = localmel("report", world / "runs", "--out", tmp_path / "board")
    assert done.returncode == 0, done.stderr
    ours, theirs = done.stdout.split("Published figures, not comparable with the rows above")
    places = [ours.index(f"\n {name} ") for name in ("names", "k", "text")]
    assert places == sorted(places)
    assert f"names: localmel eval {world / 'data'}" in ours
    assert "88.23" in theirs
    assert (tmp_path / "board" / "runs.html").is_file()
    rows = json.loads(localmel("report", world / "runs", "--json").stdout)["rows"]
    assert [row["run"] for row in rows] == ["names", "k", "text"]


def test_a_folder_without_runs_ends_with_3(localmel: Run, tmp_path: Path) -> None:
    done = localmel("report", tmp_path)
    assert done.returncode == 3
    assert "try: localmel eval DATA --kb KB --out runs/NAME" in done.stderr
