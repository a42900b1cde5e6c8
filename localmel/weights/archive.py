"""The tar file of a bundle, written one way and read strictly.

In: members in order.  Out: the same bytes every time; and back, the list of members with their places, before any of
them is unpacked.  Only plain files exist here: whatever else a tar can hold (links, devices, folders, sparse files,
extensions, repeated names, anything after the end) is refused by name.  A header must be, byte for byte, the one that
this module writes, so nothing in a bundle stands outside a hash or this rule.  Knows no manifest and no model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.store import progress
from localmel.weights.contents import PIECE, UnsafeWeights, refused_name

BLOCK = 512
MOST_MEMBERS = 10_000
_END = bytes(2 * BLOCK)
_OCTAL_LIMIT = 8**11
_KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a character device", b"4": "a block device", b"5": "a folder",
    b"6": "a pipe", b"7": "a contiguous file", b"S": "a sparse file", b"L": "a long name", b"K": "a long link",
    b"x": "an extended header", b"g": "a global header", b"V": "a volume label", b"M": "a continued file",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in the archive: `folder` (may be empty) and `name` with / between them, and where its bytes lie."""

    folder: str
    name: str
    start: int
    size: int

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name


def header(folder: str, name: str, size: int) -> bytes:
    """The one header of a file: POSIX ustar, mode 644, owner 0, time 0.  Sizes from 8 GiB on are in base 256."""
    length = b"%011o\0" % size if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
    block = b"".join(
        (
            name.encode("ascii").ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", length, b"00000000000\0",
            b" " * 8, b"0", bytes(100), b"ustar\x0000", bytes(32), bytes(32), b"0000000\0", b"0000000\0",
            folder.encode("ascii").ljust(155, b"\0"), bytes(12),
        )
    )  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def write_bytes(file: BinaryIO, folder: str, name: str, data: bytes) -> None:
    """Append a small member."""
    file.write(header(folder, name, len(data)) + data + bytes(-len(data) % BLOCK))


def write_file(file: BinaryIO, folder: str, name: str, source: Path, size: int) -> str:
    """Append a member from a file of that size; returns its sha256.  Raises CorruptArtifact if the size differs."""
    file.write(header(folder, name, size))
    digest, left = sha256(), size
    with source.open("rb") as given:
        while piece := given.read(PIECE):
            if (left := left - len(piece)) < 0:
                break
            digest.update(piece)
            file.write(piece)
            progress.advance(len(piece))
    if left:
        raise CorruptArtifact(f"{source} changed while it was packed: it had {size:,} bytes")
    file.write(bytes(-size % BLOCK))
    return digest.hexdigest()


def write_end(file: BinaryIO) -> None:
    """Close the archive."""
    file.write(_END)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The archive, open for reading.  Raises BadInput where there is no such file, or none that a bundle can be."""
    if path.is_dir():
        hint = shell_line("localmel weights install --adopt", path)
        raise BadInput(f"{path} is a folder, not a bundle", hint=hint)
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is no ordinary file", hint=shell_line("ls -l", path))
        file = path.open("rb")
    except FileNotFoundError:
        raise BadInput(f"there is no bundle {path}", hint=shell_line("ls -l", path.parent)) from None
    except (OSError, ValueError) as error:  # ValueError: a name that no disk takes
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{path} cannot be read ({why})", hint=shell_line("ls -l", path)) from None
    with file:
        yield file


def read_members(file: BinaryIO, path: Path) -> list[Member]:
    """All members, after every header, every padding and the end were checked; no content is read.

    `path` is only named in errors.  Raises CorruptArtifact for what is cut or altered, UnsafeWeights for what may not
    be in a bundle."""
    total = os.fstat(file.fileno()).st_size
    members: list[Member] = []
    seen: set[str] = set()
    position = 0
    while True:
        file.seek(position)
        block = file.read(BLOCK)
        if not position and not _may_begin(block):
            raise CorruptArtifact(f"{path} is no bundle: it does not begin as one", hint=_PACK)
        if len(block) < BLOCK:
            raise CorruptArtifact(f"{path} is cut off: it ends at byte {total:,} without an end mark")
        if not any(block):
            break
        member = _member(block, position + BLOCK, path)
        end = member.start + member.size
        position = end + (-member.size % BLOCK)
        if position > total:
            raise CorruptArtifact(f"{path} is cut off: {member.path} should end at byte {end:,}, the file at {total:,}")
        if member.path.casefold() in seen:
            raise UnsafeWeights(f"{path} has {member.path!r} twice")
        seen.add(member.path.casefold())
        members.append(member)
        if len(members) > MOST_MEMBERS:
            raise UnsafeWeights(f"{path} has more than {MOST_MEMBERS:,} members")
        file.seek(end)
        if any(file.read(position - end)):
            raise CorruptArtifact(f"{path} has bytes between {member.path} and the next member")
    file.seek(position)
    if file.read(2 * BLOCK + 1) != _END:
        raise CorruptArtifact(f"{path} does not end after its last member")
    return members


def read_member(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a small member."""
    file.seek(member.start)
    return file.read(member.size)


def _member(block: bytes, start: int, path: Path) -> Member:
    """One header -> the member, or the reason why it is none."""
    if block[257:263] not in (b"ustar\0", b"ustar ") and not _checksum_holds(block):
        raise CorruptArtifact(f"{path} is no tar file (at byte {start - BLOCK:,})")
    raw_name, raw_folder = block[:100].rstrip(b"\0"), block[345:500].rstrip(b"\0")
    shown = b"/".join(part for part in (raw_folder, raw_name) if part).decode("utf-8", "backslashreplace")
    if not _checksum_holds(block):
        raise CorruptArtifact(f"{path} has a damaged header for {shown!r}")
    if (kind := block[156:157]) != b"0":
        raise UnsafeWeights(f"{path}: {shown!r} is {_KINDS.get(kind, 'no plain file')}; only plain files are taken")
    name, folder = raw_name.decode("latin-1"), raw_folder.decode("latin-1")
    for part in (name, folder) if folder else (name,):
        reason = refused_name(f"{part}/x.json" if part == folder else part)
        if reason and not (part == name and part in _OWN_NAMES):
            raise UnsafeWeights(f"{path}: {shown!r} {reason}")
    size = _size(block[124:136])
    if size is None or header(folder, name, size) != block:
        raise CorruptArtifact(f"{path} was not written by `localmel weights pack`: the header of {shown!r} is another")
    return Member(folder=folder, name=name, start=start, size=size)


_OWN_NAMES = ("manifest.json.sig",)
_FIRST = b"manifest.json\0"
_PACK = "localmel weights pack FOLDER --output BUNDLE.tar   # where the weights are; then carry that file over"


def _may_begin(block: bytes) -> bool:
    """Whether the first bytes are those of a tar, perhaps cut off or damaged; what they are is said later."""
    return block.startswith(_FIRST[: len(block)]) or block[257:262] == b"ustar" or not any(block)


def _checksum_holds(block: bytes) -> bool:
    try:
        expected = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return expected == sum(block[:148]) + 8 * ord(" ") + sum(block[156:])


def _size(field: bytes) -> int | None:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"x", 8)
    except ValueError:
        return None
