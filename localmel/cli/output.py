"""Print answers and progress: JSON or tables on stdout, bars and notes on stderr.

Decides nothing.  All text from users and KBs is escaped before it reaches a terminal."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from localmel.store.progress import BYTES, Listener, listening

_BAR_AFTER = 1.0
"Seconds before a bar is shown; shorter work needs none."


_STEERING = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"Characters that JSON leaves alone and that may steer a terminal; JSON itself escapes the other controls."


def print_json(value: object) -> None:
    """Print one JSON value on stdout, in ASCII where stdout cannot encode it."""
    text = json_text(value)
    try:
        text.encode(sys.stdout.encoding if sys.stdout else "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    print(text)


def json_text(value: object) -> str:
    """Return one line of JSON in which no character can steer a terminal."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def printable(text: str) -> str:
    """Return the text with control and direction characters replaced, so that data cannot steer the terminal."""
    return "".join(char if char.isprintable() and not _STEERING.match(char) else "�" for char in text)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as `1 model` or `1,200 models`; `plural` is for irregular nouns."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print a table as wide as the terminal; plain if stdout is not a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    look = box.SIMPLE_HEAD if any(headings) else None
    table = Table(
        *headings, show_header=any(headings), title=title or None, title_justify="left", box=look, pad_edge=False
    )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def print_note(text: str) -> None:
    """Print a note on stderr."""
    print(printable(text), file=sys.stderr)


def print_problem(problem: Exception) -> None:
    """Print a line that an import left out, on stderr."""
    print(f"left out: {printable(str(problem))}", file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[None]:
    """Show on stderr what the work inside the block reports (`localmel.store.progress`).

    On a terminal a bar appears after a second; elsewhere each step gets one line.  Bytes are shown as megabytes."""
    if not sys.stderr.isatty():
        with listening(Listener(on_step=_Lines().begin, on_note=print_note)):
            yield
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        shown = _Bar(bars)
        with listening(Listener(on_step=shown.begin, on_done=shown.advance, on_note=print_note)):
            yield


class _Lines:
    """A line for each step, once the work has taken a second."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def begin(self, step: str, total: int, unit: str) -> None:
        if time.monotonic() - self._started > _BAR_AFTER:
            print(f"{_named(step, unit)}: {_scaled(total, unit):,}", file=sys.stderr)


class _Bar:
    """One bar at a time, shown once the work has taken a second."""

    def __init__(self, bars: Any) -> None:
        self._bars, self._started = bars, time.monotonic()
        self._task: Any = None
        self._unit, self._done = "", 0

    def begin(self, step: str, total: int, unit: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, visible=False)
        self._unit, self._done = unit, 0
        self._task = self._bars.add_task(_named(step, unit), total=_scaled(total, unit), visible=False)

    def advance(self, units: int) -> None:
        if self._task is not None:
            self._done += units
            visible = time.monotonic() - self._started > _BAR_AFTER
            self._bars.update(self._task, completed=_scaled(self._done, self._unit), visible=visible)


def _named(step: str, unit: str) -> str:
    return f"{step} (MB)" if unit == BYTES else step


def _scaled(number: int, unit: str) -> int:
    return -(-number // 10**6) if unit == BYTES else number
