"""`localmel eval` from end to end: in a process of its own, on a small benchmark, with the models that ship."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
ENTITIES = [
    {"id": "Q1", "label": "Michael Jordan", "description": "basketball player", "aliases": ["Jordan"], "popularity": 9},
    {"id": "Q2", "label": "Jordan", "description": "country in the Near East", "popularity": 8},
    {"id": "Q3", "label": "Chicago Bulls", "description": "basketball team", "aliases": ["Bulls"]},
]
FACTS = [("Q1", "member of", "Q3", "Chicago Bulls"), ("Q2", "capital", "", "Amman")]
TRAIN = [("t0", "Jordan trains", "Jordan", "Q1")]
VAL: list[tuple[str, str, str, str | None]] = [
    ("1-0", "Jordan dunks for the Bulls", "Jordan", "Q1"),
    ("1-1", "Jordan dunks for the Bulls", "Bulls", "Q3"),
    ("2-0", "The desert of Jordan near Amman", "Jordan", "Q2"),
    ("3-0", "\x1b[31mSmith met nobody", "Smith", None),
]


@pytest.fixture
def benchmark(tmp_path: Path, write_split: Callable[..., None]) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_split(folder / "tiny-train.jsonl", TRAIN)
    write_split(folder / "tiny-val.jsonl", VAL)
    return folder


@pytest.fixture(scope="session")
def kb(home: Path, tables: Callable[..., list[Any]], localmel: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an indexed KB."""
    options = tables(tmp_path_factory.mktemp("tables"), ENTITIES, FACTS)
    built = localmel("kb", "build", "evaluated", *options)
    assert built.returncode == 0, built.stderr
    return "evaluated"


def test_all_systems_stand_in_one_page(localmel: Run, kb: str, benchmark: Path) -> None:
    systems = [word for name in ("linker", "fused", "zero-shot", "names") for word in ("--system", name)]
    done = localmel("eval", benchmark, "--kb", kb, *systems, "--protocol", "paper")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# tiny, val\n")
    assert "| system | HITS@1 | HITS@3 |" in done.stdout
    assert "paper protocol, not comparable" in done.stdout
    assert "| linker | names | 3 |" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_hundred_candidates_by_name_are_one_more_section(localmel: Run, kb: str, benchmark: Path) -> None:
    command = ["eval", benchmark, "--kb", kb, "--system", "names", "--protocol", "fuzzy100"]
    done = localmel(*command, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    found = report["datasets"]["tiny"]["fuzzy100"]
    assert (report["protocol"], found["candidates"], found["left_out"]) == ("fuzzy100", 100, 1)
    assert list(found["systems"]) == ["fuzzy score", "names"]
    assert found["systems"]["names"]["recall@100"]["value"] == 1.0


def test_a_run_is_kept_and_not_done_twice(localmel: Run, kb: str, benchmark: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    command = ["eval", benchmark, "--kb", kb, "--system", "linker", "--system", "fused", "--out", out]
    first, again = localmel(*command, "--json"), localmel(*command, "--json")
    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert first.stdout == again.stdout
    assert f"nothing to do: {out} already has this evaluation" in again.stderr
    report = json.loads(first.stdout)
    assert list(report["datasets"]["tiny"]["systems"]) == ["linker", "fused"]
    manifest = json.loads((out / "evaluate" / "manifest.json").read_text())
    assert manifest["command"].startswith("localmel eval ")
    lines = [json.loads(line) for line in (out / "evaluate" / "rankings.jsonl").read_text().splitlines()]
    assert [(line["system"], line["id"]) for line in lines[:2]] == [("linker", "1-0"), ("linker", "1-1")]
    assert localmel(*command).stdout == (out / "evaluate" / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--split", "test"], 3, "tiny has no split 'test'; its splits: train, val"),
        (["--dataset", "other"], 3, "holds no dataset 'other'"),
        (["--k", "0"], 2, "--k"),
        (["--system", "oracle"], 2, "there is no system 'oracle'; there are linker, fused, matcher, zero-shot, names"),
        (["--without", "luck"], 2, "there is no switch 'luck'"),
        (["--system", "names", "--without", "text"], 2, "--without text changes none of the systems names"),
        (["--protocol", "kind"], 2, "there is no protocol 'kind'"),
        (["--gold-outside", "maybe"], 2, "cannot be 'maybe'"),
        (["--profile", "none"], 2, "there is no profile 'none'"),
        (["--network", "."], 6, "holds no fusion network"),
        (["--scorer", "."], 6, "holds no evidence scorer"),
        (["--without", "gate"], 3, "was trained with a gate"),
        (["--without", "triples"], 3, "needs a network and a scorer that were made without"),
        (["--kb", "nowhere"], 3, "there is no KB 'nowhere'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_has_its_exit_code_and_no_traceback(
    localmel: Run, kb: str, benchmark: Path, options: list[str], code: int, said: str
) -> None:
    done = localmel("eval", benchmark, "--kb", kb, *options, cwd=benchmark)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "split 'val' of tiny has no mentions"),
        ([("1-0", "Jordan", "Jordan", "Q77")], "--gold-outside miss"),
        ([("1-0", "Jordan trains", "Jordan", "Q1")], "--drop-leaked"),
    ],
    ids=["empty", "gold outside the KB", "leak"],
)
def test_a_split_that_cannot_be_counted_is_refused(
    localmel: Run, kb: str, benchmark: Path, write_split: Callable[..., None], rows: list[Any], said: str
) -> None:
    write_split(benchmark / "tiny-val.jsonl", rows)
    done = localmel("eval", benchmark, "--kb", kb, "--system", "names")
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr


def test_a_kb_without_vectors_and_a_damaged_run_are_named(
    localmel: Run, kb: str, home: Path, benchmark: Path, tables: Callable[..., list[Any]], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    localmel("kb", "build", bare, *tables(tmp_path / "tables", ENTITIES, FACTS), "--no-vectors")
    done = localmel("eval", benchmark, "--kb", bare, "--system", "fused")
    assert (done.returncode, "localmel index" in done.stderr) == (3, True)
    command = ["eval", benchmark, "--kb", kb, "--system", "names", "--out", tmp_path / "run"]
    assert localmel(*command).returncode == 0
    (tmp_path / "run" / "evaluate" / "report.md").write_text("better numbers\n")
    damaged = localmel(*command)
    assert (damaged.returncode, damaged.stdout) == (6, "")
    assert "rm -r" in damaged.stderr
    shutil.rmtree(tmp_path / "run")
    other = [*command[:-1], benchmark / "tiny-val.jsonl"]  # a file where the folder of the run should be
    assert localmel(*other).returncode == 3


def test_an_interrupted_evaluation_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, home: Path, kb: str, benchmark: Path, tmp_path: Path
) -> None:
    from localmel.cli.app import run
    from localmel.runs import systems

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("LOCALMEL_HOME", str(home))
    monkeypatch.setattr(systems, "_by_names", stop)
    out = tmp_path / "run"
    assert run(["eval", str(benchmark), "--kb", kb, "--system", "names", "--out", str(out)]) == 130
    assert not out.exists()
