"""DWE+ from the command line: trained, indexed, evaluated, and refused where it does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_train import FAMILIES, ROOT, TRADES, rows, write

NIL = ("--gold-outside", "nil")
pytestmark = pytest.mark.slow  # six processes, each of which loads torch: over 30 seconds on a busy machine


def localmel(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Without the starter KB, which nothing here needs."""
    command = [sys.executable, "-m", "localmel.cli", *map(str, arguments)]
    own = {**os.environ, "LOCALMEL_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "one-train.jsonl", rows("morning", 48))
    write(folder / "one-val.jsonl", rows("evening", 12))
    return folder


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Path:
    people = [(f"{family}-{trade}", family, trade) for family in FAMILIES for trade in TRADES]
    return change_kb([{"id": person, "label": family, "description": f"a {trade}"} for person, family, trade in people])


def test_dwe_is_trained_indexed_evaluated_and_links(data: Path, kb: Path, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> str:
        done = localmel(*arguments, home=tmp_path / "home")
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("train", data, "--kb", kb, "--matcher", "dwe", "--out", tmp_path / "run", "--epochs", "1")
    network = tmp_path / "run" / "seed-0" / "network"
    assert json.loads((network / "matcher.json").read_text())["kind"] == "dwe"
    run("index", kb, "--matcher", network)
    assert "dwe" in run("eval", data, "--kb", kb, "--system", "matcher", "--matcher", network, *NIL)
    (tmp_path / "dwe.toml").write_text(f'extends = "embedded"\n[retrieve]\nmatcher = "{network}"\n')
    said = f"{FAMILIES[0]}, the {TRADES[0]}, came again."
    linked = run("link", "-", said, "--kb", kb, "--profile", tmp_path / "dwe.toml", "--json")
    assert f"{FAMILIES[0]}-{TRADES[0]}" in linked


def test_a_folder_of_something_else_and_an_unknown_kind_are_refused(data: Path, kb: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    wrong = localmel("eval", data, "--kb", kb, "--system", "matcher", "--matcher", data, home=home)
    assert wrong.returncode == 6
    assert "holds no matcher" in wrong.stderr
    unknown = localmel("train", data, "--kb", kb, "--matcher", "dwe3", "--out", tmp_path / "run", home=home)
    assert unknown.returncode == 2
    assert "dwe" in unknown.stderr
