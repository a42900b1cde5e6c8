"""One engine of each kind over the same tiny checkpoint, opened once and asked by every test of the contract.

vLLM, and `vllm serve` on loopback, run where vLLM is installed; elsewhere their tests are skipped and say so."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from localmel.engines.open import open_engine
from localmel.engines.protocol import Engine, Message, Request
from localmel.settings import OFFLINE, EngineSettings

KINDS = ("scripted", "transformers", "vllm", "server")
MODEL = "tiny-llava-mistral"
CONTEXT = 4096
HAS_VLLM = importlib.util.find_spec("vllm") is not None
WITHOUT_VLLM = "vLLM is not installed here"
SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"enum": ["person", "city", "event"]},
        "triples": {
            "type": "array",
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {
                    "relation": {"enum": ["occupation", "country", "part of"]},
                    "tail": {"type": "string", "minLength": 1, "maxLength": 12},
                },
                "required": ["relation", "tail"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["type", "triples"],
    "additionalProperties": False,
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"For models this small, threads that wait for one another on a busy machine cost more than everything else."
Asked = Callable[..., Request]
Models = Callable[[str], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A vLLM takes up to a minute to start, so what needs one is slow."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("kind") in ("vllm", "server"):
            item.add_marker(pytest.mark.slow(reason="starts vLLM"))


def request_of(number: object, *parts: str | Path, system: str = "", **constraint: Any) -> Request:
    """One question of the user, behind what the system says."""
    messages = [Message(role="system", parts=(system,))] if system else []
    return Request(id=str(number), messages=(*messages, Message(role="user", parts=parts)), **constraint)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Workers and servers compute on one thread."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ONE_THREAD.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def asked() -> Asked:
    """`asked(7, "Who is it?", picture, schema=..., max_tokens=...)` -> a request."""
    return request_of


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    """Triples of a mention, as small as it is worth."""
    return SCHEMA


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half red, half blue, wider than high."""
    image = Image.new("RGB", (220, 130), (200, 20, 20))
    image.paste((20, 20, 200), (110, 0, 220, 130))
    path = tmp_path_factory.mktemp("pictures") / "halves.png"
    image.save(path)
    return path


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of an engine."""
    name: str = request.param
    if name in ("vllm", "server") and not HAS_VLLM:
        pytest.skip(WITHOUT_VLLM)
    return name


@pytest.fixture(scope="module")
def engine(kind: str, tiny_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine of that kind, over the same checkpoint wherever there is one."""
    settings = EngineSettings(engine=kind, weights=MODEL, context=CONTEXT, at_once=4, longest_side=336, timeout=500)
    if kind == "scripted":
        with open_engine(settings, script=script(tmp_path_factory.mktemp("script") / "answers.jsonl")) as opened:
            yield opened
    elif kind == "server":
        with served(tiny_models(MODEL), tmp_path_factory.mktemp("serve")) as url:
            settings = EngineSettings(engine=kind, weights=MODEL, at_once=4, longest_side=336, timeout=300, url=url)
            with open_engine(settings) as opened:
                yield opened
    else:
        log = tmp_path_factory.mktemp("log") / f"{kind}.log"
        with open_engine(settings, tiny_models(MODEL), log=log) as opened:
            yield opened


def script(path: Path) -> Path:
    """Words for the questions to which a valid answer cannot be made up."""
    endless = " ".join(["again"] * 5000)
    lines = [{"contains": "for ever", "answer": endless}, {"contains": "Tell", "answer": "Once there was a name."}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@contextmanager
def served(folder: Path, place: Path) -> Iterator[str]:
    """vLLM's server on a free port of loopback; its URL.  `vllm serve` runs the same module."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "host": "127.0.0.1",
        "port": port,
        "served-model-name": MODEL,
        "dtype": "float32",
        "max-model-len": CONTEXT,
        "max-num-seqs": 4,
        "kv-cache-memory-bytes": 1 << 28,
        "limit-mm-per-prompt": '{"image": 1, "video": 0}',
        "structured-outputs-config": '{"backend": "xgrammar"}',
        "load-format": "safetensors",
        "generation-config": "vllm",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", "--enforce-eager"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (place / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **OFFLINE}, stdout=log, stderr=log, start_new_session=True, cwd=place
        )
        try:
            await_server(f"http://127.0.0.1:{port}/health", process, place / "serve.log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def await_server(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 500) -> None:
    """Return when it answers; fail with its last words when it ended."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"no server after {seconds} s: {log.read_text(errors='replace')[-3000:]}")
