"""A name means a KB of this user, a path means itself, and the starter KB is built once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from localmel.errors import BadInput, UnknownKb
from localmel.kb.importers import Problems
from localmel.kb.locate import STARTER, kb_folder, list_kbs, open_kb, prepare_starter, starter_folder
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb
from localmel.settings import HOME
from tests.kb.conftest import MemorySource, new_entity


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_name_stands_under_home_and_a_path_is_itself(home: Path, make_kb: Callable[..., Path]) -> None:
    assert kb_folder("wiki") == home / "kb" / "wiki"
    assert kb_folder("Länder-2.0_x") == home / "kb" / "Länder-2.0_x"
    assert kb_folder("./wiki") == Path("wiki")
    assert kb_folder("/data/my wiki") == Path("/data/my wiki")
    make_kb(name="here")
    assert kb_folder("here") == Path("here")
    with closing(open_kb("here")) as kb:
        assert len(kb) == 21


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "two words", "a" * 101, "a" * 5000, "wiki\n", "nul\0", "\udcff", "🌍"]
)
def test_what_is_no_name_is_bad_input(name: str) -> None:
    for ask in (kb_folder, open_kb):
        with pytest.raises(BadInput, match="is not a name for a KB"):
            ask(name)


def test_the_home_of_nobody_is_bad_input() -> None:
    with pytest.raises(BadInput, match="is not a path"):
        kb_folder("~nobody-of-that-name/kb")


def test_the_name_of_the_starter_kb_is_taken() -> None:
    with pytest.raises(BadInput, match="comes with localmel"):
        kb_folder(STARTER)


def test_an_unknown_kb_is_told_with_those_there_are(home: Path) -> None:
    assert list_kbs() == [STARTER]
    for name in ("wiki", "art", "starter-kit", f"{STARTER}-0123456789"):
        build_kb(home / "kb" / name, MemorySource([new_entity("Q1", "one")]), Problems())
    (home / "kb" / "no-kb").mkdir()
    (home / "kb" / ".wiki.0a1b2c3d").mkdir()
    (home / "kb" / ".wiki.0a1b2c3d" / "kb.sqlite").touch()
    assert list_kbs() == [STARTER, "art", "starter-kit", "wiki"]
    for name in ("wikki", "/absent/kb", "x/" * 3000):
        with pytest.raises(UnknownKb, match="starter, art, starter-kit, wiki") as caught:
            open_kb(name)
        assert caught.value.hint


def test_the_starter_kb_is_built_and_indexed_once(home: Path) -> None:
    with pytest.raises(UnknownKb):
        open_kb()
    indexed: list[int] = []
    prepare_starter(lambda kb: indexed.append(len(kb)))
    prepare_starter(lambda kb: indexed.append(len(kb)))
    assert len(indexed) == 1
    assert indexed[0] >= 400
    with closing(open_kb()) as kb:
        assert kb.folder == starter_folder()
        assert kb.folder.parent == home / "kb"
        assert kb.entity("Q41421").label == "Michael Jordan"
    assert list_kbs() == [STARTER]


def test_a_starter_kb_whose_index_failed_is_made_again() -> None:
    def fail(kb: KnowledgeBase) -> None:
        raise BadInput("no weights")

    indexed: list[int] = []
    with pytest.raises(BadInput, match="no weights"):
        prepare_starter(fail)
    prepare_starter(lambda kb: indexed.append(len(kb)))
    assert len(indexed) == 1


def test_two_processes_at_once_build_the_starter_kb_once(root: Path) -> None:
    script = (
        "import time\n"
        "from localmel.kb.locate import prepare_starter\n"
        "prepare_starter(lambda kb: (print('indexed', flush=True), time.sleep(0.5)))\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert sorted(said) == ["", "", "indexed\n"]
    assert [process.returncode for process in started] == [0, 0, 0]


def test_a_home_that_cannot_be_written_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(HOME, str(tmp_path / "file" / "home"))
    with pytest.raises(BadInput, match="cannot write") as caught:
        prepare_starter(lambda kb: None)
    assert HOME in caught.value.hint
