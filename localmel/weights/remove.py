"""Installed weights -> gone; adopted ones -> forgotten, their folder untouched.

In: a name.  Out: what was freed.  Removes nothing that does not lie under the user's home for localmel."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localmel.errors import LocalmelError, MissingWeights
from localmel.store.artifacts import failed_writes_are_reported
from localmel.weights.folders import INCOMING, place_of, weights_home
from localmel.weights.install import exclusive
from localmel.weights.manifest import read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What a removal would do, or did."""

    name: str
    folder: Path
    "Of an adopted model: the folder that stays."
    adopted: bool
    bytes: int
    "That become free."

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def removal(name: str) -> Removal:
    """What removing would do; changes nothing.  Raises MissingWeights."""
    place = place_of(name)
    if not os.path.lexists(place):
        raise MissingWeights(f"no weights are installed as {name!r}", hint="localmel weights list")
    try:
        adopted = read_record(place).adopted
    except LocalmelError:  # a damaged record is no reason to keep the rest
        adopted = ""
    folder = Path(adopted) if adopted else place
    return Removal(name=name, folder=folder, adopted=bool(adopted), bytes=0 if adopted else _bytes_below(place))


def remove(name: str) -> Removal:
    """Remove weights, or forget adopted ones.  Renamed out of sight first, so that no half of a model is ever found."""
    found = removal(name)
    place = place_of(name)
    with exclusive(), failed_writes_are_reported(place):
        if place.is_symlink():
            place.unlink()
        else:
            hidden = place.with_name(f"{INCOMING}{uuid.uuid4().hex[:16]}")
            place.rename(hidden)
            shutil.rmtree(hidden)
    return found


def unfinished() -> list[Removal]:
    """What installs that were interrupted left behind."""
    folders = sorted(path for path in weights_home().glob(f"{INCOMING}*") if path.is_dir())
    return [Removal(name=path.name, folder=path, adopted=False, bytes=_bytes_below(path)) for path in folders]


def remove_unfinished() -> list[Removal]:
    """Remove what interrupted installs left; they then begin anew."""
    with exclusive():
        found = unfinished()
        for one in found:
            shutil.rmtree(one.folder)
    return found


def _bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
