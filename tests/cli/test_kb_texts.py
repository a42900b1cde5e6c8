"""`localmel kb abstracts`, `kb describe` and `kb texts`, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.kb.importers import Problems, TablesSource
from localmel.kb.write import build_kb

Run = Callable[..., Any]
ENTITIES = [
    {"id": "Q1", "label": "Michael Jordan", "description": "basketball player", "aliases": ["Jordan"]},
    {"id": "Q2", "label": "Jordan", "description": "country in the Near East"},
    {"id": "Q3", "label": "Chicago Bulls"},
]
FACTS = [("Q1", "member of", "Q3", "Chicago Bulls"), ("Q1", "date of birth", "", "1963-02-17")]


def made(folder: Path, tables: Callable[..., list[Any]], entities: list[Any], facts: Any = ()) -> Path:
    """A KB, built without a process of its own."""
    options = tables(folder / "tables", entities, facts)
    problems = Problems()
    build_kb(folder / "kb", TablesSource(entities=options[1], triples=options[3], problems=problems), problems)
    return folder / "kb"


@pytest.fixture
def kb(tables: Callable[..., list[Any]], tmp_path: Path) -> Path:
    return made(tmp_path, tables, ENTITIES, FACTS)


def script(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "script.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def answer(text: str, *, known: bool = True) -> dict[str, Any]:
    return {"known": known, "description": text}


def test_abstracts_are_counted_and_shown_with_their_source(localmel: Run, kb: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "Q1", "abstract": "'''Michael Jordan''' (/dʒɔːdən/; born 1963) plays."},
        {"id": "Q9", "abstract": "x"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = localmel("kb", "abstracts", kb, tmp_path / "a.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert (read["abstracts"], read["kept"], read["unknown"], read["problems"]) == (2, 1, 1, 0)
    shown = json.loads(localmel("kb", "show", "Q1", "--kb", kb, "--json").stdout)
    assert shown["description"] == "basketball player"
    assert [(one["source"], one["text"]) for one in shown["texts"]] == [
        ("abstract", "Michael Jordan (born 1963) plays.")
    ]
    assert "abstract " in localmel("kb", "show", "Q1", "--kb", kb).stdout
    plain = localmel("kb", "abstracts", kb, tmp_path / "a.jsonl")
    assert "about no entity of the KB" in plain.stdout


def test_written_texts_say_who_wrote_them_and_what_no_source_has(localmel: Run, kb: Path, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        {"contains": "Michael Jordan", "answer": answer("Michael Jordan met Einstein in 1999.")},
        {"contains": "A source says", "answer": answer("Jordan is a country.")},
        {"contains": "Chicago Bulls", "problem": "the model gave up"},
        {"answer": answer("Jordan is unknown.", known=False)},
    )
    command = ["kb", "describe", kb, "--engine", "scripted", "--engine-weights", path]
    done = localmel(*command, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["asked"], found["written"], found["unknown"], found["with_text"]) == (3, 2, 1, 1)
    assert [(one["entity_id"], one["names"], one["years"]) for one in found["doubtful"]] == [
        ("Q1", ["Einstein"], ["1999"])
    ]
    assert found["unwritten"] == [{"entity_id": "Q3", "problem": "the model gave up"}]
    page = localmel("kb", "show", "Q1", "--kb", kb).stdout
    assert "written by scripted; unsupported: Einstein, 1999" in page
    again = localmel(*command, "--only-missing")
    assert again.returncode == 0
    assert "skipped, already described" in again.stdout
    assert "Q3: the model gave up" in again.stderr
    counts = json.loads(localmel("kb", "texts", kb, "--json").stdout)["texts"]
    assert counts == [{"source": "written", "model": "scripted", "entities": 2, "doubtful": 1}]
    encoded = localmel("kb", "texts", kb, "--encode", "written")
    assert encoded.returncode == 0, encoded.stderr
    assert "written: 2 texts encoded" in encoded.stdout
    assert (kb / "vectors" / "all-MiniLM-L6-v2.written" / "manifest.json").is_file()


def test_a_killed_run_goes_on_and_sends_nothing_twice(
    localmel: Run, environment: dict[str, str], tables: Callable[..., list[Any]], tmp_path: Path
) -> None:
    entities = [{"id": f"Q{n}", "label": f"Name {n}"} for n in range(40)]
    kb = made(tmp_path / "many", tables, entities)
    path = script(tmp_path, {"answer": answer("Something."), "seconds": 0.05})
    command = ["kb", "describe", str(kb), "--engine", "scripted", "--engine-weights", str(path), "--json"]
    journal = kb / "journals" / "describe.jsonl"
    running = subprocess.Popen([sys.executable, "-m", "localmel.cli", *command], env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 200
    while running.poll() is None and time.monotonic() < deadline:
        if journal.exists() and len(journal.read_bytes().splitlines()) > 6:
            break
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it was killed before it was done"
    before = len(journal.read_bytes().splitlines()) - 1
    done = localmel(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["written"] == found["answers"] == 40
    assert 40 - found["answers_now"] in (before, before - 1), "but for a line that was cut off, all is taken over"
    keys = [json.loads(line).get("key") for line in journal.read_bytes().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == 40
    assert json.loads(localmel(*command, cwd=tmp_path).stdout)["answers_now"] == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["abstracts", "KB", "absent.jsonl"], 3, "cannot read absent.jsonl"),
        (["abstracts", "starter", "a.jsonl"], 3, "cannot change the starter KB"),
        (["abstracts", "KB", "a.jsonl", "--most", "5"], 2, "too few for an abstract"),
        (["describe", "KB", "--profile", "embedded"], 2, "profile 'embedded' has no language model"),
        (["describe", "KB", "--engine", "scripted", "--id", "Q77"], 3, "has no entity 'Q77'"),
        (["describe", "KB", "--engine", "oracle"], 2, "engine 'oracle'"),
        (["texts", "KB", "--encode", "luck"], 2, "there is no source of texts 'luck'"),
        (["texts", "KB", "--encode", "written"], 3, "has no descriptions that a model wrote"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_has_its_exit_code_and_no_traceback(
    localmel: Run, kb: Path, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "Q1", "abstract": "x"}\n')
    done = localmel("kb", *(str(kb) if one == "KB" else one for one in options), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
