"""The torchvision repair writes its hook where it is needed and helps, and nowhere else.

In a new environment without pip, with stand-ins for torch and torchvision that fail as the real ones do."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "repair_torchvision.py"
TORCH = """
class Operators: pass
class ops: torchvision = Operators()
class library:
    class Library:
        def __init__(self, namespace, kind): assert (namespace, kind) == ("torchvision", "FRAGMENT")
        def define(self, schema): setattr(ops.torchvision, schema.partition("(")[0], schema)
"""
MATCHING = "import torch\ntorch.ops.torchvision.nms = 'compiled'\n"
NOT_MATCHING = "import torch\nif not hasattr(torch.ops.torchvision, 'nms'): raise RuntimeError('no operator nms')\n"
BROKEN = "raise RuntimeError('nothing helps')\n"


class Environment:
    """A Python of its own, with a stand-in torch."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.site_packages = folder / "lib" / version / "site-packages"
        (self.site_packages / "torch.py").write_text(TORCH)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.python, *arguments], capture_output=True, text=True, check=False)

    def hooks(self) -> list[str]:
        return sorted(path.name for path in self.site_packages.glob("localmel_torchvision_hook.*"))

    def set_torchvision(self, source: str) -> None:
        folder = self.site_packages / "torchvision"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text(f"{source}\n# {len(source)}\n")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


def test_without_torchvision_nothing_is_written(environment: Environment) -> None:
    assert environment.run(str(SCRIPT)).returncode == 0
    assert environment.hooks() == []


def test_builds_that_match_are_left_alone(environment: Environment) -> None:
    environment.set_torchvision(MATCHING)
    assert environment.run(str(SCRIPT)).returncode == 0
    assert environment.hooks() == []


def test_a_binary_for_another_torch_becomes_importable_in_every_process(environment: Environment) -> None:
    environment.set_torchvision(NOT_MATCHING)
    assert environment.run("-c", "import torchvision").returncode != 0
    assert environment.run(str(SCRIPT)).returncode == 0
    assert environment.hooks() == ["localmel_torchvision_hook.pth", "localmel_torchvision_hook.py"]
    assert environment.run("-c", "import torchvision, torch; torch.ops.torchvision.qnms").returncode == 0
    assert environment.run("-c", "import sys; assert 'torch' not in sys.modules").returncode == 0


def test_a_hook_that_is_no_longer_needed_goes(environment: Environment) -> None:
    environment.set_torchvision(NOT_MATCHING)
    environment.run(str(SCRIPT))
    assert environment.hooks()
    environment.set_torchvision(MATCHING)
    assert environment.run(str(SCRIPT)).returncode == 0
    assert environment.hooks() == []


def test_a_torchvision_that_stays_broken_is_reported(environment: Environment) -> None:
    environment.set_torchvision(BROKEN)
    done = environment.run(str(SCRIPT))
    assert done.returncode == 1
    assert "does not load with this torch" in done.stderr
    assert environment.hooks() == []
