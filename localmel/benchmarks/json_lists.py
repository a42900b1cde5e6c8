"""Read a large JSON list element by element, or a small JSON object whole.

In: a path.  Out: values with the line they begin on.  Holds one element and a piece of the file in memory, so that
a list of hundreds of megabytes can be read.  A file that is cut off, damaged or not UTF-8 is an error."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from localmel.errors import BadInput, shell_line
from localmel.store import progress

MAX_ELEMENT = 16 << 20
"Most characters of one element; anything longer is a broken file."
_PIECE = 1 << 20
_BLANKS = re.compile(r"[ \t\r\n]*")
_REST_OF_A_NUMBER = len("e+")
"What may follow 1 before its exponent has been read; with more after it, a value is whole."
_DECODER = json.JSONDecoder(strict=False)
_AGAIN = "copy or download it again"


class Element(NamedTuple):
    """One value of a list."""

    number: int
    "Counted from 1."
    line: int
    "Line of the file on which the value begins."
    value: Any


def read_list(path: Path, *, piece: int = _PIECE, max_element: int = MAX_ELEMENT) -> Iterator[Element]:
    """Yield every element of the list in the file.  Raises BadInput after the last element that can be read."""
    with _open(path) as raw:
        text = _Text(raw, piece, max_element)
        number = 0
        try:
            if text.next_sign() != "[":
                raise BadInput(f"{path} is not a JSON list: it begins with {text.next_sign()!r}", hint=_AGAIN)
            text.step()
            closed = text.next_sign() == "]"
            while not closed:
                text.next_sign()
                line = text.line
                value = text.value()
                number += 1
                yield Element(number, line, value)
                closed = text.next_sign() == "]"
                if not closed:
                    text.expect(",")
            text.step()
            text.expect("")
        except EOFError:
            raise BadInput(f"{path} is cut off: its last whole element is {number}", hint=_AGAIN) from None
        except UnicodeDecodeError as error:
            fact = f"{path} is not UTF-8 ({error.reason}), after element {number}"
            raise BadInput(fact, hint=shell_line("file", path)) from None
        except (ValueError, RecursionError) as error:
            fact = f"{path}:{text.line}: not JSON after element {number} ({error})"
            raise BadInput(fact, hint=_AGAIN) from None


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file.  Raises BadInput."""
    with _open(path) as raw:
        data = raw.read()
    try:
        value = _DECODER.decode(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error})", hint=_AGAIN) from None
    if not isinstance(value, dict):
        raise BadInput(f"{path} is not a JSON object in braces but a {type(value).__name__}", hint=_AGAIN)
    return value


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", hint=shell_line("ls -l", path)) from None


class _Text:
    """The text of a file, read from a place that moves forward."""

    def __init__(self, raw: BinaryIO, piece: int, max_element: int) -> None:
        self.line = 1
        self._raw = raw
        self._piece = piece
        self._max_element = max_element
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._waiting = ""
        self._at = 0
        self._ended = False

    def next_sign(self) -> str:
        """Return the next character that is not a blank.  Raises EOFError if there is none."""
        sign = self._peek()
        if not sign:
            raise EOFError
        return sign

    def expect(self, sign: str) -> None:
        """Step over one character, "" for the end of the file.  Raises ValueError if another is there."""
        found = self._peek()
        if found != sign:
            raise ValueError(f"expected {sign or 'the end'!r}, found {found!r}")
        if sign:
            self.step()

    def step(self) -> None:
        self._move(self._at + 1)

    def value(self) -> Any:
        """Return the JSON value that begins here.  Raises EOFError if the file ends before it does."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._waiting, self._at)
            except json.JSONDecodeError as error:
                if len(self._waiting) - self._at > self._max_element:
                    fact = f"{error.msg}, or an element of more than {self._max_element:,} characters"
                    raise ValueError(fact) from None
                if not self._more():
                    if error.pos >= len(self._waiting) or error.msg.startswith("Unterminated string"):
                        raise EOFError from None
                    raise ValueError(error.msg) from None
                continue
            if len(self._waiting) - end > _REST_OF_A_NUMBER or not self._more():
                self._move(end)
                return value

    def _peek(self) -> str:
        while True:
            if blanks := _BLANKS.match(self._waiting, self._at):
                self._move(blanks.end())
            if self._at < len(self._waiting) or not self._more():
                return self._waiting[self._at : self._at + 1]

    def _move(self, to: int) -> None:
        self.line += self._waiting.count("\n", self._at, to)
        self._at = to

    def _more(self) -> bool:
        """Read at least as much as is waiting, so that a long element is not parsed too often."""
        if self._ended:
            return False
        data = self._raw.read(max(self._piece, len(self._waiting) - self._at))
        progress.advance(len(data))
        self._ended = not data
        self._waiting = self._waiting[self._at :] + self._decoder.decode(data, self._ended)
        self._at = 0
        return True
