"""The grid with real models of random weights, two that see and two that choose: killed, with one that cannot load."""

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
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
N = 6
PROFILE = """
extends = "tiny"
name = "tiny-transformers"
[generate.model]
engine = "transformers"
at_once = 2
context = 4096
[rerank]
most_candidates = 6
[rerank.model]
engine = "transformers"
context = 4096
"""

pytestmark = [pytest.mark.slow(reason="starts seven workers with torch and a model each"), pytest.mark.timeout(1800)]


@pytest.fixture
def place(home: Path, tmp_path: Path, tiny_models: Callable[[str], Path]) -> Path:
    """The first shipped examples, a profile, and links to the models; one of them is of a kind that nobody knows."""
    lines = (EXAMPLES / "examples.jsonl").read_text(encoding="utf-8").splitlines()[:N]
    (tmp_path / "data").mkdir()
    for line in lines:
        picture = Path(json.loads(line)["image"])
        (tmp_path / "data" / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES / picture, tmp_path / "data" / picture)
    rows = "\n".join(lines).replace('"text":', '"sentence":')
    (tmp_path / "data" / "pictures-val.jsonl").write_text(rows + "\n", encoding="utf-8")
    (tmp_path / "tiny.toml").write_text(PROFILE, encoding="utf-8")
    for name in ("tiny-llava-mistral", "tiny-qwen-vl", "tiny-llama", "tiny-qwen2"):
        (tmp_path / name).symlink_to(tiny_models(name))
    broken = shutil.copytree(tiny_models("tiny-llama"), tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(
        json.dumps(config | {"model_type": "nobody-knows", "architectures": ["Nobody"]})
    )
    return tmp_path


def test_four_cells_of_tiny_models_and_one_that_cannot_load(
    localmel: Run, environment: dict[str, str], place: Path
) -> None:
    models = ["--vlm", "./tiny-llava-mistral", "--vlm", "./tiny-qwen-vl", "--llm", "./tiny-llama"]
    more = ["--data", "data", "--kb", "starter", "--profile", "./tiny.toml", "--out", "grid"]
    command = ["compare", *models, "--llm", "./tiny-qwen2", *more]
    planned = json.loads(localmel(*command, "--dry-run", "--json", cwd=place, seconds=900).stdout)["work"]

    first = place / "grid" / "cells" / "tiny-llava-mistral+tiny-llama" / "evaluate"
    process = subprocess.Popen(
        [sys.executable, "-m", "localmel.cli", *command],
        env=environment, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 900
    while process.poll() is None and not first.is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()

    done = localmel(*command, "--llm", "./broken", "--json", cwd=place, seconds=900)
    assert done.returncode in (3, 6), done.stderr
    assert "2 of 6 cells failed: tiny-llava-mistral+broken" in json.loads(done.stderr.splitlines()[-1])["error"]
    found = json.loads(done.stdout)
    cells = [f"{vlm}+{llm}" for vlm in ("tiny-llava-mistral", "tiny-qwen-vl") for llm in ("tiny-llama", "tiny-qwen2")]
    assert list(found["datasets"]["pictures"]["systems"]) == cells
    for name in cells:
        costs = found["systems"][name]["costs"]
        assert costs["image_tokens"] > 0
        assert costs["prompt_tokens"] > costs["image_tokens"]
        assert costs["peak_memory_bytes"] > 1e8
        assert costs["device"] == "CPU"
        assert costs["first_token_seconds"] > 0
    estimated = {f"{one['stage']} {one['name']}": one["tokens"] for one in planned}
    for vlm in ("tiny-llava-mistral", "tiny-qwen-vl"):
        manifest = json.loads((place / "grid" / "vlms" / vlm / "generate" / "manifest.json").read_text())
        told = estimated[f"generate {vlm}"]
        assert told["counted"]
        per_request = manifest["figures"]["prompt_tokens"] / manifest["figures"]["answers"]
        assert told["prompt"] / told["requests"] == pytest.approx(per_request, rel=0.2)


@pytest.mark.vllm
def test_two_cells_through_vllm_and_nothing_is_asked_again(localmel: Run, place: Path) -> None:
    (place / "vllm.toml").write_text('extends = "tiny"\nname = "tiny-vllm"\n[rerank]\nmost_candidates = 6\n')
    models = ["--vlm", "./tiny-llava-mistral", "--llm", "./tiny-llama", "--llm", "none"]
    command = ["compare", *models, "--data", "data", "--kb", "starter", "--profile", "./vllm.toml", "--out", "grid"]
    done = localmel(*command, "--json", cwd=place, seconds=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["datasets"]["pictures"]["systems"]) == [
        "tiny-llava-mistral+tiny-llama",
        "tiny-llava-mistral+none",
    ]
    for cell in found["systems"].values():
        assert cell["costs"]["prompt_tokens"] > cell["costs"]["image_tokens"] > 0
    again = localmel(*command, "--json", cwd=place, seconds=120)
    assert (again.returncode, json.loads(again.stdout)) == (0, found)
    assert "nothing to do" in again.stderr
