"""Runs read back: what was written comes out, and what is unfinished, damaged or of another kind is named."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import BadInput, CorruptArtifact
from localmel.runs.evaluate import KIND
from localmel.runs.finished_runs import answer_in, answers_of_run, find_runs, read_run
from localmel.runs.folder import VERSION
from localmel.store.artifacts import new_folder

Runs = Callable[..., Path]


def test_what_was_written_comes_out(finished: Runs) -> None:
    run = read_run(finished("first", systems=("zero-shot", "names")))
    assert (run.name, run.datasets, run.settings["systems"]) == ("first", ("tiny",), ["zero-shot", "names"])
    assert run.command == "localmel eval first"
    answers = answers_of_run(run)
    lines = [json.loads(line) for line in (run.stage / "rankings.jsonl").read_text().splitlines()]
    assert list(answers["tiny"]) == ["zero-shot", "names"]
    assert sum(len(one) for one in answers["tiny"].values()) == len(lines) == 14
    for line in lines:
        found = next(one for one in answers["tiny"][line["system"]] if one.outcome.mention_id == line["id"])
        assert found.outcome.gold == line["gold"]
        assert found.outcome.predicted == line["predicted"]
        assert [one.entity_id for one in found.candidates] == [entity for entity, _ in line["candidates"]]


def test_the_evaluate_folder_names_its_run_too(finished: Runs) -> None:
    folder = finished("first")
    assert read_run(folder / "evaluate").sha256 == read_run(folder).sha256
    assert read_run(folder / "evaluate").name == "first"


def test_a_place_without_a_finished_run_is_said_so(tmp_path: Path, finished: Runs) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        read_run(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file, not a folder"):
        read_run(tmp_path / "file")
    unfinished = finished("unfinished")
    (unfinished / "evaluate" / "manifest.json").unlink()
    with pytest.raises(
        BadInput, match=r"is not finished: .*manifest.json, which is written last, is missing"
    ) as refusal:
        read_run(unfinished)
    assert refusal.value.hint.startswith("localmel eval DATA --kb KB --out ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not a manifest"),
        ("[]", "is not a manifest"),
        ('{"kind": "kb", "version": 1, "files": {}}', "holds 'kb'"),
        ('{"kind": "evaluation", "version": 99, "files": {}}', "version 99"),
        ('{"kind": "evaluation", "version": 1, "files": {}}', "'inputs'"),
        ('{"kind": "evaluation", "version": 1, "files": {}, "inputs": {"settings": {}, "questions": 3}}', "3"),
        ('{"kind": "evaluation", "version": 1, "files": {}, "inputs": {"settings": {}, "questions": {}, '
         '"kb_fingerprint": "x"}}', "'split'"),
    ],
)  # fmt: skip
def test_a_corrupt_manifest_is_said_so(finished: Runs, text: str, said: str) -> None:
    folder = finished("first")
    (folder / "evaluate" / "manifest.json").write_text(text)
    with pytest.raises(CorruptArtifact) as refusal:
        read_run(folder)
    assert said in refusal.value.fact
    assert refusal.value.hint or "holds 'kb'" in said


def test_damaged_bytes_are_found(finished: Runs) -> None:
    folder = finished("first")
    file = folder / "evaluate" / "rankings.jsonl"
    file.write_text(file.read_text().replace('"rank": 1.0', '"rank": 2.0', 1))
    with pytest.raises(CorruptArtifact, match=r"rankings.jsonl is damaged"):
        read_run(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rank": 0.5}, "rankings.jsonl:1: outcome of '1-0' has rank 0.5"),
        ({"candidates": [["Q1"]]}, "rankings.jsonl:1: "),
        ({"probability": 3}, "has probability 3"),
        ({"gold": ...}, "rankings.jsonl:1: 'gold' is missing"),
        ({"system": "other"}, "the same mentions|has no answers of|1 of 7"),
        ({"tokens": 5, "prompt_tokens": "many"}, "prompt_tokens is 'many'"),
    ],
)
def test_a_line_that_is_no_answer_is_said_with_its_number(finished: Runs, reseal: Any, change: Any, said: str) -> None:
    folder = reseal(finished("first"), lambda number, line: {**line, **change} if number == 0 else line)
    if change == {"system": "other"}:
        assert len(answers_of_run(read_run(folder))["tiny"]["zero-shot"]) == 6
        return
    with pytest.raises(CorruptArtifact, match=said):
        answers_of_run(read_run(folder))


def test_a_system_without_answers_is_said(finished: Runs, reseal: Any) -> None:
    folder = reseal(finished("first"), lambda _, line: {**line, "system": "other"})
    with pytest.raises(CorruptArtifact, match="has no answers of 'zero-shot'"):
        answers_of_run(read_run(folder))


def test_a_gold_without_a_rank_is_infinitely_far() -> None:
    line = {
        "id": "a", "sentence": "s", "gold": "Q1", "rank": None, "predicted": "Q2", "probability": 0.5,
        "nil_probability": 0.1, "candidates": [["Q2", 0.5]],
    }  # fmt: skip
    found = answer_in(line).outcome
    assert (found.rank, found.among_candidates) == (math.inf, False)


def test_runs_are_found_newest_first_and_what_is_damaged_is_named(finished: Runs, tmp_path: Path) -> None:
    old, new, damaged = finished("old"), finished("deep/new"), finished("damaged")
    for number, folder in enumerate((new, damaged, old)):
        os.utime(folder / "evaluate" / "manifest.json", (1e9 - number, 1e9 - number))
    (damaged / "evaluate" / "report.md").write_text("other")
    hidden = old.parent / ".hidden"
    shutil.copytree(old, hidden)
    (old.parent / "link").symlink_to(old)
    runs, problems = find_runs(old.parent)
    assert [run.name for run in runs] == ["new", "old"]
    assert [problem.fact for problem in problems] == [problem.fact for problem in problems if "damaged" in problem.fact]
    assert len(problems) == 1
    with pytest.raises(BadInput, match="there is no folder"):
        find_runs(tmp_path / "nowhere")


def test_a_folder_of_another_kind_is_no_run(tmp_path: Path) -> None:
    with new_folder(tmp_path / "x" / "evaluate", kind="other", version=VERSION, facts={}):
        pass
    with pytest.raises(CorruptArtifact, match=f"holds 'other', not '{KIND}'"):
        read_run(tmp_path / "x")
