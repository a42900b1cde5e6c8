"""`localmel link --profile tiny`: the real path through vLLM, and through transformers, without any network.

The weights are random, so that the answers mean nothing; that they come, and come again, is what is tested."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.settings.shipped import shipped
from tests.in_process import run_in_process

ROOT = Path(__file__).resolve().parents[2]
OWN = """
name = "own"
extends = "tiny"
[generate.model]
engine = "transformers"
[rerank.model]
engine = "transformers"
"""


@pytest.fixture(scope="module")
def tiny_home(
    home: Path, tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Variables for a home with the starter KB and the weights of the profile `tiny`, adopted where they stand."""
    folder = tmp_path_factory.mktemp("tiny-home")
    shutil.copytree(home / "kb", folder / "kb")
    config = tmp_path_factory.mktemp("config")
    (config / "profiles").mkdir()
    (config / "profiles" / "own.toml").write_text(OWN, encoding="utf-8")
    variables = {"LOCALMEL_HOME": str(folder), "LOCALMEL_CONFIG": str(config), "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **variables}
    for name in ("tiny-llava-mistral", "tiny-llama"):
        adopt = ["weights", "install", "--adopt", str(tiny_models(name))]
        run_in_process(adopt, environment=environment).check_returncode()
    return environment


def link_cut_off(environment: dict[str, str], profile: str) -> dict[str, Any]:
    """What `localmel link --json` prints in a network namespace that has nothing but its loopback."""
    permitted = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0
    if not permitted:
        pytest.skip("this system permits no network namespaces (unshare -n)")
    command = [sys.executable, "-m", "localmel.cli", "link", str(shipped("examples/jersey.jpg"))]
    command += ["[[Jordan]], photographed last spring.", "--profile", profile, "--json", "--explain"]
    cut_off = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    done = subprocess.run(
        [*cut_off, *command], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def check(answer: dict[str, Any]) -> None:
    (link,) = answer["links"]
    assert link["decided_by"] == "language model"
    ids = [candidate["id"] for candidate in link["candidates"]]
    assert link["entity"] is None or link["entity"]["id"] == ids[0]
    assert len(ids) == len(set(ids)) == 16
    assert 0 <= link["probability"] <= 1
    assert not [note for note in answer["notes"] if "the model's answer cannot be used" in note], answer["notes"]


@pytest.mark.vllm
@pytest.mark.slow  # two models start in vLLM, twice: two minutes on two cores
@pytest.mark.timeout(1200)
def test_a_picture_is_linked_by_models_on_vllm_without_network_and_twice_alike(tiny_home: dict[str, str]) -> None:
    first, second = (link_cut_off(tiny_home, "tiny") for _ in range(2))
    check(first)
    assert first["links"] == second["links"]


@pytest.mark.slow  # two models start in processes of their own: half a minute on two cores
@pytest.mark.timeout(1200)
def test_a_picture_is_linked_by_models_on_transformers_without_network(tiny_home: dict[str, str]) -> None:
    pytest.importorskip("xgrammar", reason="answers are held to a schema by xgrammar (extra `transformers`)")
    answer = link_cut_off(tiny_home, "own")
    assert answer["profile"] == "own"
    check(answer)
