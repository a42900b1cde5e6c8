"""A KB is healthy when its database reads and what was made from it is of its present state."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.doctor.check import Check
from localmel.doctor.kbs import look_at_kbs
from localmel.encode.minilm import MiniLM
from localmel.encode.registry import Encoders, open_encoder
from localmel.kb.schema import DATABASE
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.m3el.kind import M3elKind
from localmel.matchers.registry import index_matcher, load_matcher
from localmel.matchers.trained import SIDES_KIND, SIDES_VERSION
from localmel.settings import Profile, load_profile
from localmel.settings.shipped import shipped
from tests.weights.tuned_folders import small_tuned_minilm

ENTITIES = [{"id": f"x{number}", "label": f"Ada {number}", "description": "an engineer"} for number in range(40)]
FACTS = [("x1", "employer", "x2", "Ada 2")]


def looked(kb: Path | str | None, *, thorough: bool = False, profile: str | Profile = "embedded") -> dict[str, Check]:
    name = None if kb is None else str(kb)
    profile = load_profile(profile) if isinstance(profile, str) else profile
    return {check.id: check for check in look_at_kbs(profile, name, thorough=thorough)}


def indexed(folder: Path, encoder: MiniLM) -> Path:
    with KnowledgeBase(folder) as kb:
        index_matcher(kb, load_network(shipped("weights/kgmel-minilm")), Encoders(text=encoder, image=None), "auto")
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


def test_a_kb_has_to_be_ready_for_the_matcher_of_the_profile(
    change_kb: Callable[..., Path], encoder: MiniLM, tmp_path: Path, profile: Callable[[str], Profile]
) -> None:
    """Vectors for the network that ships do not do for another matcher, nor do words alone."""
    own = profile(f'[retrieve]\nmatcher = "{tmp_path}/m3el"\n')
    folder = indexed(change_kb(ENTITIES, FACTS), encoder)
    assert looked(folder, profile=own)["kb.kb.index"].status == "skip"
    kind, encoders = M3elKind(), open_encoder(own.encode, method="onnxruntime")
    kind.save(tmp_path / "m3el", kind.new(encoders, width=8), encoders.text.space, None, {})
    with KnowledgeBase(folder) as kb:
        kind.index_features(kb, encoders)
        check = looked(folder, profile=own)["kb.kb.index"]
        assert (check.status, check.exit_code) == ("fail", 3)
        assert "never made ready for the matcher" in check.fact
        assert check.hint == f"localmel index {folder} --profile own"
        index_matcher(kb, load_matcher(tmp_path / "m3el"), encoders, "auto")
    ready = looked(folder, profile=own)["kb.kb.index"]
    assert (ready.status, f"made ready for {tmp_path}/m3el" in ready.fact) == ("ok", True)
    change_kb([{"id": "y1", "label": "New"}], add=True)
    assert looked(folder, profile=own)["kb.kb.index"].status == "fail"
    with KnowledgeBase(folder) as kb:
        kind.index_features(kb, encoders)
    assert "has changed since it was made ready" in looked(folder, profile=own)["kb.kb.index"].fact
    assert (SIDES_KIND, SIDES_VERSION) == ("matcher's entities", 1)


def test_the_index_is_that_of_the_profiles_own_encoder(
    change_kb: Callable[..., Path], encoder: MiniLM, tmp_path: Path, profile: Callable[[str], Profile]
) -> None:
    place = small_tuned_minilm(tmp_path / "encoder")
    folder = indexed(change_kb(ENTITIES, FACTS), encoder)
    tuned = profile(f'[encode]\nmodel = "{place}"\n')
    assert "was trained on texts of all-MiniLM-L6-v2" in looked(folder, profile=tuned)["kb.kb.index"].fact
    space = MiniLM(tuned=place).space
    kind, encoders = M3elKind(), open_encoder(tuned.encode)
    kind.save(tmp_path / "m3el", kind.new(encoders, width=8), space, None, {})
    tuned = profile(f'[encode]\nmodel = "{place}"\n[retrieve]\nmatcher = "{tmp_path}/m3el"\n')
    check = looked(folder, profile=tuned)["kb.kb.index"]
    assert (check.status, check.exit_code) == ("fail", 3)
    assert f"has no index by {space.name}" in check.fact
    other = profile(f'[retrieve]\nmatcher = "{tmp_path}/m3el"\n')
    assert f"was trained on texts of {space.name}" in looked(folder, profile=other)["kb.kb.index"].fact
    (place / "config.json").unlink()
    assert looked(folder, profile=tuned)["kb.kb.index"].status == "skip"


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
    assert "in part, --thorough checks it all" in check.fact
    assert "in part" not in looked(folder, thorough=True)["kb.kb.readable"].fact
