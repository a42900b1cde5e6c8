"""The archives hold what they should and nothing else, and the wheel alone links the examples.

The wheel goes into a new, empty environment.  Its dependencies are not downloaded again: a `.pth` file shows the new
environment the site-packages of the running one (a plain path, so an editable localmel there stays invisible)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 64 << 20
"A wheel larger than this carries something that a user brought."


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel built from it (not from the checkout)."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def names_in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def files_of_checkout(folder: str) -> set[str]:
    """What git keeps under a folder; in a copy without git, what lies there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_with_its_data(archives: tuple[Path, Path]) -> None:
    names = names_in_wheel(archives[1])
    expected = files_of_checkout("localmel")
    assert {name for name in expected if name.startswith("localmel/kb/starter/")}, "no starter KB in the checkout"
    assert {name for name in expected if name.startswith("localmel/profiles/")}, "no profiles in the checkout"
    assert expected - names == set()


@pytest.mark.parametrize("folder", ["weights", "examples"])
def test_the_wheel_holds_what_ships_beside_the_package(archives: tuple[Path, Path], folder: str) -> None:
    expected = {f"localmel/_shipped/{name}" for name in files_of_checkout(folder)}
    assert expected
    assert expected - names_in_wheel(archives[1]) == set()


def test_the_wheel_holds_nothing_else(archives: tuple[Path, Path]) -> None:
    known = files_of_checkout("localmel")
    known |= {f"localmel/_shipped/{name}" for folder in ("weights", "examples") for name in files_of_checkout(folder)}
    others = {name for name in names_in_wheel(archives[1]) - known if ".dist-info/" not in name}
    assert others == set()
    assert archives[1].stat().st_size < MOST_BYTES


def test_the_source_archive_holds_the_tests_and_scripts_and_nothing_from_outside(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert {"pyproject.toml", "LICENSE", "README.md", "scripts/demo", "scripts/setup_environment.sh"} <= names
    assert {"constraints/cpu.txt", "constraints/gpu.txt", "tests/packaging/test_wheel.py"} <= names
    assert [member.name for member in members if not (member.isfile() or member.isdir())] == []
    assert [name for name in names if ".." in name or name.startswith(("shared", ".git/", ".venv"))] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_alone_links_the_examples(archives: tuple[Path, Path], tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(archives[1])]
    subprocess.run(install, check=True, cwd=tmp_path)
    places = {"base": str(environment), "platbase": str(environment)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", vars=places))
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    outside = tmp_path / "elsewhere"
    outside.mkdir()
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["LOCALMEL_HOME"] = str(tmp_path / "home")
    where = subprocess.run(
        [python, "-c", "import localmel; print(localmel.__file__)"],
        cwd=outside,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site_packages)
    done = subprocess.run(
        [environment / "bin" / "localmel", "demo", "--json"],
        cwd=outside,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")] or json.loads(
        done.stdout
    )
    assert documents
