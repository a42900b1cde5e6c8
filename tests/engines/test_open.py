"""What an engine cannot do is said before anything is loaded, with the line that helps."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.engines.open import KINDS, open_engine
from localmel.errors import LocalmelError, MissingExtra, MissingWeights, UsageError
from localmel.settings import EngineSettings

Models = Callable[[str], Path]


def refusal(folder: Path | None = None, **settings: Any) -> LocalmelError:
    with pytest.raises(LocalmelError) as caught:
        open_engine(EngineSettings(**{"engine": "transformers", "weights": "model", **settings}), folder)
    return caught.value


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        ({"engine": "ollama"}, "there is no engine 'ollama'; there are scripted, server, transformers, vllm"),
        ({"engine": ""}, "there is no engine ''"),
        ({"quantization": "awq"}, "engine 'transformers' has no quantization 'awq'; it has '', '4bit', '8bit'"),
        ({"engine": "vllm", "quantization": "8bit"}, "engine 'vllm' has no quantization '8bit'"),
        ({"dtype": "int3"}, "has no dtype 'int3'"),
        ({"device": "tpu"}, "has no device 'tpu'"),
        ({"at_once": 0}, "at_once is 0"),
        ({"longest_side": 0}, "longest_side is 0"),
        ({"memory_share": 1.5}, "memory_share is 1.5"),
        ({"tensor_parallel": 2}, "engine 'transformers' runs on one device"),
        ({}, "engine 'transformers' needs the folder of 'model'"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(settings: dict[str, Any], fact: str) -> None:
    if settings.get("engine") == "vllm" and importlib.util.find_spec("vllm") is None:
        settings = {**settings}
    error = refusal(**settings)
    assert isinstance(error, UsageError)
    assert fact in error.fact


@pytest.mark.parametrize(
    ("engine", "absent", "hint"),
    [
        ("vllm", "vllm", "pip install 'localmel[vllm]'"),
        ("transformers", "xgrammar", "pip install 'localmel[transformers]'"),
        ("server", "httpx2", "pip install 'localmel[server]'"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_pip_line(
    engine: str, absent: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == absent else find(name))
    error = refusal(engine=engine)
    assert isinstance(error, MissingExtra)
    assert f"engine '{engine}' needs" in error.fact
    assert absent in error.fact
    assert error.hint == hint
    assert error.exit_code == 5


def test_bits_need_bitsandbytes_and_on_vllm_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    known = {"vllm", "bitsandbytes"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: find("json") if name in known else find(name))
    error = refusal(engine="vllm", quantization="4bit")
    assert isinstance(error, MissingExtra)
    assert error.hint == "pip install vllm-bnb-plugin"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "bitsandbytes" else find("json"))
    error = refusal(quantization="4bit")
    assert isinstance(error, MissingExtra)
    assert error.hint == "pip install 'localmel[quant]'"


@pytest.fixture
def llama(tmp_path: Path, tiny_models: Models) -> Path:
    return Path(shutil.copytree(tiny_models("tiny-llama"), tmp_path / "llama"))


def quantised(folder: Path, method: str) -> Path:
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), "quantization_config": {"quant_method": method}}
    path.write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_a_quantisation_that_the_weights_do_not_have_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: find("json") if name == "vllm" else find(name))
    error = refusal(llama, engine="vllm", quantization="awq")
    assert f"the weights in {llama} are not quantised" in error.fact
    error = refusal(quantised(llama, "gptq"), engine="vllm", quantization="awq")
    assert "are quantised as 'gptq'" in error.fact
    open_engine(EngineSettings(engine="vllm", weights="llama", quantization="gptq"), llama).close()


def test_quantised_weights_are_not_quantised_again(llama: Path) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed here")
    error = refusal(quantised(llama, "awq"), quantization="4bit")
    assert "are already quantised as 'awq'" in error.fact


def test_a_context_longer_than_the_model_was_made_for_is_refused(llama: Path) -> None:
    error = refusal(llama, context=8193)
    assert error.fact == "context is 8,193; llama was made for 8,192"
    assert error.hint == "context = 8192"


def test_half_a_model_is_refused_before_a_worker_is_started(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    assert isinstance(refusal(llama), MissingWeights)


def test_opening_imports_nothing_heavy(tiny_models: Models) -> None:
    """Neither the engine's own packages nor torch: they belong to the worker."""
    code = (
        "import sys; from pathlib import Path\n"
        "from localmel.engines.open import open_engine; from localmel.settings import EngineSettings\n"
        "with open_engine(EngineSettings(engine='transformers', weights='m'), Path(sys.argv[1])) as engine:\n"
        "    print(engine.facts().revision)\n"
        "print(' '.join(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, str(tiny_models("tiny-llama"))]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64
    assert {"torch", "transformers", "PIL", "xgrammar", "vllm"}.isdisjoint(done.stderr.split())


def test_every_kind_has_a_pip_line_for_what_it_needs() -> None:
    assert all(bool(kind.pip) == bool(kind.modules) for kind in KINDS.values())
