"""What vLLM does in processes of its own: it may lose one, and must leave none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from localmel.engines.open import open_engine
from localmel.engines.process import WorkerEngine
from localmel.engines.protocol import Request, Response
from localmel.errors import EngineStopped
from localmel.settings import EngineSettings

pytest.importorskip("vllm", reason="vLLM is not installed here")
pytestmark = pytest.mark.slow(reason="starts vLLM")
Models = Callable[[str], Path]
Asked = Callable[..., Request]


@pytest.fixture
def engine(tiny_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerEngine:
    """With the model in a process of vLLM's own, as on a GPU."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    settings = EngineSettings(engine="vllm", weights="tiny-llama", at_once=4, context=2048, timeout=500)
    opened = open_engine(settings, tiny_models("tiny-llama"), log=tmp_path / "log")
    assert isinstance(opened, WorkerEngine)
    return opened


def processes(engine: WorkerEngine) -> list[psutil.Process]:
    """The worker, and everything that it started."""
    assert engine._worker is not None
    worker = psutil.Process(engine._worker._process.pid)
    return [worker, *worker.children(recursive=True)]


def remaining(found: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run after a while."""
    _, alive = psutil.wait_procs(found, timeout=15)
    return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_where_vllm_loses_its_own_process_the_engine_stops_and_answers_stay(
    engine: WorkerEngine, asked: Asked, in_proportion: Callable[[float], float]
) -> None:
    seen: list[Response] = []
    with engine:
        generating = engine.generate(asked(number, f"Tell {number}", max_tokens=24) for number in range(200))
        seen.append(next(generating))
        running = processes(engine)
        core = [one for one in running if "EngineCore" in one.name() or "EngineCore" in " ".join(one.cmdline())]
        assert core, [one.name() for one in running]
        core[0].kill()
        started = time.monotonic()
        with pytest.raises(EngineStopped, match="tiny-llama with vllm was ended by") as stop:
            seen += list(generating)
        assert time.monotonic() - started < in_proportion(30)
        assert "vLLM's own process ended" in stop.value.fact
        assert all(one.finish in ("stop", "length") for one in seen)
        assert remaining(running) == []


def test_closing_ends_every_process_of_vllm(engine: WorkerEngine, asked: Asked) -> None:
    with engine:
        assert len(list(engine.generate([asked(1, "Tell", max_tokens=3)]))) == 1
        running = processes(engine)
        assert len(running) > 2
        assert os.getpgid(running[1].pid) == running[0].pid
    assert remaining(running) == []
