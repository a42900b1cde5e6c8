"""Packages are tried in a process of their own: whatever they do there is a finding, never the end of the report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.doctor.probe import Probe, Probed


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules that misbehave, each in its way."""
    bodies = {
        "fine": "",
        "talks": "import sys\nprint('@localmel-probe {', end='')\nsys.stderr.write('noise')",
        "raises": "raise RuntimeError('no such operator')",
        "broken": "def f(:",
        "exits": "raise SystemExit(3)",
        "dies": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        "leaves": "import os\nos._exit(7)",
        "hangs": "import time\ntime.sleep(60)",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', Path(__file__).parents[2])}")
    return tmp_path


def probed(*names: str, seconds: float = 30.0) -> Probed:
    probe = Probe(names, seconds=seconds)
    try:
        return probe.result()
    finally:
        probe.close()


@pytest.mark.usefixtures("modules")
def test_each_way_to_break_is_told_and_those_behind_are_tried() -> None:
    found = probed("fine", "raises", "talks", "dies", "broken", "exits", "leaves", "missing", "json")
    assert found.works == {"fine", "talks", "json"}
    assert found.broken["raises"] == "RuntimeError: no such operator"
    assert found.broken["dies"] == "importing it ends Python with signal SIGSEGV (noise)"
    assert found.broken["broken"].startswith("SyntaxError")
    assert found.broken["exits"] == "SystemExit: 3"
    assert found.broken["leaves"] == "importing it ends Python with exit code 7"
    assert found.broken["missing"].startswith("ModuleNotFoundError")
    assert found.not_reached == []


@pytest.mark.usefixtures("modules")
def test_one_that_never_returns_is_ended_and_named(in_proportion: Callable[[float], float]) -> None:
    started = time.monotonic()
    found = probed("fine", "hangs", "json", seconds=2.0)
    assert time.monotonic() - started < in_proportion(10)
    assert found.works == {"fine"}
    assert found.broken == {}
    assert found.not_reached == ["hangs", "json"]


@pytest.mark.usefixtures("modules")
def test_a_probe_that_is_closed_early_leaves_no_process() -> None:
    probe = Probe(["hangs"], seconds=60)
    process = probe._process
    assert process is not None
    probe.close()
    assert process.poll() is not None


def test_nothing_to_try_is_answered_at_once() -> None:
    assert probed() == Probed()


def test_modules_in_the_working_directory_do_not_stand_in_for_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('not the package')")
    monkeypatch.chdir(tmp_path)
    assert probed("numpy").works == {"numpy"}


FAKE_TORCH = """
from types import SimpleNamespace as Facts
version = Facts(cuda={cuda})
def init():
    {init}
cuda = Facts(
    init=init, device_count=lambda: 1, mem_get_info=lambda number: (5, 9),
    get_device_properties=lambda number: Facts(name="Card", major=8, minor=9),
)
"""


@pytest.mark.parametrize(
    ("cuda", "init", "gpus", "problem"),
    [
        ("None", "raise AssertionError", 0, ""),
        ("'13.0'", "pass", 1, ""),
        ("'13.0'", "raise RuntimeError('The NVIDIA driver on your system is too old\\nmore')", 0, "too old"),
    ],
)
def test_torch_is_asked_for_gpus_where_it_was_built_for_them(
    modules: Path, cuda: str, init: str, gpus: int, problem: str
) -> None:
    (modules / "torch.py").write_text(FAKE_TORCH.format(cuda=cuda, init=init))
    found = probed("torch")
    assert found.works == {"torch"}
    assert [gpu.capability for gpu in found.gpus or []] == ["8.9"] * gpus
    assert problem in found.cuda_problem
    assert "more" not in found.cuda_problem


@pytest.mark.slow  # imports torch in a new process: half a minute where the disk is cold or the machine busy
def test_a_torch_built_for_the_cpu_sees_no_gpu() -> None:
    torch = pytest.importorskip("torch")
    if torch.version.cuda:
        pytest.skip("this torch is built for CUDA")
    found = probed("torch", seconds=120)
    assert found.gpus == []
    assert found.cuda_problem == ""
