"""The error tree: every failure that a person can fix, as a fact, its value, and the next command.

The library raises these; only the CLI prints them and exits with `exit_code`.
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
    """Return a command for a hint, with quoted paths so that it can be pasted."""
    line = " ".join([command, *(shlex.quote(str(path)) for path in paths)])
    return f"{line}   # {note}" if note else line


class UsageError(LocalmelError):
    """A call that does not fit: an unknown setting, or two options that exclude each other."""

    exit_code = 2


class UnknownChoice(UsageError):
    """An unknown word where only some are allowed; the hint is the most similar one."""

    def __init__(self, what: str, given: str, known: Iterable[str], *, option: str = "") -> None:
        """`what` names the kind of word; `option` is the flag before it, such as `--engine`."""
        choices = [one for one in known if one]
        nearest = get_close_matches(given, choices, n=1, cutoff=0.0) or choices[:1]
        fact = f"there is no {what} {given!r}; there are {', '.join(choices)}"
        super().__init__(fact, hint=" ".join(filter(None, (option, *nearest))))


class BadInput(LocalmelError):
    """Data from the user that cannot be used: a broken picture, a malformed line, an unknown KB."""

    exit_code = 3


class BadPicture(BadInput):
    """A picture file that is missing, empty, truncated, too large or not a picture at all."""


class BadMention(BadInput):
    """A mention that is not in its text."""


class UnknownKb(BadInput):
    """A name or path without a KB."""


class KbBusy(BadInput):
    """A KB that another process is writing."""


class ImportProblem(BadInput):
    """A line of an import that cannot be used, with its file and line number."""

    def __init__(self, fact: str, *, source: str, line: int, hint: str = "") -> None:
        super().__init__(f"{source}:{line}: {fact}", hint=hint)
        self.source = source
        self.line = line


class OutOfSpace(BadInput):
    """A disk that filled up during writing; what existed before is unchanged."""


class MissingWeights(LocalmelError):
    """A model that is not on this machine, or whose bytes are not the expected ones."""

    exit_code = 4


class MissingExtra(LocalmelError):
    """A Python package that is needed but not installed."""

    exit_code = 5


class EngineStopped(LocalmelError):
    """A model's process or server that died, ran out of memory or cannot be reached; finished answers are kept."""


class CorruptArtifact(LocalmelError):
    """A file of localmel that is damaged, unfinished, or newer than this version can read."""

    exit_code = 6
