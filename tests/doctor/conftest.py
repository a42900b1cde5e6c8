"""Machines that this one is not: other packages, GPUs, weights and KBs, as real files that are really read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.settings import Profile, load_profile

Packages = Callable[..., Path]
Driver = Callable[[str], None]


def write_package(folder: Path, name: str, version: str, *, requires: tuple[str, ...] = (), module: str = "") -> None:
    """What pip would have written for a distribution, and the module with this content."""
    notes = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    notes.mkdir(parents=True)
    lines = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {line}" for line in requires),
    ]
    (notes / "METADATA").write_text("\n".join(lines) + "\n")
    package = folder / name.replace("-", "_")
    package.mkdir()
    (package / "__init__.py").write_text(module)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    """`packages(vllm="0.33.0", requires={"vllm": ("torch==2.14.0",)})` puts packages before those that are here."""

    def write(*, requires: dict[str, tuple[str, ...]] | None = None, **versions: str) -> Path:
        folder = tmp_path / "packages"
        for name, version in versions.items():
            name = name.replace("_", "-")
            write_package(folder, name, version, requires=(requires or {}).get(name, ()))
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        return folder

    return write


NVIDIA_SMI = "#!/bin/sh\n{answer}\n"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """`driver("echo ...")` puts an nvidia-smi on the path that does this; `driver("")` takes any away."""

    def write(answer: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        if answer:
            (folder / "nvidia-smi").write_text(NVIDIA_SMI.format(answer=answer))
            (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin" if answer else str(folder))

    return write


@pytest.fixture
def profile(tmp_path: Path) -> Callable[[str], Profile]:
    """`profile(toml)` -> the profile."""

    def load(text: str) -> Profile:
        (tmp_path / "own.toml").write_text(text, encoding="utf-8")
        return load_profile(str(tmp_path / "own.toml"))

    return load
