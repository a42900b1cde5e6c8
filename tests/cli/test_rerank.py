"""`localmel retrieve` and `localmel rerank` from end to end, with a scripted model: made once, counted, calibrated."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
KB = ("--kb", "starter", "--profile", "embedded")
SCRIPTED = ("--engine", "scripted", "--engine-weights", "made-up")
N = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of the starter KB, each in a sentence of its own; every tenth means nobody in it."""
    from localmel.kb.locate import _STARTER_FILES

    folder = tmp_path_factory.mktemp("rerank") / "data"
    folder.mkdir()
    rows = [json.loads(line) for line in (_STARTER_FILES / "entities.jsonl").read_text().splitlines()[: 3 * N : 3]]
    for split in ("val", "test"):
        lines = [
            {
                "id": f"{split}-{number}",
                "sentence": f"A picture of {row['label']}, the {split}.",
                "mention": row["label"],
                "answer": None if number % 10 == 0 else row["id"],
            }
            for number, row in enumerate(rows)
        ]
        (folder / f"starters-{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def place(localmel: Run, data: Path) -> Path:
    """Where a run called val is retrieved and reranked."""
    folder = data.parent
    done = localmel("retrieve", data, "--run", "val", *KB, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["mentions"], figures["made"], figures["folder"]) == (N, True, "runs/val/retrieve")
    done = localmel("rerank", data, "--run", "val", *KB, *SCRIPTED, "--orders", "2", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_is_reranked_once_and_reported_as_often_as_one_likes(localmel: Run, data: Path, place: Path) -> None:
    done = localmel("rerank", data, "--run", "val", *KB, *SCRIPTED, "--orders", "2", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "nothing to do: runs/val/rerank already has the links of this run" in done.stderr
    found = json.loads(done.stdout)
    assert (found["mentions"], found["failed_open"], found["orders"]) == (N, 0, 2)
    assert (found["made"], found["answers_now"], found["answers_per_second"]) == (False, 0, 0.0)
    assert found["requests"] >= N
    assert found["before"]["hits@1"]["value"] > 0.8 > found["after"]["hits@1"]["value"]
    assert found["difference"]["spoiled"] > 10
    assert 0 <= found["position_bias"]["agreement"] < 1
    assert found["prompt_tokens"] > 0
    links = [json.loads(line) for line in (place / "runs" / "val" / "rerank" / "links.jsonl").read_text().splitlines()]
    assert len(links) == N
    assert all(link["entity"] is None or link["entity"] == link["candidates"][0]["id"] for link in links)

    report = localmel("rerank", data, "--run", "val", "--report", "--json", cwd=place)
    assert json.loads(report.stdout) == found
    without_gold = json.loads(localmel("rerank", "--run", "val", "--report", "--json", cwd=place).stdout)
    assert without_gold == {key: value for key, value in found.items() if key in without_gold}
    assert "before" not in without_gold


def test_a_run_is_evaluated_by_its_name_and_can_then_be_compared(localmel: Run, data: Path, place: Path) -> None:
    def evaluated(*more: str | Path) -> Any:
        return localmel("eval", data, "--kb", "starter", "--run", "val", "--json", *more, cwd=place)

    done = evaluated()
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)["datasets"]["starters"]["systems"]["models"]["slices"]["all"]
    report = json.loads(localmel("rerank", data, "--run", "val", *KB, "--report", "--json", cwd=place).stdout)
    assert whole["metrics"]["hits@1"]["value"] == pytest.approx(report["after"]["hits@1"]["value"], abs=1e-6)
    assert whole["n"] == N
    manifest = json.loads((place / "runs" / "val" / "evaluate" / "manifest.json").read_text())
    assert manifest["inputs"]["profile"]["rerank"]["orders"] == 2
    assert manifest["inputs"]["models"]["rerank"]["name"] == "made-up"
    again = evaluated()
    assert again.stdout == done.stdout
    assert "nothing to do: runs/val/evaluate already has this evaluation" in again.stderr
    names = localmel("eval", data, "--kb", "starter", "--system", "names", "--out", "names", cwd=place)
    assert names.returncode == 0, names.stderr
    both = localmel("compare", "./names", "runs/val", "--out", "both", "--json", cwd=place)
    assert both.returncode == 0, both.stderr
    other = evaluated("--split", "test", "--system", "names")
    failed(other, 2, "--split, --system cannot be chosen for a run that has answered")
    failed(evaluated("--run", "none"), 3, "runs/none")
    chosen = place / "runs" / "val" / "rerank"
    chosen.rename(chosen.with_name("elsewhere"))
    try:
        failed(evaluated(), 3, "cannot evaluate runs/val: its stage rerank has answers but is not finished")
    finally:
        chosen.with_name("elsewhere").rename(chosen)


def test_a_run_over_other_mentions_is_not_evaluated(localmel: Run, data: Path, place: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    other.mkdir()
    lines = (data / "starters-val.jsonl").read_text().splitlines(keepends=True)
    (other / "starters-val.jsonl").write_text("".join(lines[:-1]))
    done = localmel("eval", other, "--kb", "starter", "--run", "val", cwd=place)
    failed(done, 3, "was made from other mentions than the 59 mentions of starters, val")
    one = localmel("eval", data / "starters-val.jsonl", "--kb", "starter", "--run", "val", cwd=place)
    failed(one, 2, "is not a benchmark folder")


def test_what_a_model_said_and_the_profile_does_not_ask_for_is_told(localmel: Run, data: Path, place: Path) -> None:
    (place / "runs" / "said" / "generate").mkdir(parents=True)
    done = localmel("retrieve", data, "--run", "said/", *KB, "--limit", "1", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "profile embedded asks no model, so the answers of localmel generate in this run are not used" in done.stderr


def test_for_people_there_are_tables(localmel: Run, data: Path, place: Path) -> None:
    done = localmel("rerank", data, "--run", "val", "--report", "--route", cwd=place)
    assert done.returncode == 0, done.stderr
    for words in ("the model was asked about", "HITS@1", "corrected", "by chance", "have to change", "route_from"):
        assert words in done.stdout


def test_the_curve_of_routing_ends_at_both_systems(localmel: Run, data: Path, place: Path) -> None:
    found = json.loads(localmel("rerank", data, "--run", "val", "--report", "--route", "--json", cwd=place).stdout)
    every, *_, none = found["route"]
    assert (every["route_from"], every["asked"], none["asked"]) == (0.0, 1.0, 0.0)
    assert every["hits_at_1"] == pytest.approx(found["after"]["hits@1"]["value"], abs=1e-6)
    assert none["hits_at_1"] == pytest.approx(found["before"]["hits@1"]["value"], abs=1e-6)


def test_a_calibration_is_fitted_on_val_and_used_and_never_on_test(localmel: Run, data: Path, place: Path) -> None:
    fit = ("--report", "--fit-calibration", "calibration.json", "--isotonic")
    done = localmel("rerank", data, "--run", "val", *fit, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    fitted = json.loads(done.stdout)["calibration"]
    assert fitted["after"]["ece"] < fitted["before"]["ece"]
    saved = json.loads((place / "calibration.json").read_text())
    assert (saved["fitted_on"]["split"], saved["temperature"]) == ("val", fitted["temperature"])

    assert localmel("retrieve", data, "--run", "test", *KB, "--split", "test", cwd=place).returncode == 0
    used = ("--orders", "2", "--calibration", "calibration.json")
    done = localmel("rerank", data, "--run", "test", *KB, *SCRIPTED, *used, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calibrated"]
    failed(localmel("rerank", data, "--run", "test", *fit, cwd=place), 3, "only val is allowed")
    other = localmel("rerank", data, "--run", "val", *KB, *SCRIPTED, *used[2:], cwd=place)
    failed(other, 3, "differs in orders")


def failed(done: Any, code: int, words: str) -> None:
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--run", "none", *KB, *SCRIPTED), 3, "has no finished stage 'retrieve'"),
        (("--run", "val", *SCRIPTED), 2, "no KB given"),
        (("--run", "val", *KB), 2, "asks no model to choose"),
        (("--run", "val", "--report", "--route"), 2, "need DATA"),
        (
            ("--run", "val", *KB, *SCRIPTED, "--calibration", "no.json"),
            3,
            "cannot load calibration: no.json does not exist",
        ),
        (("nowhere", "--run", "val", "--report"), 3, "cannot look into nowhere"),
    ],
)
def test_what_cannot_be_done_says_what_can(
    localmel: Run, place: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    failed(localmel("rerank", *options, cwd=place), code, words)


def test_retrieving_over_a_kb_that_is_not_there_is_refused(localmel: Run, data: Path, tmp_path: Path) -> None:
    failed(localmel("retrieve", data, "--run", tmp_path / "run", "--kb", "nobody"), 3, "there is no KB 'nobody'")


def test_a_killed_run_goes_on_where_it_stopped_and_ends_as_if_nothing_had_happened(
    localmel: Run, environment: dict[str, str], place: Path
) -> None:
    (place / "slow.jsonl").write_text('{"answer": "B", "seconds": 0.03}\n')
    for name in ("killed", "whole"):
        shutil.copytree(place / "runs" / "val" / "retrieve", place / "runs" / name / "retrieve")
    options = [*KB, "--engine", "scripted", "--engine-weights", "./slow.jsonl", "--orders", "2", "--json"]
    whole = localmel("rerank", "--run", "whole", *options, cwd=place)
    assert whole.returncode == 0, whole.stderr
    journal = place / "runs" / "killed" / "journals" / "rerank.jsonl"
    for more in (7, 31):
        before = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-m", "localmel.cli", "rerank", "--run", "killed", *options],
            env=environment, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.stat().st_size > before + 200 * more:
                break
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (place / "runs" / "killed" / "rerank").exists()
    done = localmel("rerank", "--run", "killed", *options, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "going on: " in done.stderr
    found, expected = json.loads(done.stdout), json.loads(whole.stdout)
    assert 0 < found["answers_now"] < expected["answers_now"] == found["requests"]
    for name in ("links.jsonl", "choices.jsonl"):
        one, other = (place / "runs" / run / "rerank" / name for run in ("killed", "whole"))
        assert one.read_bytes() == other.read_bytes()
    assert len(journal.read_bytes().splitlines()) == 1 + found["requests"]
