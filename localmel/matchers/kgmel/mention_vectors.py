"""Prepare mentions for the fusion network: vectors of their texts and pictures, and the triples of each.

In: mentions, the triples stated about each, and encoders.  Out: arrays.  Used in both training and linking."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from localmel.encode.mention_inputs import PictureVectors, mention_text, vectors_of_files
from localmel.encode.space import ImageEncoder, Space
from localmel.errors import CorruptArtifact
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.records import Mention, Split, Triple
from localmel.store import progress
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays, new_folder, read_manifest, sha256_of

_Value = TypeVar("_Value")


def mention_texts(mentions: Sequence[Mention], stated: Sequence[Sequence[Triple]]) -> dict[str, None]:
    """Return the distinct texts that `mention_arrays` needs vectors of."""
    triples = list(chain.from_iterable(stated))
    return dict.fromkeys(
        chain(
            (mention_text(mention) for mention in mentions),
            (triple.tail for triple in triples),
            (triple.relation for triple in triples),
        )
    )


def mention_arrays(
    mentions: Sequence[Mention], stated: Sequence[Sequence[Triple]], encode: Callable[[Sequence[str]], NDArray[Any]]
) -> tuple[NDArray[Any], TripleArrays]:
    """Return the text vectors, (m, width) float32, and the triples of the m mentions.  Each distinct text is encoded
    once."""
    spoken = list(chain.from_iterable(stated))
    texts = mention_texts(mentions, stated)
    place = dict(zip(texts, range(len(texts)), strict=True))
    vectors = encode(list(texts))
    tails = _numbered(triple.tail for triple in spoken)
    relations = _numbered(triple.relation for triple in spoken)
    pairs = _numbered((triple.tail, triple.relation) for triple in spoken)
    triples = TripleArrays(
        tails=vectors[[place[tail] for tail in tails]],
        relations=vectors[[place[relation] for relation in relations]],
        pair_tail=np.array([tails[tail] for tail, _ in pairs], np.int64),
        pair_relation=np.array([relations[relation] for _, relation in pairs], np.int64),
        triples=np.array([pairs[triple.tail, triple.relation] for triple in spoken], np.int64),
        starts=np.cumsum([0, *(len(own) for own in stated)]),
    )
    return vectors[[place[mention_text(mention)] for mention in mentions]], triples


def mention_pictures(mentions: Sequence[Mention], images: ImageEncoder | None) -> dict[str, NDArray[Any]]:
    """Return `image` (m, width) and `has_image` (m,) for `FusedEncoder.fuse`; an empty dict without an image encoder.

    Each distinct picture is opened and encoded once; an unreadable picture counts as missing."""
    if images is None:
        return {}
    found = vectors_of_files([mention.image for mention in mentions], images)
    return {"image": found.vectors, "has_image": found.there}


def _numbered(values: Iterable[_Value]) -> dict[_Value, int]:
    """Return each distinct value with its number, in order of first occurrence."""
    return {value: number for number, value in enumerate(dict.fromkeys(values))}


KIND, VERSION = "encoded pictures", 1
_FILE = "pictures.safetensors"


def encoded_pictures(
    splits: Mapping[str, Split], images: ImageEncoder, folder: Path
) -> tuple[dict[str, PictureVectors], dict[str, Any]]:
    """Return the pictures of each split, loaded from `folder` if stored there, and the facts they were made from."""
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
    """Return what an earlier run computed for the same pictures, or None if there is nothing valid."""
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
    """Return a digest of the bytes of every mention's picture; all missing pictures count as equal."""
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
