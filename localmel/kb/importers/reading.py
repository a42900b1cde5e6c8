"""Parts shared by all importers: rows with their place, one policy for bad lines, and files as numbered lines.

In: a path; plain text, gzip, bzip2 or zstandard.  Out: clean lines in order, in bounded memory.  A line that is not
UTF-8 is a problem and comes out empty; a file that is cut off, damaged or in another encoding is an error that names
the last whole line.  Control characters and line separators come out as blanks.  Knows no file format, no database."""

from __future__ import annotations

import bz2
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

from localmel.errors import BadInput, ImportProblem, MissingExtra, shell_line
from localmel.records import Entity
from localmel.store import progress

MAX_LINE = 64 << 20
"Bytes; the longest line of Wikidata has about 5 MB."
COMPRESSED = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstandard"}
"Suffix -> kind of compression."
_PIECE = 1 << 20
_AGAIN = "copy or download it again"
_MAGIC = {"gzip": b"\x1f\x8b\x08", "bzip2": b"BZh", "zstandard": b"\x28\xb5\x2f\xfd"}
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
# How much one call is fed, so that even the most compressible input gives pieces of bounded size.
_FEED = {"gzip": 64 << 10, "bzip2": 64 << 10, "zstandard": 4 << 10}

_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NO_TEXT_BUT_TAB = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_C0 = bytes(byte for byte in [*range(0x20), 0x7F] if byte not in b"\t\n")
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
T = TypeVar("T")


# --- rows and problems ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityRow:
    """An entity with the place where it was read."""

    entity: Entity
    source: str
    line: int


class TripleRow(NamedTuple):
    """A triple with the place where it was read; a bare tuple, because millions of them pass through."""

    head: str
    predicate: str
    relation: str
    tail_id: str
    "Empty for a literal."
    tail: str
    source: str
    line: int


class KbSource(Protocol):
    """Something to import.  Exhaust `entities`, then `triples`; heads may be unknown and ids may repeat."""

    @property
    def total_bytes(self) -> int:
        """Return how many bytes of progress are reported once both have been read to their ends."""

    def entities(self) -> Iterator[EntityRow]:
        """Yield every entity in file order."""

    def triples(self) -> Iterator[TripleRow]:
        """Yield every triple in file order."""


class Problems:
    """Decides what happens to a line that cannot be used, for the readers and the store alike.

    Without `on_problem`, problems are collected and raised together as one BadInput: at the 20th, or by `finish`,
    which the importing function calls once at the end.  With it, each problem is passed on, counted and skipped."""

    LIMIT = 20

    def __init__(self, *, on_problem: Callable[[ImportProblem], None] | None = None) -> None:
        self.count = 0
        self._on_problem = on_problem
        self._collected: list[ImportProblem] = []

    def report(self, fact: str, source: Path | str, line: int, *, hint: str = "") -> None:
        """Note one problem.  Raises BadInput when the limit is reached."""
        problem = ImportProblem(fact, source=str(source), line=line, hint=hint)
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
        raise BadInput("\n".join([f"{fact}:", *listed]), hint="fix them, or add --skip-bad to import all other lines")


def ignored_problems() -> Problems:
    """Return a collector that drops everything, for the second reading of a file."""
    return Problems(on_problem=lambda problem: None)


