"""Write folders that are either whole or absent, and check them when they are read.

In: code that fills a temporary folder.  Out: a folder that was renamed into place after its `manifest.json`, with the
hash and the size of every file, was written.  A reader refuses a folder that is unfinished, damaged, of another kind or
of another version.  Knows nothing of what the files mean."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.errors import BadInput, CorruptArtifact, OutOfSpace, shell_line

if TYPE_CHECKING:  # manifests are read by `localmel doctor`, which must run where NumPy is broken
    import numpy as np
    from numpy.typing import NDArray

MANIFEST = "manifest.json"
HASHED_BYTES = 512 * 1024 * 1024
Json = dict[str, Any]


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, which is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG)
"Error numbers of the operating system for a path that may not be written."


@contextmanager
def failed_writes_are_reported(target: Path) -> Iterator[None]:
    """Turn errors of the operating system about space and permissions into errors that name the place."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise OutOfSpace(
                f"cannot write {target}: the disk is full; what was there before is unchanged",
                hint=shell_line("df -h", target.parent, note="free some space, then run the same command again"),
            ) from error
        if error.errno in REFUSED:
            fact = f"cannot write {target} ({error.strerror}: {error.filename})"
            raise BadInput(fact, hint=shell_line("ls -ld", target.parent, target)) from error
        raise


def write_json(path: Path, value: object) -> None:
    """Write JSON under a temporary name, flush it to the disk and rename it into place."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with failed_writes_are_reported(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(value, file, ensure_ascii=False, indent=1, sort_keys=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path, *, kind: str, version: int, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder next to `target`; then seal it with a manifest and rename it to `target`.

    An existing `target` is replaced.  On an exception the temporary folder is deleted and `target` stays unchanged.
    `facts` (settings, hashes of what this is made from) are copied into the manifest."""
    target = behind_links(target)
    with temporary_folder(target) as temporary:
        yield temporary
        files = {
            str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / MANIFEST, {**facts, "kind": kind, "version": version, "files": files})
        replace_folder(temporary, target)


def behind_links(target: Path) -> Path:
    """Return the real place of a folder, so that a link to another disk stays a link."""
    return Path(os.path.realpath(target)) if target.is_symlink() else target


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder next to `target`, which is deleted afterwards unless it was renamed.

    Folders that killed processes left behind are deleted first."""
    with failed_writes_are_reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.????????"):
            with _locked(left) as abandoned:
                if abandoned:
                    shutil.rmtree(left, ignore_errors=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            temporary.mkdir()
            with _locked(temporary):  # released by the system when this process dies, however it dies
                yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Mark a folder as in use by this process.  Yields False if another process uses it or it cannot be locked."""
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except OSError:
        locked = False
    try:
        yield locked
    finally:
        if handle is not None:
            os.close(handle)


def replace_folder(source: Path, target: Path) -> None:
    """Rename `source` to `target`, and delete a folder that was there; on Linux it is replaced in one step."""
    if target.is_dir() and _exchanged(source, target):
        shutil.rmtree(source, ignore_errors=True)
        return
    old = target.with_name(f".{target.name}.old.{uuid.uuid4().hex[:8]}")
    try:
        target.rename(old)
    except FileNotFoundError:
        source.rename(target)
        return
    try:
        source.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that neither is ever absent.  Returns False if the system cannot."""
    import ctypes

    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def read_manifest(folder: Path, *, kind: str, version: int, every_byte: bool = False) -> Json:
    """Return the manifest of a sealed folder, after checking kind, version, and size and hash of every file.

    Files over HASHED_BYTES are hashed only with `every_byte`: hashing gigabytes would delay every start.
    Raises FileNotFoundError where there is no manifest, CorruptArtifact."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        found = (manifest["kind"], manifest["version"])
        files = {name: (facts["bytes"], facts["sha256"]) for name, facts in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, NotADirectoryError) as error:
        raise CorruptArtifact(f"{path} is not a manifest ({error})", hint=_again(folder)) from None
    if found[0] != kind:
        raise CorruptArtifact(f"{folder} holds {found[0]!r}, not {kind!r}")
    if found[1] != version:
        raise CorruptArtifact(
            f"{folder} is {kind} version {found[1]}; this localmel reads version {version}", hint=_again(folder)
        )
    for name, (expected, sha256) in files.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != expected:
            fact = "is missing" if size is None else f"is damaged: it has {size} bytes, its manifest says {expected}"
        elif (every_byte or size <= HASHED_BYTES) and sha256_of(file) != sha256:
            fact = f"is damaged: its hash is not the one in its manifest (sha256 {sha256})"
        else:
            continue
        raise CorruptArtifact(f"{file} {fact}", hint=_again(folder))
    return dict(manifest)


def _again(folder: Path) -> str:
    return shell_line("rm -r", folder, note="then run again what made it")


# --- arrays: safetensors files, written in pieces and read memory-mapped ----------------------------------------

_DTYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U32": "<u4", "I8": "|i1", "U8": "|u1"}
_CODES = {code: name for name, code in _DTYPES.items()}


def create_arrays(path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, NDArray[Any]]:
    """Create a safetensors file and return its arrays, zeroed and writable in place.

    shapes: for each name a NumPy type ("<f2") and a shape.  The file is the array, so little memory is used."""
    import numpy as np

    header: Json = {}
    offset = 0
    for name, (dtype, shape) in shapes.items():
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with failed_writes_are_reported(path), path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.flush()
        if hasattr(os, "posix_fallocate"):  # fail here if the disk is too small, not by a signal when a page is written
            os.posix_fallocate(file.fileno(), 0, 8 + len(text) + offset)
        else:
            file.truncate(8 + len(text) + offset)
    return map_arrays(path, writable=True)


class _Arrays(dict[str, Any]):
    """The arrays of one file by name; one that is missing is damage."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        raise CorruptArtifact(f"{self._path} lacks the array {name!r}", hint=_again(self._path.parent))


def map_arrays(path: Path, *, writable: bool = False) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file, memory-mapped: nothing is read until it is used.

    Raises CorruptArtifact for a damaged file, and when a missing array is taken by its name."""
    import numpy as np

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > 1 << 20:
                raise ValueError(f"header of {length} bytes")
            header = json.loads(file.read(length))
        if not (size := path.stat().st_size - 8 - length):
            flat: np.ndarray[Any, Any] = np.zeros(0, np.uint8)
        else:
            flat = np.memmap(path, np.uint8, "r+" if writable else "r", 8 + length, (size,))
            if not writable:
                flat = flat.view(np.ndarray)  # the same mapping, without the cost of np.memmap at every slice
        arrays = _Arrays(path)
        for name, facts in header.items():
            start, end = facts["data_offsets"]
            arrays[name] = flat[start:end].view(_DTYPES[facts["dtype"]]).reshape(facts["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise CorruptArtifact(f"cannot read the arrays in {path} ({error})", hint=_again(path.parent)) from None
    return arrays


def flush_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Flush the arrays of `create_arrays` to the disk."""
    for array in arrays.values():
        if hasattr(array, "flush"):
            array.flush()
            return  # all arrays of a file share one mapping
