"""The runs of a folder: rows from their reports, damage named, files made anew, nothing else written over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.errors import BadInput, CorruptArtifact, MissingExtra
from localmel.runs.leaderboard import leaderboard_of, write_leaderboard

Runs = Callable[..., Path]


def test_rows_are_those_of_the_reports_newest_first(finished: Runs) -> None:
    old, new = finished("old", systems=("zero-shot", "names")), finished("deep/new", systems=("names",))
    for seconds, folder in ((1.0e9, old), (1.1e9, new)):
        os.utime(folder / "evaluate" / "manifest.json", (seconds, seconds))
    board = leaderboard_of(old.parent)
    assert [(row.run, row.system) for row in board.rows] == [
        ("deep/new", "names"), ("old", "zero-shot"), ("old", "names"),
    ]  # fmt: skip
    report = json.loads((new / "evaluate" / "report.json").read_text())
    metrics = report["datasets"]["tiny"]["systems"]["names"]["slices"]["all"]["metrics"]
    first = board.rows[0]
    assert first.metrics["hits@1"].value == metrics["hits@1"]["value"]
    assert first.metrics["mrr"].low == metrics["mrr"]["low"]
    assert (first.n, first.k, first.written, first.command) == (7, 16, "2004-11-09 11:33", "localmel eval deep/new")
    assert first.mentions_per_second is not None
    assert board.rows[1].mentions_per_second is None
    assert len({row.asked for row in board.rows}) == 1


def test_another_k_is_another_set(finished: Runs) -> None:
    one = finished("one")
    finished("k", k=8)
    assert len({row.asked for row in leaderboard_of(one.parent).rows}) == 2


def test_one_run_is_a_folder_of_runs_too(finished: Runs) -> None:
    assert [row.run for row in leaderboard_of(finished("alone")).rows] == ["alone"]


def test_damage_is_named_and_hides_nothing_else(finished: Runs) -> None:
    good, bad = finished("good"), finished("bad")
    (bad / "evaluate" / "report.json").write_text("{}")
    board = leaderboard_of(good.parent)
    assert [row.run for row in board.rows] == ["good"]
    assert len(board.unreadable) == 1
    assert "report.json is damaged" in board.unreadable[0]


def test_a_folder_without_runs_says_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no runs") as refusal:
        leaderboard_of(tmp_path)
    assert refusal.value.hint == "localmel eval DATA --kb KB --out runs/NAME"


def test_files_are_made_anew_and_nothing_else_is_written_over(finished: Runs, tmp_path: Path) -> None:
    run = finished("one")
    board, out = leaderboard_of(run.parent), tmp_path / "out"
    write_leaderboard(board, out)
    finished("two")
    write_leaderboard(leaderboard_of(run.parent), out)
    assert {path.name for path in out.iterdir()} == {"runs.html", "runs.json", "runs.md", "manifest.json"}
    assert len(json.loads((out / "runs.json").read_text())["rows"]) == 2
    with pytest.raises(CorruptArtifact, match="holds 'evaluation', not 'leaderboard'"):
        write_leaderboard(board, run / "evaluate")
    with pytest.raises(BadInput, match="holds something else"):
        write_leaderboard(board, run)


def test_the_page_needs_its_package(finished: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localmel.runs.leaderboard.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="needs jinja2"):
        write_leaderboard(leaderboard_of(finished("one").parent), tmp_path / "out")
