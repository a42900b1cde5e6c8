"""Folder, disk and switches: what is said of a place that cannot be used, and of a profile that sends things away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.doctor.check import Check, Examination, fail, guarded, ok, warn
from localmel.doctor.surroundings import look_at_surroundings
from localmel.errors import MissingWeights
from localmel.settings import OFFLINE, Profile, load_profile

SERVER = '[rerank]\nbackend = "llm"\n[rerank.model]\nengine = "server"\nweights = "llama"\n'


def looked(profile: str | Profile = "embedded") -> dict[str, Check]:
    profile = load_profile(profile) if isinstance(profile, str) else profile
    return {check.id: check for check in look_at_surroundings(profile)}


def test_a_home_that_does_not_stand_yet_is_fine_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "a" / "b"))
    found = looked()
    assert found["home.writable"].status == "ok"
    assert "can be created" in found["home.writable"].fact
    assert found["disk.space"].status in ("ok", "warn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/none", "/etc/passwd", "/etc/passwd/x", "/sys/kernel"])
def test_a_home_that_cannot_be_written_is_told(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", place)
    check = looked()["home.writable"]
    assert check.status in ("fail", "warn")
    assert "export LOCALMEL_HOME=" in check.hint


def test_the_home_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path))
    assert looked()["home.writable"].status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_switches_that_are_not_set_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for switch, value in OFFLINE.items():
        monkeypatch.setenv(switch, value)
    assert {looked()[name].status for name in ("offline.switches", "telemetry.off")} == {"ok"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS")
    assert "HF_HUB_OFFLINE" in looked()["offline.switches"].fact
    assert "VLLM_NO_USAGE_STATS" in looked()["telemetry.off"].fact


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost:1/v1", "http://[::1]:80/v1", "http://127.9.9.9"]
)
def test_a_server_on_this_machine_sends_nothing_away(
    profile: Callable[[str], Profile], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for switch, value in OFFLINE.items():
        monkeypatch.setenv(switch, value)
    found = looked(profile(f'{SERVER}url = "{url}"'))
    assert found["offline.switches"].status == "ok"
    assert found["telemetry.off"].status == "warn"


@pytest.mark.parametrize("url", ["http://10.0.0.1:8000", "https://[2001:db8::1]/v1", "", "nonsense", "ftp://127.0.0.1"])
def test_a_server_elsewhere_fails_unless_it_is_allowed(profile: Callable[[str], Profile], url: str) -> None:
    check = looked(profile(f'{SERVER}url = "{url}"'))["offline.switches"]
    assert (check.status, check.exit_code) == ("fail", 2)
    check = looked(profile(f'{SERVER}url = "{url}"\nallow_remote = true'))["offline.switches"]
    assert check.status == "warn"
    assert "pictures and texts" in check.fact


def test_what_breaks_off_becomes_a_failed_check_and_what_came_before_is_kept() -> None:
    def look() -> list[Check]:
        yield ok("a.b", "fine")  # type: ignore[misc]
        raise ZeroDivisionError("in a new way")

    found = list(guarded("doctor.x", look))
    assert [check.status for check in found] == ["ok", "fail"]
    assert "ZeroDivisionError: in a new way" in found[1].fact

    def lacking() -> list[Check]:
        raise MissingWeights("no weights", hint="localmel weights list")

    assert next(iter(guarded("doctor.y", lacking))).exit_code == 4


def test_the_exit_code_is_that_of_the_first_failed_check() -> None:
    def of(*checks: Check) -> Examination:
        return Examination(profile="x", localmel="1", checks=checks, seconds=0.0)

    note = warn("c.d", "hm", hint="look")
    missing, broken = (fail(f"e.{code}", "no", hint="do", exit_code=code) for code in (5, 4))
    assert of(ok("a.b", "fine"), note).exit_code == 0
    assert of(note, missing, broken).exit_code == 5
    assert of(broken, missing).exit_code == 4
    told = of(note, missing).to_json()
    assert json.loads(json.dumps(told))["checks"][1] == {"id": "e.5", "status": "fail", "fact": "no", "hint": "do"}
    assert (told["ok"], told["exit_code"], told["format"]) == (False, 5, 1)


@pytest.mark.parametrize("wrong", [{"status": "fail"}, {"status": "ok", "exit_code": 3}, {"status": "warn"}])
def test_a_check_without_what_it_owes_cannot_be_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"a\.b"):
        Check(id="a.b", fact="x", **wrong)  # type: ignore[arg-type]


def test_this_process_is_not_changed_by_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    looked()
    assert dict(os.environ) == before
