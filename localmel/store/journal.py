"""A journal of answers: each is saved as it arrives, so that a killed run goes on where it stopped.

In: a key (a hash of everything the answer depends on) with the answer, or with the reason why there is none.  Out: the
answer to a key.  The file has one JSON object per line, with a hash of the line, and is only appended to.

What can happen to the file:
- a process dies, at any byte: the unfinished last line is cut off when the journal is opened again;
- a line is damaged: it is ignored and counted in `damaged`, and its question is asked again;
- no line can be read, or a newer version wrote it: CorruptArtifact, and the file is left alone;
- two writers: the second gets JournalBusy; the system releases the lock when the first one dies.

A line is passed to the system before the answer is used, so that it survives the death of the process.  The file is
flushed to the disk once a second and at the end: a power cut loses at most what came after the last flush.
Each answer takes about 200 bytes of memory, for its key and its place.  Knows no model and no mention."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.store.artifacts import failed_writes_are_reported

VERSION = 1
MOST_LINE = 16 * 1024 * 1024
"Bytes of a line; a longer piece without a line break is damage, and is skipped without being read into memory."
_FLUSHED_AFTER = 1.0
"Seconds."
_CHECK = 16
"Number of hexadecimal digits of the SHA-256 over the rest of the line."
_BEFORE, _BEHIND = b'{"check":"', b'",'
_BUSY = (errno.EACCES, errno.EAGAIN)
_SHOWN = 3
Json = dict[str, Any]


class JournalBusy(BadInput):
    """Another process is writing the journal."""


class Journal:
    """An open journal, and a context manager.  One process at a time can have it open."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal at `path`.  Raises JournalBusy, CorruptArtifact, BadInput or OutOfSpace."""
        self.path = path
        self.damaged = 0
        "Lines that could not be read when the journal was opened."
        self.failures = 0
        "How many failures were recorded, in this run and in earlier ones."
        self._damaged_lines: list[int] = []
        self._places: dict[bytes, int] = {}  # key -> where its line begins
        with failed_writes_are_reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(self._handle).st_mode):
                raise BadInput(f"{path} is not a regular file", hint=shell_line("ls -l", path))
            self._lock()
            self._reader: BinaryIO = path.open("rb")
            try:
                self._begin()
            except BaseException:
                self._reader.close()
                raise
        except BaseException:
            os.close(self._handle)
            raise
        self._flushed, self._flushed_end = time.monotonic(), self._end

    def __len__(self) -> int:
        """Return how many questions have an answer."""
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._places

    def get(self, key: str) -> Json | None:
        """Return the answer to a question, or None.  Raises CorruptArtifact if the file was changed meanwhile."""
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        self._reader.seek(place)
        row = _checked(self._reader.readline(MOST_LINE))
        if row is None or row.get("key") != key:
            raise CorruptArtifact(
                f"{self.path} was changed at byte {place:,} while it was open",
                hint="run the same command again; damaged answers are asked for again",
            )
        answer: Json = row["answer"]
        return answer

    def keep(self, key: str, answer: Mapping[str, Any]) -> None:
        """Save the answer to a question.  A second answer to it is ignored, so that answers do not change."""
        name = bytes.fromhex(key)
        if name in self._places:
            return
        place = self._end
        self._append({"key": key, "answer": dict(answer)})
        self._places[name] = place

    def keep_failure(self, key: str, why: Mapping[str, Any]) -> None:
        """Record that a question was not answered.  The next run asks it again."""
        self._append({"key": key, "failure": dict(why)})
        self.failures += 1

    @property
    def note(self) -> str:
        """Return a sentence about damaged lines; empty if there are none."""
        if not self.damaged:
            return ""
        lines = ", ".join(map(str, self._damaged_lines)) + (", ..." if self.damaged > _SHOWN else "")
        noun = "line is" if self.damaged == 1 else "lines are"
        return f"{self.damaged:,} {noun} damaged in {self.path} ({lines}); their questions are asked again"

    def close(self) -> None:
        """Flush everything to the disk and release the lock."""
        if self._handle < 0:
            return
        self._reader.close()
        try:
            with failed_writes_are_reported(self.path):
                self._flush(after=0)
        finally:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- writing ------------------------------------------------------------------------------------------------

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                fact = f"another process is writing {self.path}"
                raise JournalBusy(fact, hint="wait until it has finished, or choose another --run") from None
            fact = f"cannot lock {self.path} ({error.strerror}), so a second writer could damage it"
            raise BadInput(fact, hint=shell_line("df -T", self.path.parent, note="choose another disk")) from None

    def _append(self, row: Json) -> None:
        line = _sealed(row)
        if len(line) > MOST_LINE:
            raise BadInput(
                f"cannot save an answer of {len(line):,} bytes: it is longer than a line of {self.path} may be"
            )
        with failed_writes_are_reported(self.path):
            if os.fstat(self._handle).st_size != self._end:  # an earlier write was interrupted
                os.ftruncate(self._handle, self._end)
            try:
                self._write(line)
            except OSError:
                os.ftruncate(self._handle, self._end)
                raise
            self._end += len(line)
            self._flush(after=_FLUSHED_AFTER)

    def _flush(self, *, after: float) -> None:
        if self._end != self._flushed_end and time.monotonic() - self._flushed >= after:
            os.fsync(self._handle)
            self._flushed, self._flushed_end = time.monotonic(), self._end

    def _write(self, line: bytes) -> None:
        written = os.write(self._handle, line)
        while written < len(line):
            written += os.write(self._handle, line[written:])

    # --- opening ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Read which keys have answers, cut off an unfinished last line, and write the first line of a new file."""
        head = _sealed({"journal": VERSION})
        known = 0
        self._end = 0
        for number, (place, end, line) in enumerate(_lines(self._reader), 1):
            row = _checked(line)
            if row is None:
                self.damaged += 1
                self._damaged_lines += [number][: _SHOWN - len(self._damaged_lines)]
            else:
                known += 1
                self._note(row, place, number)
            self._end = end
        size = os.fstat(self._handle).st_size
        if not known and not head.startswith(self._first(len(head))):
            self._refuse(f"{self.path} is not a journal: none of its lines can be read ({size:,} bytes)")
        with failed_writes_are_reported(self.path):
            if size > self._end:
                os.ftruncate(self._handle, self._end)
            if not known:
                self._write(head)
                self._end = len(head)
                os.fsync(self._handle)
                _flush_folder(self.path.parent)

    def _note(self, row: Json, place: int, number: int) -> None:
        if "journal" in row and row["journal"] != VERSION:
            self._refuse(f"{self.path}:{number}: journal version {row['journal']!r}; this localmel reads {VERSION}")
        if "failure" in row:
            self.failures += 1
        elif "answer" in row:
            self._places.setdefault(bytes.fromhex(row["key"]), place)

    def _first(self, n_bytes: int) -> bytes:
        self._reader.seek(0)
        return self._reader.read(n_bytes)

    def _refuse(self, fact: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.aside")
        hint = shell_line("mv", self.path, aside, note="then run the same command again: everything is asked again")
        raise CorruptArtifact(fact, hint=hint)


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Yield where each finished line begins and ends, and its bytes; no bytes for a line that is too long.

    What follows the last line break is not yielded."""
    place = 0
    while line := file.readline(MOST_LINE):
        end = place + len(line)
        whole = line.endswith(b"\n")
        if not whole and len(line) == MOST_LINE:
            line = b""
            while not whole and (piece := file.readline(MOST_LINE)):
                end += len(piece)
                whole = piece.endswith(b"\n")
        if not whole:
            return
        yield place, end, line
        place = end


def _sealed(row: Json) -> bytes:
    rest = json.dumps(row, separators=(",", ":"), allow_nan=False)[1:].encode("ascii")
    return _BEFORE + _check(rest) + _BEHIND + rest + b"\n"


def _checked(line: bytes) -> Json | None:
    """Return the content of a line, or None if it is not, byte for byte, what was written."""
    start = len(_BEFORE) + _CHECK + len(_BEHIND)
    rest = line[start:-1]
    if line[:start] != _BEFORE + _check(rest) + _BEHIND or not line.endswith(b"\n"):
        return None
    try:
        row: Json = json.loads(b"{" + rest)
        keyed = "journal" in row or (len(bytes.fromhex(row["key"])) and isinstance(row.get("answer", {}), dict))
    except (ValueError, KeyError, TypeError, RecursionError):  # a valid hash over something else
        return None
    return row if keyed else None


def _check(rest: bytes) -> bytes:
    return hashlib.sha256(rest).hexdigest()[:_CHECK].encode()


def _flush_folder(folder: Path) -> None:
    """Flush a folder, without which a new file in it may be lost in a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