def excerpt(value: object, width: int = 60) -> str:
    """Return a value as an error message shows it: quoted and short."""
    try:
        text = repr(value[:width] if isinstance(value, str | bytes | list | tuple) else value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= width else f"{text[: width - 1]}…"


# --- text and paths -------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Replace every control character, line separator and surrogate by a blank, and strip the result."""
    return _NO_TEXT.sub(" ", text).strip()


def stem_suffix(path: Path) -> str:
    """Return the suffix below the one that names the compression: ".jsonl" for a.jsonl.gz."""
    return (Path(path.stem) if path.suffix in COMPRESSED else path).suffix.lower()


def plain_or_compressed(*places: Path) -> Path | None:
    """Return the first of these files that exists, plain or compressed; None if there is none."""
    files = (path.with_name(f"{path.name}{suffix}") for path in places for suffix in ("", *COMPRESSED))
    return next((file for file in files if file.is_file()), None)


def size_of(*paths: Path | None) -> int:
    """Return the bytes on disk of these files, 0 for one that is missing (reading it reports that)."""
    return sum(path.stat().st_size for path in paths if path is not None and path.is_file())


# --- lines ----------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Consecutive lines, without their line ends."""

    first: int
    "Number of the first line, counted from 1."
    lines: list[str]


def parsed_lines(path: Path, problems: Problems, parse: Callable[[str], T]) -> Iterator[tuple[int, T]]:
    """Yield (number, `parse(line)`) for every line that is not blank; report each ValueError that `parse` raises."""
    for number, line in numbered_lines(path, problems):
        if not line or line.isspace():
            continue
        try:
            found = parse(line)
        except ValueError as error:
            problems.report(str(error), path, number)
        else:
            yield number, found


def numbered_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yield every line of the file with its number, from 1."""
    for block in read_blocks(path, problems):
        yield from enumerate(block.lines, block.first)


def read_blocks(path: Path, problems: Problems, *, max_line: int = MAX_LINE) -> Iterator[Block]:
    """Yield all lines of the file, some at a time.  Raises BadInput for a file that cannot be read to its end."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", hint=shell_line("ls -l", path)) from None
    with raw:
        number, reported, pending, waiting = 1, 0, list[bytes](), 0
        try:
            for piece in _pieces(path, raw):
                progress.advance(raw.tell() - reported)
                reported = raw.tell()
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
                    raise BadInput(fact, hint=shell_line("head -c 300", path, note="does it have line ends?"))
        except EOFError:
            raise BadInput(f"{path} is cut off: {_so_far(number)}", hint=_AGAIN) from None
        except (OSError, ValueError) as error:
            raise BadInput(f"{path} is damaged ({error}): {_so_far(number)}", hint=_AGAIN) from None
        progress.advance(raw.tell() - reported)
        if last := b"".join(pending):
            yield Block(number, _decoded(last, path, number, problems))


def _so_far(number: int) -> str:
    return f"its last whole line is {number - 1}" if number > 1 else "no whole line could be read"


def _pieces(path: Path, raw: BinaryIO) -> Iterator[bytes]:
    start = raw.read(10)
    raw.seek(0)
    kind = COMPRESSED.get(path.suffix.lower())
    if kind is None:
        kind = next((kind for kind, magic in _MAGIC.items() if start.startswith(magic)), None)
        if kind == "bzip2" and start[4:] not in _BZIP2_BLOCKS:
            kind = None  # text that happens to start with these letters
    if kind is None:
        while piece := raw.read(_PIECE):
            yield piece
    else:
        yield from _decompressed(raw, kind)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _decompressed(raw: BinaryIO, kind: str) -> Iterator[bytes]:
    """Yield member after member.  Raises EOFError if the last one is not whole, ValueError if one is damaged."""
    new, damage = _decompressor(kind)
    decompressor = new()
    try:
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
    except damage as error:
        raise ValueError(error) from None
    if not decompressor.eof:
        raise EOFError


def _decompressor(kind: str) -> tuple[Callable[[], _Decompressor], type[Exception]]:
    """Return what makes a decompressor, and the error that it raises for damaged data."""
    if kind == "gzip":
        return lambda: zlib.decompressobj(wbits=31), zlib.error
    if kind == "bzip2":
        return bz2.BZ2Decompressor, OSError
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("reading .zst needs the package zstandard", hint="pip install zstandard") from None
    return lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError


def _decoded(block: bytes, path: Path, first: int, problems: Problems) -> list[str]:
    if first == 1:
        if block.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in block[:4]:
            hint = f"iconv -f UTF-16 -t UTF-8 {path} > {path.stem}.utf8{path.suffix}"
            raise BadInput(f"{path} is UTF-16 (or not text at all); localmel reads UTF-8", hint=hint)
        block = block.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").removesuffix(b"\r")
    try:
        lines = block.decode().split("\n")
    except UnicodeDecodeError:
        lines = [_line(line, path, number, problems) for number, line in enumerate(block.split(b"\n"), first)]
    if _needs_cleaning(block):
        lines = [_NO_TEXT_BUT_TAB.sub(" ", line) for line in lines]
    return lines


def _line(line: bytes, path: Path, number: int, problems: Problems) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        shown = excerpt(line[max(0, error.start - 20) : error.start + 20])
        problems.report(f"not UTF-8 at byte {error.start + 1} of the line: {shown}", path, number)
        return ""


def _needs_cleaning(block: bytes) -> bool:
    """Tell whether there is anything to replace, which is far cheaper than replacing."""
    return (
        len(block.translate(None, _C0)) < len(block)
        or b"\xe2\x80\xa8" in block
        or b"\xe2\x80\xa9" in block
        or _C1.search(block) is not None
    )
