"""The pictures of the mentions that networks are trained and validated on, as vectors, made once and kept with the run.

In: datasets, an image encoder and a folder.  Out: a row for each mention, beside the arrays of its text, with the
hashes of what it was made from.  A picture that cannot be read counts as none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localmel.encode.mention_inputs import PictureVectors, vectors_of_files
from localmel.encode.space import ImageEncoder, Space
from localmel.errors import CorruptArtifact
from localmel.records import Split
from localmel.store import progress
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays, new_folder, read_manifest, sha256_of

KIND, VERSION = "encoded pictures", 1
_FILE = "pictures.safetensors"


def encoded_pictures(
    splits: Mapping[str, Split], images: ImageEncoder, folder: Path
) -> tuple[dict[str, PictureVectors], dict[str, Any]]:
    """Return the pictures of each split, from `folder` where they are kept, and the facts they were made from."""
    space = images.image_space
    facts: dict[str, Any] = {"image_space": space.name, "image_space_sha256": space.weights_sha256}
    facts |= {f"{name}_pictures": _digest(split) for name, split in splits.items()}
    if (found := _kept(folder, facts, space)) is None:
        with new_folder(folder, kind=KIND, version=VERSION, facts={"made_from": facts}) as temporary:
            found = {name: _encoded(split, images) for name, split in splits.items()}
            _write(temporary / _FILE, found)
    return found, facts


def _encoded(split: Split, images: ImageEncoder) -> PictureVectors:
    paths = [mention.image for mention in split.mentions]
    progress.begin(f"encoding {split.name} pictures", len(set(paths) - {None}))
    return vectors_of_files(paths, images, progress.advance)


def _write(path: Path, made: Mapping[str, PictureVectors]) -> None:
    arrays = {f"{name}.vectors": one.vectors for name, one in made.items()}
    arrays |= {f"{name}.there": one.there.astype("u1") for name, one in made.items()}
    written = create_arrays(path, {name: (values.dtype.str, values.shape) for name, values in arrays.items()})
    for name, values in arrays.items():
        written[name][:] = values
    flush_arrays(written)


def _kept(folder: Path, facts: Mapping[str, Any], space: Space) -> dict[str, PictureVectors] | None:
    """What an earlier run made of the same pictures; None where it is to be made, again or for the first time."""
    try:
        if read_manifest(folder, kind=KIND, version=VERSION, every_byte=True).get("made_from") != facts:
            return None
        arrays = map_arrays(folder / _FILE)
    except (FileNotFoundError, CorruptArtifact):
        return None
    return {
        name: PictureVectors(space=space, vectors=arrays[f"{name}.vectors"], there=arrays[f"{name}.there"].astype(bool))
        for name in ("train", "validation")
    }


def _digest(split: Split) -> str:
    """Of every mention's picture by its bytes; the same for pictures that are not there."""
    digest = hashlib.sha256()
    known: dict[Path | None, str] = {None: ""}
    for mention in split.mentions:
        if (path := mention.image) not in known:
            assert path is not None
            try:
                known[path] = sha256_of(path) if path.is_file() else ""
            except (OSError, ValueError):  # a name that no disk takes, a file that may not be read
                known[path] = ""
        digest.update(f"{mention.id}\0{known[path]}\0".encode())
    return digest.hexdigest()
