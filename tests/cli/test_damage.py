"""Files of a KB that were overwritten: said with exit code 6, mended by the command that is named, never served."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.kb.store import KnowledgeBase

RunLocalmel = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def copy(starter: KnowledgeBase, tmp_path: Path) -> Path:
    return Path(shutil.copytree(starter.folder, tmp_path / "kb copy"))


ENCODES = pytest.mark.slow(reason="encodes every text of the starter KB anew")


def overwrite(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * length)


@pytest.mark.parametrize(
    "name", ["packed/packed.safetensors", pytest.param("vectors/all-MiniLM-L6-v2/vectors.safetensors", marks=ENCODES)]
)
def test_damage_that_keeps_the_size_is_seen_and_mended_by_the_hint(
    localmel: RunLocalmel, copy: Path, name: str
) -> None:
    overwrite(copy / name, 9000, 5000)
    done = localmel("link", "-", "Jordan dunks", "--kb", copy, "--json")
    assert done.returncode == 6
    hint = json.loads(done.stderr.strip().splitlines()[-1])["hint"]
    assert hint == f"localmel index '{copy}'"
    assert localmel("index", copy).returncode == 0
    assert localmel("link", "-", "Jordan dunks", "--kb", copy).returncode == 0


def test_a_damaged_database_is_said_by_every_command_that_reads_it(localmel: RunLocalmel, copy: Path) -> None:
    overwrite(copy / "kb.sqlite", 8192, 200_000)
    for arguments in (["kb", "export", copy, copy / "out"], ["kb", "info", copy]):
        done = localmel(*arguments)
        assert done.returncode == 6, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", [pytest.param("kb.sqlite", marks=ENCODES), "packed", pytest.param("vectors", marks=ENCODES)]
)
def test_the_starter_kb_is_made_again_when_a_part_of_it_is_gone(
    localmel: RunLocalmel, starter: KnowledgeBase, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(starter.folder, tmp_path / "home" / "kb" / starter.folder.name))
    gone = folder / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    done = localmel("link", "-", "Jordan dunks", "--json", more={"LOCALMEL_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["links"][0]["mention"]["surface"] == "Jordan"


@ENCODES
def test_one_broken_kb_does_not_hide_the_others(localmel: RunLocalmel, tmp_path: Path) -> None:
    broken = tmp_path / "home" / "kb" / "broken"
    broken.mkdir(parents=True)
    (broken / "kb.sqlite").write_bytes(b"no database" * 500)
    done = localmel("kb", "info", "--json", more={"LOCALMEL_HOME": str(tmp_path / "home")})
    assert done.returncode == 0
    listed = {facts["name"]: facts for facts in json.loads(done.stdout)}
    assert listed["starter"]["entities"] > 400
    assert "error" in listed["broken"]
