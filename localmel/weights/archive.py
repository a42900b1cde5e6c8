"""The tar file of a bundle: always written the same way, and read strictly.

In: members in order.  Out: the same bytes every time; and back, the list of members with their places, before any of
them is unpacked.  Only plain files are allowed: anything else a tar can hold (links, devices, folders, sparse files,
extensions, repeated names, bytes after the end) is refused by name.  The standard library parses a header, which must
then equal, byte for byte, the one that this module writes; so everything in a bundle is covered by a hash or by this
rule.  `tarfile` alone would skip damaged padding and bytes after the end.  Knows no manifest and no model."""

from __future__ import annotations

import os
import tarfile
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
    tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link", tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device", tarfile.DIRTYPE: "a folder", tarfile.FIFOTYPE: "a pipe",
    tarfile.CONTTYPE: "a contiguous file", tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGNAME: "a long name", tarfile.GNUTYPE_LONGLINK: "a long link",
    tarfile.XHDTYPE: "an extended header", tarfile.XGLTYPE: "a global header", b"V": "a volume label",
    b"M": "a continued file",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in the archive: its `folder` (may be empty) and `name`, joined by /, and the place of its bytes."""

    folder: str
    name: str
    start: int
    size: int

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name


def header(folder: str, name: str, size: int) -> bytes:
    """Return the only header a file may have: POSIX ustar, mode 644, owner 0, time 0; sizes from 8 GiB in base 256."""
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
    """Append a member from a file of that size and return its sha256.  Raises CorruptArtifact if the size differs."""
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
    """Open an archive for reading.  Raises BadInput where there is no such file, or it cannot be a bundle."""
    if path.is_dir():
        hint = shell_line("localmel weights install --adopt", path)
        raise BadInput(f"{path} is a folder, not a bundle", hint=hint)
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"cannot read {path}: it is not an ordinary file", hint=shell_line("ls -l", path))
        file = path.open("rb")
    except FileNotFoundError:
        raise BadInput(f"there is no bundle {path}", hint=shell_line("ls -l", path.parent)) from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"cannot read {path}: {why}", hint=shell_line("ls -l", path)) from None
    with file:
        yield file


def read_members(file: BinaryIO, path: Path) -> list[Member]:
    """Return all members after checking every header, every padding and the end; reads no content.

    Errors name `path`.  Raises CorruptArtifact for an archive that is cut off or altered, UnsafeWeights for forbidden
    members."""
    total = os.fstat(file.fileno()).st_size
    members: list[Member] = []
    seen: set[str] = set()
    position = 0
    while True:
        file.seek(position)
        block = file.read(BLOCK)
        if not position and not _may_begin(block):
            raise CorruptArtifact(f"{path} is not a bundle: it does not begin like one", hint=_PACK)
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
    """Return the bytes of a small member."""
    file.seek(member.start)
    return file.read(member.size)


def _member(block: bytes, start: int, path: Path) -> Member:
    """Return the member of one header.  Raises CorruptArtifact or UnsafeWeights with the reason."""
    raw_name, raw_folder = block[:100].rstrip(b"\0"), block[345:500].rstrip(b"\0")
    shown = b"/".join(part for part in (raw_folder, raw_name) if part).decode("utf-8", "backslashreplace")
    try:
        info = tarfile.TarInfo.frombuf(block, "latin-1", "strict")
    except tarfile.TarError:
        if block[257:262] != b"ustar":
            raise CorruptArtifact(f"{path} is not a tar file (at byte {start - BLOCK:,})") from None
        raise CorruptArtifact(f"{path} has a damaged header for {shown!r}") from None
    if (kind := block[156:157]) != tarfile.REGTYPE:
        raise UnsafeWeights(
            f"{path}: {shown!r} is {_KINDS.get(kind, 'not a plain file')}; only plain files are allowed"
        )
    name, folder = raw_name.decode("latin-1"), raw_folder.decode("latin-1")
    for part in (name, folder) if folder else (name,):
        reason = refused_name(f"{part}/x.json" if part == folder else part)
        if reason and not (part == name and part in _OWN_NAMES):
            raise UnsafeWeights(f"{path}: {shown!r} {reason}")
    if header(folder, name, info.size) != block:
        raise CorruptArtifact(f"{path} was not written by `localmel weights pack`: it has another header for {shown!r}")
    return Member(folder=folder, name=name, start=start, size=info.size)


_OWN_NAMES = ("manifest.json.sig",)
_FIRST = b"manifest.json\0"
_PACK = "localmel weights pack FOLDER --output BUNDLE.tar   # where the weights are; then carry that file over"


def _may_begin(block: bytes) -> bool:
    """Say whether the first bytes could be those of a tar, perhaps cut off or damaged; later errors say which."""
    return block.startswith(_FIRST[: len(block)]) or block[257:262] == b"ustar" or not any(block)
