"""Report how far long work has come, without handing callbacks down to it.

In: steps, amounts done and notes, from whatever runs.  Out: the listener that the caller has set, if any.
A command sets a listener (`listening`); a library that is called without one reports to nobody.  Threads and processes
started by the work have no listener of their own until one is set there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

BYTES = "bytes"
"The unit of steps that read or write whole files; shown as megabytes."


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Receives what is reported; each part may be left out."""

    on_step: Callable[[str, int, str], None] = lambda _step, _total, _unit: None
    "Called with the name of a step that begins, how many units it has, and their name where it is BYTES."
    on_done: Callable[[int], None] = lambda _units: None
    "Called with how many more units of the current step are done."
    on_note: Callable[[str], None] = lambda _text: None
    "Called with a sentence that a person may want to read."


_NOBODY = Listener()
_listener: ContextVar[Listener] = ContextVar("listener", default=_NOBODY)


def current() -> Listener:
    """Return the listener in force, for a thread that is to report to the one its starter had."""
    return _listener.get()


def begin(step: str, total: int, *, unit: str = "") -> None:
    """Report that a step of `total` units begins; the step before it has ended."""
    _listener.get().on_step(step, total, unit)


def advance(units: int = 1) -> None:
    """Report that so many more units of the current step are done."""
    _listener.get().on_done(units)


def note(text: str) -> None:
    """Report a sentence that a person may want to read."""
    _listener.get().on_note(text)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send everything that is reported inside the block to `listener`, and to it alone."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def silence() -> Iterator[None]:
    """Report nothing inside the block: for work that is not a step of its own, such as a process that does not lead."""
    with listening(_NOBODY):
        yield
