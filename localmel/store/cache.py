"""Vectors that were made before, found by a key of what they were made from.

In: keys (hashes of a text or of a picture's bytes) and vectors.  Out: the vector of a key, if there is one.  Two
sources: the arrays of the last index, and the file that a run writes as it goes, which outlives an interruption."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.store.artifacts import failed_writes_are_reported


def key_of(content: bytes) -> int:
    """64 bits that stand for some bytes.  Among a million of them two are the same once in 37 million times."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


class KnownVectors:
    """Vectors of one space by key.

    The growing file has records of one length; a record cut off at the end is dropped."""

    def __init__(self, folder: Path, *, width: int, sha256: str) -> None:
        """folder: where the finished vectors are to stand; the growing file is its neighbour, one for each space."""
        self._record = np.dtype([("key", "<i8"), ("vector", "<f2", (width,))])
        self._path = folder.with_name(f".{folder.name}.encoding.{sha256[:12]}")
        self._vectors: list[tuple[dict[int, int], NDArray[Any]]] = []
        if self._path.exists():
            whole = self._path.stat().st_size // self._record.itemsize
            with self._path.open("r+b") as file:
                file.truncate(whole * self._record.itemsize)
            if whole:
                records = np.memmap(self._path, self._record, "r")
                self.take_over(records["key"], records["vector"])

    def take_over(self, keys: NDArray[Any], vectors: NDArray[Any]) -> None:
        """Vectors (n, width) of an index that stands, with their keys (n,)."""
        self._vectors.append((dict(zip(keys.tolist(), range(len(keys)), strict=True)), vectors))

    def find(self, key: int) -> NDArray[Any] | None:
        """(width,) the vector of a key; None where there is none yet."""
        for places, vectors in self._vectors:
            if (found := places.get(key)) is not None:
                row: NDArray[Any] = vectors[found]
                return row
        return None

    def write(self, keys: NDArray[Any], vectors: NDArray[Any]) -> None:
        """Put new vectors (n, width) with their keys (n,) on the disk, for a run that has to go on from here."""
        records = np.empty(len(keys), self._record)
        records["key"], records["vector"] = keys, vectors
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with failed_writes_are_reported(self._path), self._path.open("ab") as file:
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def forget(self) -> None:
        """The index stands: the growing file is not needed any more."""
        self._vectors.clear()
        self._path.unlink(missing_ok=True)
