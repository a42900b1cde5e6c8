"""The error tree: every failure a person can do something about, as a fact, the value, and the next command.

The library raises these; only the CLI prints them and turns `exit_code` into the exit of the process.
2 usage, 3 bad input, 4 missing weights, 5 missing extra, 6 corrupt artifact, 130 interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from difflib import get_close_matches


class LocalmelError(Exception):
    """A fact with its value, and in `hint` the next command to run (may be empty)."""

    exit_code = 3

    def __init__(self, fact: str, *, hint: str = "") -> None:
        super().__init__(fact)
        self.fact = fact
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.fact}\n  try: {self.hint}" if self.hint else self.fact


def shell_line(command: str, *paths: object, note: str = "") -> str:
    """A command for a hint, its paths quoted so that it can be pasted as it is."""
    line = " ".join([command, *(shlex.quote(str(path)) for path in paths)])
    return f"{line}   # {note}" if note else line


class UsageError(LocalmelError):
    """The call itself does not fit: an unknown setting, two options that exclude each other."""

    exit_code = 2


class UnknownChoice(UsageError):
    """A word that is none of those there are; the hint is the one most like it."""

    def __init__(self, what: str, given: str, known: Iterable[str], *, option: str = "") -> None:
        """what: in one word what is chosen; option: behind which it is typed, as `--engine`."""
        choices = [one for one in known if one]
        nearest = get_close_matches(given, choices, n=1, cutoff=0.0) or choices[:1]
        fact = f"there is no {what} {given!r}; there are {', '.join(choices)}"
        super().__init__(fact, hint=" ".join(filter(None, (option, *nearest))))


class BadInput(LocalmelError):
    """Data from the user that cannot be used: a broken picture, a malformed line, an unknown KB."""

    exit_code = 3


class BadPicture(BadInput):
    """A file given as picture that is missing, empty, truncated, too large or no picture at all."""


class BadMention(BadInput):
    """A mention that does not stand in the text it is said to be in."""


class UnknownKb(BadInput):
    """No KB under that name or path."""


class KbBusy(BadInput):
    """Another process is writing the KB."""


class ImportProblem(BadInput):
    """A line of an import that cannot be used; carries the file and the line number."""

    def __init__(self, fact: str, *, source: str, line: int, hint: str = "") -> None:
        super().__init__(f"{source}:{line}: {fact}", hint=hint)
        self.source = source
        self.line = line


class OutOfSpace(BadInput):
    """The disk filled up while something was written; what stood before stands still."""


class MissingWeights(LocalmelError):
    """A model that the profile needs is not on this machine, or its bytes are not the ones named."""

    exit_code = 4


class MissingExtra(LocalmelError):
    """A Python package that this function needs is not installed."""

    exit_code = 5


class EngineStopped(LocalmelError):
    """The process or server that runs a model died, ran out of memory, or cannot be reached; finished answers stay."""


class CorruptArtifact(LocalmelError):
    """A file written by localmel that is damaged, unfinished, or newer than this version reads."""

    exit_code = 6
