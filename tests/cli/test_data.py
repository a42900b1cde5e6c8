"""`localmel data check` and `localmel kb build --benchmark` from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A MIMIC folder with a KB, a leak, a gold outside the KB, and a name that would steer a terminal."""
    mention = {"sentence": "Ada met \x1b[31mBob.", "mentions": "Ada", "answer": "Q1", "imgPath": "1.png"}
    rows = {
        "train": [{**mention, "id": "1-0"}],
        "dev": [{**mention, "id": "2-0", "sentence": "Ada sat."}],
        "test": [{**mention, "id": "\x1b[31m3-0", "answer": "Q7"}, {**mention, "id": "4-0", "sentence": "Ada ran."}],
    }
    folder = tmp_path / "WikiMEL"
    (folder / "mention_image").mkdir(parents=True)
    (folder / "mention_image" / "1.jpg").touch()
    for split, found in rows.items():
        (folder / f"WIKIMEL_{split}.json").write_text(json.dumps(found))
    entities = [{"id": 0, "qid": "Q1", "entity_name": "Ada%20Byron", "attr": "female", "image_list": ["Q1_0.jpg"]}]
    (folder / "kb_entity.json").write_text(json.dumps(entities))
    return folder


def test_the_check_tells_what_it_counted_and_found(localmel: Run, home: Path, benchmark: Path) -> None:
    done = localmel("data", "check", benchmark)
    assert done.returncode == 0, done.stderr
    assert "WikiMEL: MIMIC layout" in done.stdout
    assert "1 of 2 mentions of test are also in train" in done.stdout
    assert "1 finding\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_golds_are_looked_up_in_the_kb_of_the_benchmark(localmel: Run, home: Path, benchmark: Path) -> None:
    kb = benchmark.parent / "kb"
    built = localmel("kb", "build", kb, "--benchmark", benchmark, "--no-vectors", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["entities"] == 1
    assert "left out, picture of an entity whose file is not in kb_image: 1" in built.stderr
    shown = json.loads(localmel("kb", "show", "Q1", "--kb", kb, "--json").stdout)
    assert (shown["label"], shown["description"]) == ("Ada Byron", "female")
    report = json.loads(localmel("data", "check", benchmark.parent, "--name", "wikimel", "--kb", kb, "--json").stdout)
    assert [split["gold_outside_kb"]["count"] for split in report["splits"]] == [0, 0, 1]
    assert len(report["findings"]) == 2


def test_findings_end_with_3_only_when_asked_to(localmel: Run, home: Path, benchmark: Path) -> None:
    done = localmel("data", "check", benchmark, "--strict", "--json")
    assert done.returncode == 3
    assert len(json.loads(done.stdout)["findings"]) == 1
    assert json.loads(done.stderr)["error"] == "WikiMEL: 1 finding, and --strict was given"
    (benchmark / "WIKIMEL_test.json").unlink()
    clean = localmel("data", "check", benchmark, "--strict")
    assert (clean.returncode, "nothing found" in clean.stdout) == (0, True)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["data", "check", "/no/such"], 3, "cannot look into"),
        (["data", "check", "."], 3, "is not a benchmark that localmel knows"),
        (["data", "check"], 2, ""),
        (["kb", "build", "x", "--benchmark", "."], 3, "is not a benchmark that localmel knows"),
        (["kb", "build", "x", "--benchmark", ".", "--ontology", "a.csv"], 2, "2 sources were given"),
        (["kb", "build", "x", "--ontology", "a.csv", "--dataset", "WikiMEL"], 2, "--dataset goes with --benchmark"),
        (["data", "check", "BENCHMARK", "--dataset", "Other"], 3, "there are: WikiMEL (MIMIC)"),
        (["data", "check", "BENCHMARK", "--kb", "none"], 3, "there is no KB 'none'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_has_its_exit_code_and_no_traceback(
    localmel: Run, home: Path, benchmark: Path, tmp_path: Path, command: list[str], code: int, said: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = localmel(*(str(benchmark) if word == "BENCHMARK" else word for word in command), cwd=empty)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_file_that_is_cut_off_is_named(localmel: Run, home: Path, benchmark: Path) -> None:
    path = benchmark / "WIKIMEL_dev.json"
    path.write_text(path.read_text()[:-20])
    done = localmel("data", "check", benchmark)
    assert done.returncode == 3
    assert f"{path} is cut off: its last whole element is 0" in done.stderr
