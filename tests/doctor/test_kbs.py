"""A KB is healthy when its database reads and what was made from it is of its present state."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.doctor.check import Check
from localmel.doctor.kbs import look_at_kbs
from localmel.encode.minilm import MiniLM
from localmel.kb.schema import DATABASE
from localmel.kb.store import KnowledgeBase
from localmel.retrieve.fused import load_network
from localmel.retrieve.indexing import index_entities
from localmel.settings import load_profile
from localmel.shipped import shipped

ENTITIES = [{"id": f"x{number}", "label": f"Ada {number}", "description": "an engineer"} for number in range(40)]
FACTS = [("x1", "employer", "x2", "Ada 2")]


def looked(kb: Path | str | None, *, thorough: bool = False, profile: str = "embedded") -> dict[str, Check]:
    name = None if kb is None else str(kb)
    return {check.id: check for check in look_at_kbs(load_profile(profile), name, thorough=thorough)}


def indexed(folder: Path, encoder: MiniLM) -> Path:
    with KnowledgeBase(folder) as kb:
        index_entities(kb, encoder, load_network(shipped("weights/kgmel-minilm")))
    return folder


@pytest.mark.parametrize("thorough", [False, True])
def test_a_kb_with_its_index_is_healthy(change_kb: Callable[..., Path], encoder: MiniLM, thorough: bool) -> None:
    found = looked(indexed(change_kb(ENTITIES, FACTS), encoder), thorough=thorough)
    assert {name: check.status for name, check in found.items()} == {"kb.kb.readable": "ok", "kb.kb.index": "ok"}
    assert "40 entities" in found["kb.kb.readable"].fact


def test_one_that_was_never_indexed_names_the_command(change_kb: Callable[..., Path]) -> None:
    folder = change_kb(ENTITIES)
    check = looked(folder)["kb.kb.index"]
    assert (check.status, check.exit_code) == ("fail", 3)
    assert check.hint == f"localmel index {folder} --profile embedded"


def test_one_that_changed_since_is_stale(change_kb: Callable[..., Path], encoder: MiniLM) -> None:
    folder = indexed(change_kb(ENTITIES, FACTS), encoder)
    change_kb([{"id": "y1", "label": "New"}], add=True)
    assert looked(folder)["kb.kb.readable"].status == "ok"
    assert looked(folder)["kb.kb.index"].status == "fail"


def test_damaged_vectors_are_no_index(change_kb: Callable[..., Path], encoder: MiniLM) -> None:
    folder = indexed(change_kb(ENTITIES, FACTS), encoder)
    for path in folder.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    check = looked(folder)["kb.kb.index"]
    assert (check.status, check.exit_code) == ("fail", 6)


def test_a_profile_without_a_network_has_no_index_to_look_for(change_kb: Callable[..., Path]) -> None:
    assert looked(change_kb(ENTITIES), profile="paper")["kb.kb.index"].status == "skip"


def damaged_page(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    content = bytearray(path.read_bytes())
    for start in range(8192, len(content) - 4096, 4096):
        content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [damaged_page, lambda path: path.write_bytes(b"no database" * 500), lambda path: path.write_bytes(b"")],
    ids=["pages", "other bytes", "empty"],
)
def test_a_damaged_database_fails_with_6(change_kb: Callable[..., Path], damage: Callable[[Path], object]) -> None:
    folder = change_kb(ENTITIES)
    damage(folder / DATABASE)
    found = looked(folder)
    assert (found["kb.kb.readable"].status, found["kb.kb.readable"].exit_code) == ("fail", 6)
    assert "kb.kb.index" not in found


def test_a_kb_that_is_not_there_fails_with_3(tmp_path: Path) -> None:
    assert looked(tmp_path / "none")["kb.none.readable"].exit_code == 3
    assert looked("")["kb.-.readable"].exit_code == 3


def test_without_a_name_all_are_looked_at_and_none_can_fail(
    change_kb: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_kb(ENTITIES, name="home/kb/fine")
    (change_kb(ENTITIES, name="home/kb/broken") / DATABASE).write_bytes(b"x" * 9000)
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    found = looked(None)
    assert {name: check.status for name, check in found.items()} == {
        "kb.starter.readable": "skip",
        "kb.fine.readable": "ok",
        "kb.fine.index": "warn",
        "kb.broken.readable": "warn",
    }


def test_a_database_that_takes_too_long_is_left_and_said_to_be(
    change_kb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = change_kb(ENTITIES)
    monkeypatch.setattr("localmel.doctor.kbs._SECONDS_EACH", -1.0)
    monkeypatch.setattr("localmel.doctor.kbs._STEPS", 10)
    check = looked(folder)["kb.kb.readable"]
    assert check.status == "ok"
    assert "in part, --thorough does it whole" in check.fact
    assert "in part" not in looked(folder, thorough=True)["kb.kb.readable"].fact
