"""What every reader of the import gives: entities and triples, each with the place where it was read.

In: nothing.  Out: the row types, the protocol of a source, and the one policy for lines that cannot be used.
Knows no file format and no database."""

from __future__ import annotations

import bz2
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from localmel.errors import BadInput, ImportProblem, MissingExtra
from localmel.records import Entity
from localmel.store import progress

"Told how many more bytes of the files (as they lie on disk, compressed) have been read."


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityRow:
    """An entity with where it was read."""

    entity: Entity
    source: str
    line: int


class TripleRow(NamedTuple):
    """A triple with where it was read; a bare tuple, because millions of them pass through."""

    head: str
    predicate: str
    relation: str
    tail_id: str
    "Empty for a literal."
    tail: str
    source: str
    line: int


class KbSource(Protocol):
    """Something to import.  Call `entities` to its end, then `triples`; heads may be unknown, ids may stand twice."""

    @property
    def total_bytes(self) -> int:
        """What the `on_bytes` given to the source adds up to when both have been read to their ends."""

    def entities(self) -> Iterator[EntityRow]:
        """Every entity, in the order of the file."""

    def triples(self) -> Iterator[TripleRow]:
        """Every triple, in the order of the file."""


class Problems:
    """What happens to a line that cannot be used, for the readers and the store alike.

    Without `on_problem`, problems are collected and raised together as one BadInput: at the 20th, or by `finish`,
    which whoever started the import calls once at the end.  With it, each is handed over, counted, and left out."""

    LIMIT = 20

    def __init__(self, *, on_problem: Callable[[ImportProblem], None] | None = None) -> None:
        self.count = 0
        self._on_problem = on_problem
        self._collected: list[ImportProblem] = []

    def report(self, problem: ImportProblem) -> None:
        """Note one problem.  Raises BadInput when it is one too many."""
        self.count += 1
        if self._on_problem is not None:
            self._on_problem(problem)
            return
        self._collected.append(problem)
        if self.count >= self.LIMIT:
            self._raise(f"{self.count} lines cannot be used, and reading stopped there")

    def finish(self) -> None:
        """Raise what has been collected, if anything."""
        if self._collected:
            self._raise("1 line cannot be used" if self.count == 1 else f"{self.count} lines cannot be used")

    def _raise(self, fact: str) -> None:
        listed = [f"  {problem.fact}" + (f" ({problem.hint})" if problem.hint else "") for problem in self._collected]
        raise BadInput("\n".join([f"{fact}:", *listed]), hint="mend them, or add --skip-bad to import all the others")


