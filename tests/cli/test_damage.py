"""Files of a KB that were overwritten: said with exit code 6, mended by the command that is named, never served."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.kb import locate
from localmel.kb.store import KnowledgeBase

RunLocalmel = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def copy(starter: KnowledgeBase, tmp_path: Path) -> Path:
    return Path(shutil.copytree(starter.folder, tmp_path / "kb copy"))


@pytest.fixture(scope="module")
def small(localmel: RunLocalmel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a starter KB of some dozens of entities, whose texts are encoded in seconds, and the KB, built."""
    whole, files, home = locate._STARTER_FILES, tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("home")
    rows = (whole / "entities.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = [row for number, row in enumerate(rows) if number < 20 or "Jordan" in row]
    (files / "entities.jsonl").write_text("".join(chosen), encoding="utf-8")
    head, *triples = (whole / "triples.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    ids = {json.loads(row)["id"] for row in chosen}
    of_these = [row for row in triples if row.split("\t")[0] in ids]
    (files / "triples.tsv").write_text("".join([head, *of_these]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate, "_STARTER_FILES", files)
        linked = localmel("link", "-", "Jordan dunks", more={"LOCALMEL_HOME": str(home)})
    assert linked.returncode == 0, linked.stderr
    (folder,) = (home / "kb").glob("starter-*")
    return files, folder


@pytest.fixture
def small_starter(small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That KB in a home of the test's own, for a package that comes with its files."""
    monkeypatch.setattr(locate, "_STARTER_FILES", small[0])
    return Path(shutil.copytree(small[1], tmp_path / "home" / "kb" / small[1].name))


def overwrite(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * length)


@pytest.mark.parametrize("name", ["packed/packed.safetensors", "vectors/all-MiniLM-L6-v2/vectors.safetensors"])
def test_damage_that_keeps_the_size_is_seen_and_mended_by_the_hint(
    localmel: RunLocalmel, small_starter: Path, tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(small_starter, tmp_path / "kb copy"))
    assert (copy / name).stat().st_size > 14_000
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


@pytest.mark.parametrize("name", ["kb.sqlite", "packed", "vectors"])
def test_the_starter_kb_is_made_again_when_a_part_of_it_is_gone(
    localmel: RunLocalmel, small_starter: Path, tmp_path: Path, name: str
) -> None:
    gone = small_starter / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    done = localmel("link", "-", "Jordan dunks", "--json", more={"LOCALMEL_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["links"][0]["mention"]["surface"] == "Jordan"


def test_one_broken_kb_does_not_hide_the_others(localmel: RunLocalmel, starter: KnowledgeBase, tmp_path: Path) -> None:
    shutil.copytree(starter.folder, tmp_path / "home" / "kb" / starter.folder.name)
    broken = tmp_path / "home" / "kb" / "broken"
    broken.mkdir()
    (broken / "kb.sqlite").write_bytes(b"no database" * 500)
    done = localmel("kb", "info", "--json", more={"LOCALMEL_HOME": str(tmp_path / "home")})
    assert done.returncode == 0
    listed = {facts["name"]: facts for facts in json.loads(done.stdout)}
    assert listed["starter"]["entities"] > 400
    assert "error" in listed["broken"]
