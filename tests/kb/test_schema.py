"""A KB is checked when it is opened, and what SQLite reports comes out as an error of ours."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from localmel.errors import BadInput, CorruptArtifact, KbBusy, LocalmelError, OutOfSpace
from localmel.kb.schema import DATABASE, VERSION, connect, create, translated
from localmel.kb.store import KnowledgeBase
from tests.kb.conftest import in_mount_namespace


def set_version(folder: Path, version: int) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def test_a_kb_from_a_newer_schema_asks_for_a_newer_localmel(make_kb: Callable[[], Path]) -> None:
    folder = make_kb()
    set_version(folder, VERSION + 1)
    with pytest.raises(CorruptArtifact, match=f"schema version {VERSION + 1}; this localmel reads version") as caught:
        KnowledgeBase(folder)
    assert caught.value.hint == "pip install --upgrade localmel"
    assert caught.value.exit_code == 6


def test_a_kb_from_an_older_schema_is_to_be_built_anew(make_kb: Callable[[], Path]) -> None:
    folder = make_kb()
    set_version(folder, VERSION - 1)
    with pytest.raises(CorruptArtifact, match="schema version") as caught:
        KnowledgeBase(folder)
    assert "--replace" in caught.value.hint


def test_a_database_of_somebody_else_is_no_kb(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("CREATE TABLE meta(key)")
    with pytest.raises(CorruptArtifact, match="not a localmel KB"):
        KnowledgeBase(tmp_path)


@pytest.mark.parametrize("content", [b"", b"SQLite", b"hello" * 5000, bytes(100_000)])
def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(CorruptArtifact) as caught:
        KnowledgeBase(tmp_path)
    assert caught.value.hint


def read_everything(folder: Path) -> None:
    with closing(KnowledgeBase(folder)) as kb:
        kb.facts()
        for entity in kb.all_entities():
            kb.triples(entity.id)


def test_damaged_bytes_anywhere_are_reported_or_harmless_and_never_another_error(make_kb: Callable[[], Path]) -> None:
    folder = make_kb()
    whole = (folder / DATABASE).read_bytes()
    dice = random.Random(0)
    reported = 0
    for _ in range(80):
        start = dice.randrange(0, len(whole) - 600)
        damaged = whole[:start] + dice.randbytes(600) + whole[start + 600 :]
        (folder / DATABASE).write_bytes(damaged)
        try:
            read_everything(folder)
        except LocalmelError:
            reported += 1
    assert reported >= 10


def test_a_truncated_kb_is_corrupt(make_kb: Callable[[], Path]) -> None:
    folder = make_kb()
    whole = (folder / DATABASE).read_bytes()
    for share in (0.2, 0.5, 0.9):
        (folder / DATABASE).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CorruptArtifact):
            read_everything(folder)


def test_a_refused_database_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"hello" * 5000)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(CorruptArtifact):
            connect(tmp_path / DATABASE, writable=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_name_with_characters_of_a_url_opens(make_kb: Callable[..., Path]) -> None:
    with closing(KnowledgeBase(make_kb(name="50% ünder? #1 & co"))) as kb:
        assert len(kb) == 21


def test_a_database_cannot_be_created_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot open"):
        create(tmp_path / "absent" / DATABASE, tmp_path / DATABASE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_BUSY", KbBusy),
        ("SQLITE_BUSY_SNAPSHOT", KbBusy),
        ("SQLITE_LOCKED", KbBusy),
        ("SQLITE_FULL", OutOfSpace),
        ("SQLITE_IOERR_WRITE", OutOfSpace),
        ("SQLITE_CORRUPT_INDEX", CorruptArtifact),
        ("SQLITE_NOTADB", CorruptArtifact),
        ("SQLITE_IOERR_READ", CorruptArtifact),
        ("SQLITE_READONLY", BadInput),
        ("SQLITE_CANTOPEN", BadInput),
        ("SQLITE_ERROR", CorruptArtifact),
        ("", CorruptArtifact),
    ],
)
def test_each_report_of_sqlite_has_its_error_with_a_next_command(name: str, kind: type[LocalmelError]) -> None:
    error = sqlite3.OperationalError("as it says")
    if name:
        error.sqlite_errorname = name
    ours = translated(error, Path("/kb/wiki/kb.sqlite"))
    assert type(ours) is kind
    assert "/kb/wiki/kb.sqlite" in ours.fact
    assert ours.hint


def test_a_kb_on_a_read_only_medium_reads_and_refuses_to_be_written(make_kb: Callable[[], Path], root: Path) -> None:
    folder = make_kb()
    script = (
        "import pathlib, sys\n"
        "from localmel.errors import BadInput\n"
        "from localmel.kb.store import KnowledgeBase\n"
        "from localmel.kb.write import build_kb, remove_from_kb\n"
        "from localmel.kb.importers import Problems, TablesSource\n"
        "folder, problems = pathlib.Path(sys.argv[1]), Problems()\n"
        "kb = KnowledgeBase(folder)\n"
        "print(kb.entity('Q90').label, len(kb.triples('Q90')), kb.facts().entities)\n"
        "for change in (lambda: remove_from_kb(folder, ['Q90']),\n"
        "               lambda: build_kb(folder / 'other', TablesSource(problems=problems), problems)):\n"
        "    try: change()\n"
        "    except BadInput as error: print(type(error).__name__, error.fact)\n"
    )
    mount = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}" && exec "$@"'
    done = in_mount_namespace(mount, script, folder, root)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Paris 1 21"
    assert lines[1].startswith("BadInput")
    assert "cannot open" in lines[1]
    assert lines[2].startswith("BadInput")
    assert "Read-only file system" in lines[2]