def excerpt(value: object, width: int = 60) -> str:
    """A value as a problem shows it: quoted and short."""
    try:
        text = repr(value[:width] if isinstance(value, str | bytes | list | tuple) else value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= width else f"{text[: width - 1]}…"


MAX_LINE = 64 << 20
"Bytes; the longest line of Wikidata has about 5 MB."
_PIECE = 1 << 20
_AGAIN = "copy or download it again"
_KINDS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstandard"}
_MAGIC = {"gzip": b"\x1f\x8b\x08", "bzip2": b"BZh", "zstandard": b"\x28\xb5\x2f\xfd"}
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
# What one call may be fed, so that the most compressible input still gives pieces of bounded size.
_FEED = {"gzip": 64 << 10, "bzip2": 64 << 10, "zstandard": 4 << 10}

_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NO_TEXT_BUT_TAB = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_C0 = bytes(byte for byte in [*range(0x20), 0x7F] if byte not in b"\t\n")
_C1 = re.compile(rb"\xc2[\x80-\x9f]")


class Block(NamedTuple):
    """Some lines that follow each other, without their ends."""

    first: int
    "The number of the first line; the first of the file is 1."
    lines: list[str]


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def clean(text: str) -> str:
    """The text with a blank for every character that is none, and no blanks around it."""
    return _NO_TEXT.sub(" ", text).strip()


def stem_suffix(path: Path) -> str:
    """The suffix below the one that names the compression: ".jsonl" of a.jsonl.gz."""
    return (Path(path.stem) if path.suffix in _KINDS else path).suffix.lower()


def size_of(path: Path | None) -> int:
    """Bytes on disk, 0 where there is no such file (reading it will say so)."""
    return path.stat().st_size if path is not None and path.is_file() else 0


def read_blocks(path: Path, problems: Problems, *, max_line: int = MAX_LINE) -> Iterator[Block]:
    """All lines of the file.  Raises BadInput for a file that cannot be read to its end."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror})", hint=f"ls -l {path}") from None
    with raw:
        number, told, pending, waiting = 1, 0, list[bytes](), 0
        try:
            for piece in _pieces(path, raw):
                progress.advance(raw.tell() - told)
                told = raw.tell()
                end = piece.rfind(b"\n")
                if end >= 0:
                    pending.append(piece[:end])
                    lines = _decoded(b"".join(pending), path, number, problems)
                    yield Block(number, lines)
                    number += len(lines)
                    pending, waiting = [], 0
                pending.append(piece[end + 1 :])
                waiting += len(pending[-1])
                if waiting > max_line:
                    fact = f"{path}:{number}: a line of more than {max_line >> 20} MiB"
                    raise BadInput(fact, hint=f"head -c 300 {path}   # does it have line ends?")
        except EOFError:
            raise BadInput(f"{path} is cut off: {_so_far(number)}", hint=_AGAIN) from None
        except (OSError, zlib.error, ValueError) as error:
            raise BadInput(f"{path} is damaged ({error}): {_so_far(number)}", hint=_AGAIN) from None
        progress.advance(raw.tell() - told)
        if last := b"".join(pending):
            yield Block(number, _decoded(last, path, number, problems))


def _so_far(number: int) -> str:
    return f"its last whole line is {number - 1}" if number > 1 else "no whole line could be read"


def _pieces(path: Path, raw: BinaryIO) -> Iterator[bytes]:
    start = raw.read(10)
    raw.seek(0)
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        kind = next((kind for kind, magic in _MAGIC.items() if start.startswith(magic)), None)
        if kind == "bzip2" and start[4:] not in _BZIP2_BLOCKS:
            kind = None  # text that happens to start with these letters
    if kind is None:
        while piece := raw.read(_PIECE):
            yield piece
    else:
        yield from _decompressed(raw, kind)


def _decompressed(raw: BinaryIO, kind: str) -> Iterator[bytes]:
    """Member after member; raises EOFError where the last one is not whole."""
    new = _new_decompressor(kind)
    decompressor = new()
    while data := raw.read(_FEED[kind]):
        while data:
            if decompressor.eof:
                data = data.lstrip(b"\0")  # gzip files may be padded
                if not data:
                    break
                decompressor = new()
            if isinstance(decompressor, bz2.BZ2Decompressor):
                yield decompressor.decompress(data, _PIECE)
                while not (decompressor.eof or decompressor.needs_input):
                    yield decompressor.decompress(b"", _PIECE)
            else:
                yield decompressor.decompress(data)
            data = decompressor.unused_data if decompressor.eof else b""
    if not decompressor.eof:
        raise EOFError


def _new_decompressor(kind: str) -> Callable[[], _Decompressor]:
    if kind == "gzip":
        return lambda: zlib.decompressobj(wbits=31)
    if kind == "bzip2":
        return bz2.BZ2Decompressor
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("reading .zst needs the package zstandard", hint="pip install zstandard") from None

    class Zstandard:
        """As the others, and failing with ValueError."""

        def __init__(self) -> None:
            self._inner = zstandard.ZstdDecompressor().decompressobj()

        @property
        def eof(self) -> bool:
            return self._inner.eof

        @property
        def unused_data(self) -> bytes:
            return self._inner.unused_data

        def decompress(self, data: bytes, /) -> bytes:
            try:
                return self._inner.decompress(data)
            except zstandard.ZstdError as error:
                raise ValueError(error) from None

    return Zstandard


def _decoded(block: bytes, path: Path, first: int, problems: Problems) -> list[str]:
    if first == 1:
        if block.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in block[:4]:
            hint = f"iconv -f UTF-16 -t UTF-8 {path} > {path.stem}.utf8{path.suffix}"
            raise BadInput(f"{path} is UTF-16 (or no text at all); UTF-8 is read", hint=hint)
        block = block.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").removesuffix(b"\r")
    try:
        lines = block.decode().split("\n")
    except UnicodeDecodeError:
        lines = [_line(line, path, number, problems) for number, line in enumerate(block.split(b"\n"), first)]
    if _has_no_text(block):
        lines = [_NO_TEXT_BUT_TAB.sub(" ", line) for line in lines]
    return lines


def _line(line: bytes, path: Path, number: int, problems: Problems) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        shown = excerpt(line[max(0, error.start - 20) : error.start + 20])
        fact = f"not UTF-8 at byte {error.start + 1} of the line: {shown}"
        problems.report(ImportProblem(fact, source=str(path), line=number))
        return ""


def _has_no_text(block: bytes) -> bool:
    """Whether there is anything to replace; far cheaper than replacing."""
    return (
        len(block.translate(None, _C0)) < len(block)
        or b"\xe2\x80\xa8" in block
        or b"\xe2\x80\xa9" in block
        or _C1.search(block) is not None
    )
