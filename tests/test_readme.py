"""The README is short and true: every block in it runs, and shows what it says it shows.

A ```bash block is run by bash in the checkout, a ```python block by Python, with a LOCALMEL_HOME of their own.
A line that begins with scripts/ names one of the set-up commands: it is checked to exist and to be executable, not
run, because this test runs inside of what it sets up.  A ```text, ```json or ```console block that directly follows
a block which ran is its output; it is compared loosely: the same words and numbers, except for probabilities, times
and spacing.  A block after the line `<!-- not run: REASON -->` is left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SET_UP = re.compile(r"^(?:\./)?(scripts/\w+|\.ci/run)\b")
FENCE = re.compile(
    r"(?P<before>[^\n]*)\n+```(?P<language>\w+)[^\n]*\n(?P<body>.*?)\n```(?:\n+```(?:text|json|console)\n(?P<output>.*?)\n```)?",
    re.DOTALL,
)
SKIPPED = re.compile(r"<!-- not run: \S.* -->")


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    body: str
    output: str
    """What the README shows below the block; empty where it shows nothing."""


def blocks_of(text: str) -> list[Block]:
    """Every bash and python block that is to be run, in order."""
    return [
        Block(found.string.count("\n", 0, found.start("body")), found["language"], found["body"], found["output"] or "")
        for found in FENCE.finditer("\n" + text)
        if found["language"] in ("bash", "sh", "python") and not SKIPPED.search(found["before"])
    ]


BLOCKS = blocks_of(README.read_text(encoding="utf-8")) if README.exists() else []


def words_of(output: str) -> set[str]:
    """The words of an output, without what differs from run to run: decimals, seconds, frames of tables, folders."""
    words = re.findall(r"[^\s│┃|─━┌┐└┘├┤┬┴┼╭╮╰╯…]+", output)
    return {word.strip(",") for word in words if not re.search(r"\d\.\d|^\.\d|^/|^[-+=]+$|^[\d.]+m?s$", word)}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_the_readme_shows_the_two_commands_of_a_newcomer() -> None:
    text = README.read_text(encoding="utf-8")
    assert "scripts/demo" in text
    assert "scripts/test" in text
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line-{block.line}-{block.language}")
def test_a_block_of_the_readme_runs(block: Block, tmp_path_factory: pytest.TempPathFactory) -> None:
    body = block.body
    if block.language != "python":
        kept = []
        for line in body.splitlines():
            if found := SET_UP.match(line.removeprefix("$ ")):
                assert os.access(ROOT / found[1], os.X_OK), f"{found[1]} is not there, or not executable"
            elif line.strip() and not line.lstrip().startswith(("#", "git clone", "cd ")):
                kept.append(line.removeprefix("$ "))
        body = "\n".join(kept)
        if not body:
            return
    home = (
        tmp_path_factory.getbasetemp() / "readme-home"
    )  # one for all blocks: a later one may use what an earlier one made
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-c", body] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", body]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "LOCALMEL_HOME": str(home), "PATH": path, "NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"README.md:{block.line}\n{body}\n{done.stdout}\n{done.stderr}"
    missing = words_of(block.output) - words_of(done.stdout + done.stderr)
    assert not missing, f"README.md:{block.line} shows {sorted(missing)}; the command printed\n{done.stdout}"
    if block.output.lstrip().startswith("{"):
        json.loads(done.stdout)


def test_blocks_are_found_with_their_output_and_their_exceptions() -> None:
    text = (
        "# x\n\n```bash\nlocalmel demo\n```\n\n```text\nJordan  Q41421\n```\n\n"
        "<!-- not run: needs a GPU -->\n```bash\nlocalmel link --profile paper\n```\n\n"
        "```python\nimport localmel\n```\n"
    )
    assert [(block.line, block.language, block.output) for block in blocks_of(text)] == [
        (4, "bash", "Jordan  Q41421"),
        (17, "python", ""),
    ]


def test_an_output_is_compared_without_numbers_that_vary() -> None:
    shown, printed = "Jordan │ Q41421 │ 0.93 │ 1.2 s", "│ Jordan │ Q41421 │ 0.91 │ 3.4 s │"
    assert words_of(shown) <= words_of(printed)
    assert not words_of("Jordan Q810") <= words_of(printed)
