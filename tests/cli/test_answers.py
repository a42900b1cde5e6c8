"""stdout is data and nothing else: every command's --json parses, tables are safe to look at, stderr is for people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.cli.output import printable
from localmel.settings.shipped import shipped

Run = Callable[..., Any]
JERSEY = shipped("examples/jersey.jpg")


@pytest.mark.parametrize(
    "command",
    [
        ["link", "-", "Jordan dunks on Barkley."],
        ["link", str(JERSEY), "Jordan, photographed last spring.", "--explain"],
        ["kb", "info"],
        ["kb", "info", "starter"],
        ["kb", "search", "Jordan"],
        ["kb", "search", "nobody of that name"],
        ["kb", "show", "Q41421"],
        ["index", "starter"],
        ["link", "-", "nothing here at all"],
    ],
    ids=" ".join,
)
def test_json_is_one_line_of_json_on_stdout_and_nothing_more(localmel: Run, own_kb: str, command: list[str]) -> None:
    done = localmel(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    json.loads(done.stdout)
    assert done.stderr == ""


def test_demo_json_is_a_list_of_examples(localmel: Run) -> None:
    done = localmel("demo", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) >= 12
    assert all(row["entity"] == row["expected"] for row in rows)


def test_the_answer_for_people_names_entity_and_probability(localmel: Run) -> None:
    done = localmel("link", "-", "Jordan dunks on Barkley.", "--explain")
    assert done.returncode == 0, done.stderr
    for words in ("Michael Jordan", "Q41421", "candidates", "what decided", "profile embedded, kb starter"):
        assert words in done.stdout
    assert "\x1b" not in done.stdout, "no colours where stdout is no terminal"


def test_no_name_in_the_text_says_what_to_do(localmel: Run) -> None:
    done = localmel("link", "-", "nothing here at all")
    assert done.returncode == 0
    assert "--mention" in done.stdout + done.stderr


# --- safe to look at ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["kb", "search", "Jordan", "--kb", "own"],
        ["kb", "show", "x2", "--kb", "own"],
        ["kb", "show", "x1", "--kb", "own"],
        ["link", "-", "see [[Evil \x1b[31m[bold]Jordan[/bold]\x07\u202e]] there", "--kb", "own", "--explain"],
        ["link", "-", "see Jordan", "--mention", "Pippen\x1b[2J\x07"],
        ["link", "/tmp/\x1b[31mred\x07.jpg", "Jordan"],
        ["kb", "info", "a\x1b[31mb"],
        ["kb", "show", "\x1b]0;title\x07", "--kb", "own"],
    ],
    ids=range(8),
)
def test_no_name_can_steer_the_terminal(localmel: Run, own_kb: str, command: list[str]) -> None:
    done = localmel(*command)
    assert "Traceback" not in done.stderr
    for sign in ("\x1b", "\x07", "\u202e"):
        assert sign not in done.stdout + done.stderr
    if "x1" in command:
        assert "[link=http://evil]here[/link]" in done.stdout, "markup is shown, not followed"
    if "x2" in command:
        assert "[bold]Jordan[/bold]" in done.stdout


def test_what_steers_a_terminal_is_made_visible() -> None:
    assert printable("a\x1b[31mb\x07c\u202ed\u2066e\nf") == "a�[31mb�c�d�e�f"
    assert printable("Łódź 北京 🏀 الأردن") == "Łódź 北京 🏀 الأردن"


def run_on_a_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """What a command writes when stdout is a terminal."""
    code = (
        "import os, sys\n"
        "pid, terminal = __import__('pty').fork()\n"
        "if not pid: os.execv(sys.executable, [sys.executable, '-m', 'localmel.cli', *sys.argv[1:]])\n"
        "seen = b''\n"
        "while True:\n"
        "    try: piece = os.read(terminal, 65536)\n"
        "    except OSError: break\n"
        "    if not piece: break\n"
        "    seen += piece\n"
        "os.waitpid(pid, 0)\n"
        "sys.stdout.buffer.write(seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, check=True, timeout=120
    )
    return done.stdout.decode("utf-8", "replace")


def test_no_color_is_honoured_on_a_terminal(environment: dict[str, str], own_kb: str) -> None:
    command = ["kb", "search", "Jordan", "--kb", "own"]
    terminal = {**environment, "TERM": "xterm-256color", "COLUMNS": "120"}
    assert "\x1b[1m" in run_on_a_terminal(command, terminal), "headings are bold on a terminal"
    plain = run_on_a_terminal(command, {**terminal, "NO_COLOR": "1"})
    assert "Ada Jordan" in plain
    for colour in range(30, 38):
        assert f"\x1b[{colour}m" not in plain


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_letters_gets_an_answer(localmel_process: Run, encoding: str) -> None:
    more = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    table = localmel_process("link", "-", "Beyoncé and 北京 and [[Jordan]]", more=more)
    assert table.returncode == 0, table.stderr
    done = localmel_process("link", "-", "Beyoncé and 北京 and [[Jordan]]", "--json", more=more)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "Beyoncé and 北京 and Jordan"


def test_a_picture_whose_name_is_no_utf_8_is_linked(environment: dict[str, str], tmp_path: Path) -> None:
    picture = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(picture, "wb") as file:  # noqa: PTH123 - pathlib has no paths of bytes
        file.write(JERSEY.read_bytes())
    command = [sys.executable, "-m", "localmel.cli", "link", picture, "Jordan, photographed last spring."]
    for more in ([], ["--json"]):
        done = subprocess.run([*command, *more], env=environment, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["links"][0]["entity"]["id"] == "Q41421"


# --- stdout that does not take everything ------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["table", "json"])
def test_a_reader_that_closes_early_gives_no_traceback(
    environment: dict[str, str], home: Path, as_json: list[str]
) -> None:
    command = [sys.executable, "-m", "localmel.cli", "kb", "search", "a", "--limit", "1000", *as_json]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        errors = running.stderr.read().decode()
    assert errors == ""
    assert running.returncode == 141, "as a shell says of a program that a closed pipe ended"


@pytest.mark.parametrize("command", [["--help"], ["config", "--json"], ["weights", "list"]], ids=" ".join)
def test_short_answers_to_a_closed_pipe_end_as_quietly(environment: dict[str, str], command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    whole = [sys.executable, "-m", "localmel.cli", *command]
    done = subprocess.run(whole, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_keeps_its_exit_code_where_nobody_reads_stdout(environment: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "localmel.cli", "config", "--profile", "none"]
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 2
    assert "there is no profile 'none'" in done.stderr


def test_a_full_disk_under_stdout_is_an_error_and_no_traceback(environment: dict[str, str], home: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "localmel.cli", "kb", "search", "Jordan", "--json"],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert json.loads(done.stderr) == {"error": "the output: No space left on device", "hint": "df -h"}
