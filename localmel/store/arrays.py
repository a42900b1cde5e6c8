"""Arrays of many rows that are made piece by piece: each piece is on the disk when it is done, a stopped run goes on.

In: pieces, each a set of arrays by name that are continued by those of the next.  Out: a sealed folder with one file in
which each array stands whole.  Tokens of rows of different length are laid end to end, with their counts beside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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

if TYPE_CHECKING:
    from filelock import FileLock

_FILE, _FACTS = "columns.safetensors", "facts.json"


class GrowingColumns:
    """What is on its way to `target`.  Pieces of a run with other facts are dropped.

    One process at a time: the lock is held until `seal`, or until nobody knows this object any more."""

    def __init__(self, target: Path, facts: Mapping[str, Any]) -> None:
        """Raises KbBusy where another process is at it."""
        self._target, self._facts = target, dict(facts)
        self._folder = target.with_name(f".{target.name}.growing")
        self._lock = _locked(target)
        if not self._goes_on():
            shutil.rmtree(self._folder, ignore_errors=True)
        with failed_writes_are_reported(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / _FACTS, self._facts)
        self.pieces = 0
        while self._piece(self.pieces).is_file():
            self.pieces += 1

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write one more piece.  Raises OutOfSpace; the pieces before it stand."""
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
        """Join the pieces, at least one, into the file of `target`, and drop them."""
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

    def _goes_on(self) -> bool:
        try:
            found: object = json.loads((self._folder / _FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(found == json.loads(json.dumps(self._facts)))


def _locked(target: Path) -> FileLock:
    """Of this process: one that stopped half-way here does not shut out the next."""
    from filelock import FileLock, Timeout

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


def read_columns(
    folder: Path, *, kind: str, version: int, every_byte: bool = False
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The manifest and the arrays, memory-mapped.  Raises FileNotFoundError where there are none, CorruptArtifact."""
    manifest = read_manifest(folder, kind=kind, version=version, every_byte=every_byte)
    return manifest, map_arrays(folder / _FILE)


def starts_of(counts: NDArray[Any]) -> NDArray[Any]:
    """(n,) how many tokens each row has -> (n + 1,) where they begin."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def column(folder: Path, arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """One of them.  Raises CorruptArtifact where it is missing."""
    if name not in arrays:
        raise CorruptArtifact(
            f"{folder} lacks {name!r}", hint=shell_line("rm -r", folder, note="then run again what made it")
        )
    return arrays[name]
