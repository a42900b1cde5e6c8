"""Arrays that survive the death of the process that makes them.

In: rows that are made bit by bit.  Out: for rows with a fixed order, a sealed folder of whole arrays
(`ResumableArrays`); for rows that are looked up by a hash of their content, a cache of vectors (`VectorCache`).
Each piece is on the disk when the call that adds it returns, so that a run that was killed goes on where it was.
The first kind keeps rows of any length, laid end to end with a count for each; the second only rows of one length."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from localmel.errors import CorruptArtifact, KbBusy, shell_line
from localmel.store.artifacts import (
    create_arrays,
    failed_writes_are_reported,
    flush_arrays,
    map_arrays,
    new_folder,
    read_manifest,
    write_json,
)

_FILE, _FACTS = "columns.safetensors", "facts.json"


class ResumableArrays:
    """The pieces of what will become the folder `target`.  Pieces that were made from other facts are dropped.

    One process at a time: the lock is held until `seal`, or until the object is garbage-collected."""

    def __init__(self, target: Path, facts: Mapping[str, Any]) -> None:
        """Go on with the pieces of an earlier run, or begin.  Raises KbBusy while another process writes them."""
        self._target, self._facts = target, dict(facts)
        self._folder = target.with_name(f".{target.name}.growing")
        self._lock = _locked(target)
        if not self._has_same_facts():
            shutil.rmtree(self._folder, ignore_errors=True)
        with failed_writes_are_reported(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / _FACTS, self._facts)
        self.pieces = 0
        "How many pieces there are already."
        while self._piece(self.pieces).is_file():
            self.pieces += 1

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write one more piece, flushed to the disk.  Raises OutOfSpace; earlier pieces are kept."""
        from safetensors.numpy import save

        path = self._piece(self.pieces)
        temporary = path.with_suffix(".part")
        with failed_writes_are_reported(path), temporary.open("wb") as file:
            file.write(save(dict(arrays)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self.pieces += 1

    def seal(self, *, kind: str, version: int) -> None:
        """Join the pieces, at least one, in the folder `target`, and delete them."""
        pieces = [map_arrays(self._piece(number)) for number in range(self.pieces)]
        shapes = {
            name: (array.dtype.str, (sum(len(piece[name]) for piece in pieces), *array.shape[1:]))
            for name, array in pieces[0].items()
        }
        with new_folder(self._target, kind=kind, version=version, facts=self._facts) as temporary:
            whole = create_arrays(temporary / _FILE, shapes)
            for name, array in whole.items():
                first = 0
                for piece in pieces:
                    array[first : first + len(piece[name])] = piece[name]
                    first += len(piece[name])
            flush_arrays(whole)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release(force=True)

    def _piece(self, number: int) -> Path:
        return self._folder / f"{number:06}.safetensors"

    def _has_same_facts(self) -> bool:
        try:
            found: object = json.loads((self._folder / _FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(found == json.loads(json.dumps(self._facts)))


def _locked(target: Path) -> FileLock:
    """Return the lock of this process, so that an object left half-way does not shut out the next one here."""
    with failed_writes_are_reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"), timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise KbBusy(
                f"another process is indexing or training: it writes {target}",
                hint=shell_line("fuser", lock.lock_file, note="shows which; wait for it, then run the same again"),
            ) from None
    return lock


def read_arrays(
    folder: Path, *, kind: str, version: int, every_byte: bool = False
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the manifest and the memory-mapped arrays of a folder that `ResumableArrays` sealed.

    Raises FileNotFoundError where there is none, CorruptArtifact for a damaged one."""
    manifest = read_manifest(folder, kind=kind, version=version, every_byte=every_byte)
    return manifest, map_arrays(folder / _FILE)


def starts_of(counts: NDArray[Any]) -> NDArray[Any]:
    """Return where rows of different lengths begin, (n + 1,).  counts: (n,) the length of each."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def key_of(content: bytes) -> int:
    """Return 64 bits that stand for some bytes.  Two of a million contents share a key once in 37 million times."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


class VectorCache:
    """Vectors of one space by a key of what they were made from.

    They come from an index that exists (`reuse`), and from a file that a run appends to (`write`).  The file has
    records of one length; a record that was cut off is dropped."""

    def __init__(self, folder: Path, *, width: int, sha256: str) -> None:
        """folder: where the finished vectors will be.  The file stands next to it, one for each space."""
        self._record = np.dtype([("key", "<i8"), ("vector", "<f2", (width,))])
        self._path = folder.with_name(f".{folder.name}.encoding.{sha256[:12]}")
        self._vectors: list[tuple[dict[int, int], NDArray[Any]]] = []
        if self._path.exists():
            whole = self._path.stat().st_size // self._record.itemsize
            with self._path.open("r+b") as file:
                file.truncate(whole * self._record.itemsize)
            if whole:
                records = np.memmap(self._path, self._record, "r")
                self.reuse(records["key"], records["vector"])

    def reuse(self, keys: NDArray[Any], vectors: NDArray[Any]) -> None:
        """Add vectors (n, width) that exist elsewhere, with their keys (n,)."""
        self._vectors.append((dict(zip(keys.tolist(), range(len(keys)), strict=True)), vectors))

    def reuse_index(
        self, folder: Path, file: str, pairs: Sequence[tuple[str, str]], *, kind: str, version: int, sha256: str
    ) -> Mapping[str, NDArray[Any]]:
        """Add the vectors of the index in `folder`, if it is whole and of the weights `sha256`, and return its arrays.

        pairs: the names of its arrays of keys and of vectors.  Returns nothing for an index that cannot be reused:
        what it held is encoded again."""
        try:
            manifest = read_manifest(folder, kind=kind, version=version, every_byte=True)
            arrays = map_arrays(folder / file)
        except (FileNotFoundError, CorruptArtifact):
            return {}
        if manifest.get("weights_sha256") != sha256:
            return {}
        for keys, vectors in pairs:
            if keys in arrays:
                self.reuse(arrays[keys], arrays[vectors])
        return arrays

    def find(self, key: int) -> NDArray[Any] | None:
        """Return the vector of a key, (width,), or None if there is none."""
        for places, vectors in self._vectors:
            if (found := places.get(key)) is not None:
                row: NDArray[Any] = vectors[found]
                return row
        return None

    def write(self, keys: NDArray[Any], vectors: NDArray[Any]) -> None:
        """Append new vectors (n, width) with their keys (n,) to the file, flushed to the disk."""
        records = np.empty(len(keys), self._record)
        records["key"], records["vector"] = keys, vectors
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with failed_writes_are_reported(self._path), self._path.open("ab") as file:
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def delete(self) -> None:
        """Delete the file: the finished index holds its vectors."""
        self._vectors.clear()
        self._path.unlink(missing_ok=True)
