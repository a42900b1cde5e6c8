"""Profiles say exactly what they mean: an unknown key, a wrong type, an unknown backend is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import UsageError
from localmel.settings import OFFLINE, Profile, go_offline, home_folder, load_profile, profile_from


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        profile_from(table, where="my.toml")
    assert caught.value.exit_code == 2
    assert caught.value.fact.startswith("my.toml")
    return caught.value.fact


def test_the_shipped_profile_is_complete_and_equals_the_defaults_but_for_its_words() -> None:
    profile = load_profile("embedded")
    plain = Profile(name="embedded", summary=profile.summary)
    assert profile == plain
    assert profile.summary


def test_a_profile_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load_profile("embedded").name = "other"  # type: ignore[misc]


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    fact = refused({"name": "x", "generate": {"most_line": 3}})
    assert "[generate]" in fact
    assert "'most_line'" in fact
    assert "most_lines" in fact
    assert "'colour'" in refused({"name": "x", "colour": "red"})


def test_an_unknown_table_is_an_unknown_key() -> None:
    assert "'evaluate'" in refused({"name": "x", "evaluate": {}})


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("generate", "most_lines", "three"),
        ("generate", "most_lines", 3.5),
        ("generate", "most_lines", True),
        ("generate", "least_confidence", "0.5"),
        ("generate", "least_confidence", False),
        ("retrieve", "use_counts", 1),
        ("retrieve", "by_name", [1]),
        ("rerank", "weights", 7),
        ("encode", "model", {"a": 1}),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(stage: str, key: str, value: Any) -> None:
    fact = refused({"name": "x", stage: {key: value}})
    assert key in fact
    assert repr(value) in fact


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("generate", "most_lines", -1),
        ("generate", "most_induced", -2),
        ("retrieve", "by_name", -1),
        ("retrieve", "by_vector", -1),
        ("rerank", "most_evidence", -1),
        ("rerank", "nil_from", float("nan")),
        ("generate", "least_similarity", float("inf")),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(stage: str, key: str, value: float) -> None:
    assert key in refused({"name": "x", stage: {key: value}})


@pytest.mark.parametrize("stage", ["generate", "rerank"])
def test_an_unknown_backend_is_refused_with_the_known_ones(stage: str) -> None:
    fact = refused({"name": "x", stage: {"backend": "magic"}})
    assert "'magic'" in fact
    assert f"[{stage}]" in fact


def test_a_model_this_version_does_not_have_is_refused() -> None:
    assert "clip" in refused({"name": "x", "encode": {"model": "clip"}})


def test_a_whole_number_is_a_float_too() -> None:
    assert profile_from({"name": "x", "generate": {"least_confidence": 1}}, where="x").generate.least_confidence == 1


def test_a_stage_that_is_no_table_and_a_profile_without_name_are_refused() -> None:
    assert "generate" in refused({"name": "x", "generate": 3})
    assert "name" in refused({"generate": {}})
    assert "name" in refused({"name": 3})


def test_an_unknown_profile_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(UsageError, match=r"no profile 'paper2'.*embedded") as caught:
        load_profile("paper2")
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "a\0b", "x" * 5000, "no/such.toml", "none.toml", "/"])
def test_a_name_that_leads_nowhere_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        load_profile(name)


@pytest.mark.parametrize(
    "content", [b"name = ", b"\xff\xfe\0", b"[[[[", b"name = 'x'\nname = 'y'", b"a.b.c = 1" * 3, b"a = " + b"[" * 9000]
)
def test_a_file_that_is_no_toml_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"p\.toml"):
        load_profile(str(tmp_path / "p.toml"))


def test_a_profile_of_ones_own_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\n[retrieve]\nby_vector = 0\n')
    profile = load_profile(str(tmp_path / "mine.toml"))
    assert (profile.name, profile.retrieve.by_vector, profile.retrieve.by_name) == ("mine", 0, 64)


def test_going_offline_sets_every_switch_over_what_stood_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in OFFLINE:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    go_offline()
    assert {key: os.environ[key] for key in OFFLINE} == OFFLINE
    assert {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DO_NOT_TRACK", "VLLM_NO_USAGE_STATS"} <= OFFLINE.keys()


@pytest.mark.parametrize("code", ["import localmel.linker", "from localmel import Linker"])
def test_importing_the_linker_goes_offline(code: str) -> None:
    names = list(OFFLINE)
    environment = {key: value for key, value in os.environ.items() if key not in OFFLINE}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport os\nprint(*[os.environ.get(name) for name in {names}])"],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == list(OFFLINE.values())


def test_home_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path))
    assert home_folder() == tmp_path
    monkeypatch.setenv("LOCALMEL_HOME", "~/there")
    assert home_folder() == Path.home() / "there"
    monkeypatch.delenv("LOCALMEL_HOME")
    assert "localmel" in home_folder().name
