"""Every way to fail has its exit code, one line that says what happened, and no traceback."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.kb.schema import DATABASE

Run = Callable[..., Any]
LONG = "a" * 5000


def failed(done: Any, code: int) -> str:
    assert done.returncode == code, (done.returncode, done.stderr[-500:])
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    return str(done.stderr)


@pytest.mark.parametrize(
    "command",
    [
        ["frobnicate"],
        ["link"],
        ["link", "-"],
        ["link", "-", "Jordan", "--unknown"],
        ["link", "-", "Jordan", "--top-k", "0"],
        ["link", "-", "Jordan", "--top-k", "many"],
        ["link", "-", "Jordan", "--profile", "none"],
        ["link", "-", "Jordan", "--profile", "/etc/passwd"],
        ["link", "-", "Jordan", "--profile", "/tmp"],
        ["link", "-", "Jordan", "--profile", LONG],
        ["kb", "build", "x"],
        ["kb", "build", "x", "--entities", "a", "--ontology", "b"],
        ["kb", "build", "x", "--entities", "a", "--language", "en"],
        ["kb", "search", "Jordan", "--limit", "0"],
    ],
    ids=lambda command: " ".join(command)[:50],
)
def test_what_is_typed_wrongly_ends_with_2(localmel: Run, home: Path, command: list[str]) -> None:
    failed(localmel(*command), 2)


@pytest.mark.parametrize(
    "command",
    [
        ["link", "/no/such.jpg", "Jordan"],
        ["link", "/tmp", "Jordan"],
        ["link", LONG, "Jordan"],
        ["link", "-", ""],
        ["link", "-", "Jordan", "--mention", "Pippen"],
        ["link", "-", "Jordan", "--mention", ""],
        ["link", "-", "Jordan \udcff"],
        ["link", "-", "Jordan", "--kb", "none"],
        ["link", "-", "Jordan", "--kb", LONG],
        ["link", "-", "Jordan", "--kb", "../../etc"],
        ["link", "-", "Jordan", "--kb", ""],
        ["link", "-", "Jordan", "--kb", "\udcff"],
        ["kb", "show", "Q0"],
        ["kb", "show", "\udcff"],
        ["kb", "info", "none"],
        ["kb", "remove", "none", "x"],
        ["kb", "export", "starter", "/etc/passwd"],
        ["kb", "build", "x", "--entities", "/no/such.jsonl"],
        ["kb", "build", "x", "--entities", "/tmp"],
        ["kb", "build", "", "--entities", "/tmp"],
        ["kb", "add", "none", "--entities", "/tmp"],
        ["index", "none"],
    ],
    ids=lambda command: ascii(" ".join(command))[:50],
)
def test_bad_input_ends_with_3(localmel: Run, home: Path, command: list[str]) -> None:
    errors = failed(localmel(*command), 3)
    assert errors.startswith("error: ")


def test_with_json_an_error_is_json_on_stderr(localmel_process: Run, home: Path) -> None:
    found = json.loads(failed(localmel_process("link", "/no/such.jpg", "Jordan", "--json"), 3))
    assert "/no/such.jpg" in found["error"]
    assert found["hint"]


@pytest.mark.parametrize(
    ("command", "said", "hint"),
    [
        (["frobnicate"], "No such command 'frobnicate'", "localmel --help"),
        (["kb", "frobnicate"], "No such command 'frobnicate'", "localmel kb --help"),
        (["link"], "Missing argument", "localmel link --help"),
        (["link", "-", "Jordan", "--top-k", "many"], "'--top-k'", "localmel link --help"),
        (["weights", "install", "--unknown"], "No such option: --unknown", "localmel weights install --help"),
        (["weights", "rm"], "give a name, or --unfinished", "localmel weights list --here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_with_json_what_is_typed_wrongly_is_json_too(
    localmel: Run, home: Path, command: list[str], said: str, hint: str
) -> None:
    found = json.loads(failed(localmel(*command, "--json"), 2))
    assert said in found["error"]
    assert found["hint"] == hint


@pytest.mark.parametrize("place", ["/proc/none", "/etc/passwd"])
def test_a_home_that_cannot_be_made_ends_with_3(localmel: Run, place: str) -> None:
    assert place in failed(localmel("link", "-", "Jordan", more={"LOCALMEL_HOME": place}), 3)


def test_a_newer_a_damaged_and_a_foreign_kb_end_with_6(localmel: Run, own_kb: str, home: Path, tmp_path: Path) -> None:
    def changed(name: str, change: Callable[[Path], object]) -> Path:
        shutil.copytree(home / "kb" / own_kb, tmp_path / name)
        change(tmp_path / name / DATABASE)
        return tmp_path / name

    def newer(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()

    def foreign(path: Path) -> None:
        path.unlink()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE t(x)")
        connection.close()

    damages: dict[str, Callable[[Path], object]] = {
        "newer": newer,
        "foreign": foreign,
        "no database": lambda path: path.write_bytes(b"\xff" * 5000),
    }
    for name, damage in damages.items():
        folder = changed(name, damage)
        assert str(folder) in failed(localmel("link", "-", "Jordan", "--kb", folder), 6)
        failed(localmel("kb", "info", folder), 6)


def test_a_kb_that_is_not_indexed_names_the_command_that_helps(
    localmel: Run, home: Path, tables: Run, tmp_path: Path
) -> None:
    options = tables(tmp_path, [{"id": "a", "label": "Ada"}])
    assert localmel("kb", "build", tmp_path / "kb", *options, "--no-vectors").returncode == 0
    errors = failed(localmel("link", "-", "Ada", "--kb", tmp_path / "kb"), 3)
    command = errors.partition("try: localmel ")[2].split()
    assert localmel(*command).returncode == 0
    assert localmel("link", "-", "Ada", "--kb", tmp_path / "kb").returncode == 0


def interrupt(arguments: list[str], environment: dict[str, str], ready: Callable[[], bool]) -> tuple[int, str]:
    """Start a command, send Ctrl-C once `ready`, and return how it ended."""
    command = [sys.executable, "-m", "localmel.cli", *arguments]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as running:
        try:
            deadline = time.monotonic() + 200
            while not ready():
                assert running.poll() is None, running.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    return running.returncode, errors


@pytest.fixture
def many(tables: Run, tmp_path: Path) -> Callable[[int], list[str]]:
    """`many(60_000)` -> the options of a build of so many entities."""

    def options(n: int) -> list[str]:
        rows = [{"id": f"Q{number}", "label": f"Town number {number} of the valley"} for number in range(n)]
        return [str(option) for option in tables(tmp_path / "many", rows)]

    return options


def test_ctrl_c_while_a_kb_is_built_ends_with_130_and_leaves_nothing(
    environment: dict[str, str], home: Path, many: Callable[[int], list[str]], tmp_path: Path
) -> None:
    """A build of some seconds."""
    place = tmp_path / "place"
    place.mkdir()

    def is_writing() -> bool:
        return any(file.stat().st_size > 0 for file in place.glob(f".*/{DATABASE}") if file.exists())

    code, errors = interrupt(["kb", "build", str(place / "kb"), *many(60_000)], environment, is_writing)
    assert code == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert not (place / "kb").exists()
    assert [path for path in place.iterdir() if path.is_dir()] == []


def test_ctrl_c_while_a_kb_is_indexed_ends_with_130_and_keeps_what_was_done(
    environment: dict[str, str], localmel: Run, home: Path, many: Callable[[int], list[str]], tmp_path: Path
) -> None:
    kb = tmp_path / "kb"
    assert localmel("kb", "build", kb, *many(12_000), "--no-vectors").returncode == 0

    def has_encoded() -> bool:
        return any((kb / "vectors").glob(".*.encoding.*"))

    code, errors = interrupt(["index", str(kb)], environment, has_encoded)
    assert code == 130, errors
    assert "Traceback" not in errors
    assert has_encoded(), "what was encoded is used by the next run"
