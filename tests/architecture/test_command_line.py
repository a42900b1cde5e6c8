"""What a person meets first: `localmel --help` is quick and light, and every command stands in the documentation."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "transformers",
    "onnxruntime",
    "PIL",
    "numpy",
    "scipy",
    "sklearn",
    "vllm",
    "tokenizers",
    "cv2",
    "rapidocr",
)
SECONDS = 0.3


def run_localmel(arguments: str) -> tuple[str, float]:
    """Run the entry point as the installed command would; returns what it wrote on stderr, and the seconds."""
    code = (
        f"import sys; sys.argv = ['localmel', *{arguments.split()}]\n"
        "from localmel.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    return done.stderr, seconds


def bare_python_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - started


@pytest.mark.parametrize("arguments", ["--help", "--version", "link --help", "kb --help"])
def test_help_loads_nothing_heavy(arguments: str) -> None:
    modules, _ = run_localmel(arguments)
    assert set(modules.split()).isdisjoint(HEAVY)


def test_help_is_there_at_once() -> None:
    """The best of five, so that a busy neighbour does not decide; in proportion where the whole machine is slow."""
    bare = min(bare_python_seconds() for _ in range(3))
    seconds = min(run_localmel("--help")[1] for _ in range(5))
    assert seconds <= max(SECONDS, 15 * bare), f"{seconds:.2f} s; Python alone starts in {bare:.3f} s"


def commands(command: Any, words: tuple[str, ...] = ("localmel",)) -> Iterator[str]:
    """A command of Typer -> every one at or below it that does something: `localmel link`, `localmel kb build`, ..."""
    children = getattr(command, "commands", None)
    if children is None:
        if not command.hidden:
            yield " ".join(words)
        return
    for name, child in children.items():
        yield from commands(child, (*words, name))


def test_every_command_stands_in_the_documentation() -> None:
    from localmel.cli.app import app

    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if page.exists())
    every = list(commands(typer.main.get_command(app)))
    assert every
    assert [command for command in every if command not in text] == []


def test_every_command_and_every_option_says_what_it_is() -> None:
    from localmel.cli.app import app

    def silent(command: Any, words: str) -> Iterator[str]:
        if not command.help:
            yield words
        for parameter in command.params:
            if parameter.param_type_name == "option" and not getattr(parameter, "help", None):
                yield f"{words} {parameter.opts[0]}"
        for name, child in getattr(command, "commands", {}).items():
            yield from silent(child, f"{words} {name}")

    assert list(silent(typer.main.get_command(app), "localmel")) == []
