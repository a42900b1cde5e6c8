"""Find whom a picture may show: the most similar portraits among the pictures of the user's own KB.

In: vectors of the KB's portraits, and of faces (or whole pictures).  Out: for each picture the entities with similar
portraits, and how similar they are.  There is no other database of faces, and nothing is looked up unless this is
switched on.  Similarity is not proof, so its value is always shown.  docs/matchers-dwe.md says why it is off by
default."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages, picture_path
from localmel.encode.space import ImageEncoder, Space
from localmel.errors import BadInput, BadPicture, CorruptArtifact, shell_line
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.see.objects import Detector, ObjectSettings, objects_of_files
from localmel.store import progress
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays, new_folder, read_manifest

KIND, VERSION = "faces of KB pictures", 1
_FILE = "portraits.safetensors"
_AT_ONCE = 65_536
FACES, WHOLE = "faces", "whole pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Settings of whether identities are looked up, and which portraits count."""

    on: bool = False
    "Whether identities are looked up at all."
    threshold: float = 0.5
    "Cosine that a portrait must exceed.  The paper's value; another encoder than the paper's may need another."
    most: int = 3
    "How many entities are reported per picture."

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1 or self.most < 1:
            raise BadInput(f"cannot look up identities: threshold {self.threshold} or most {self.most} is out of range")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Portraits:
    """p portraits of a KB's entities."""

    space: Space
    of: str
    "What is compared: `faces` or `whole pictures`."
    vectors: NDArray[Any]  # (p, width) unit rows
    entities: NDArray[Any]  # (p,) int64 positions; an entity may have several, or none


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """An entity with a similar portrait."""

    entity: int
    "Position in the KB."
    similarity: float

    def words(self, label: str) -> str:
        """Return a phrase for people to read."""
        return f"like a picture of {label} (similarity {self.similarity:.2f})"


def portraits_of_pictures(images: KbImages) -> Portraits:
    """Return the KB's whole pictures, for use without a face detector."""
    entities = np.flatnonzero(images.there)
    return Portraits(space=images.space, of=WHOLE, vectors=images.vectors[entities], entities=entities)


def portraits_of_faces(
    kb: KnowledgeBase, packed: PackedKb, detector: Detector, encoder: ImageEncoder, *, folder: Path | None = None
) -> Portraits:
    """Return the faces in the KB's pictures.  With a folder, each picture is processed only once."""
    rows = [(int(row), str(path)) for row, path in kb.select("SELECT entity, path FROM images ORDER BY entity")]
    positions = packed.positions(np.array([row for row, _ in rows], np.int64))
    paths = [_path(kb, named) for _, named in rows]
    progress.begin("looking for faces", len({path for path in paths if path}))
    found = objects_of_files(paths, detector, encoder, ObjectSettings(), folder=folder, on_pictures=progress.advance)
    counts = np.diff(found.lists.starts)
    return Portraits(
        space=found.space, of=FACES, vectors=found.lists.values, entities=np.repeat(positions, counts).astype(np.int64)
    )


def index_faces(
    kb: KnowledgeBase, packed: PackedKb, images: KbImages, detector: Detector, encoder: ImageEncoder
) -> None:
    """Store the faces in the KB's pictures for `load_faces`, unless they are stored already."""
    try:
        load_faces(kb, packed, images, detector)
        return
    except (BadInput, CorruptArtifact):
        pass
    folder = _faces_folder(kb, images.space, detector)
    cache = folder.with_name(f".{folder.name}")  # boxes and vectors of each picture
    made = portraits_of_faces(kb, packed, detector, encoder, folder=cache)
    with new_folder(folder, kind=KIND, version=VERSION, facts=_faces_facts(packed, images, detector)) as temporary:
        shapes = {"vectors": ("<f2", made.vectors.shape), "entities": ("<i8", made.entities.shape)}
        arrays = create_arrays(temporary / _FILE, shapes)
        arrays["vectors"][:], arrays["entities"][:] = made.vectors, made.entities
        flush_arrays(arrays)


def load_faces(kb: KnowledgeBase, packed: PackedKb, images: KbImages, detector: Detector) -> Portraits:
    """Return the faces that this detector found in the KB's pictures.

    Raises BadInput if it was never run, or if the KB, its pictures or the detector have changed."""
    folder = _faces_folder(kb, images.space, detector)
    hint = shell_line("localmel index", kb.folder, note="with the --matcher that looks at them")
    try:
        manifest = read_manifest(folder, kind=KIND, version=VERSION)
        arrays = map_arrays(folder / _FILE)
        vectors, entities = arrays["vectors"], arrays["entities"]
    except FileNotFoundError:
        raise BadInput(f"kb {kb.name!r} has no index of the faces in its pictures", hint=hint) from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=hint) from None
    if any(manifest.get(name) != value for name, value in _faces_facts(packed, images, detector).items()):
        raise BadInput(f"kb {kb.name!r} or its pictures have changed since their faces were indexed", hint=hint)
    return Portraits(space=images.space, of=FACES, vectors=vectors, entities=entities)


def _faces_folder(kb: KnowledgeBase, space: Space, detector: Detector) -> Path:
    named = hashlib.sha256(json.dumps(dict(detector.facts), sort_keys=True).encode()).hexdigest()[:8]
    return kb.folder / "vectors" / f"{space.name}.faces.{named}"


def _faces_facts(packed: PackedKb, images: KbImages, detector: Detector) -> dict[str, Any]:
    return {
        "made_from": packed.fingerprint,
        "pictures": images.state,
        "weights_sha256": images.space.weights_sha256,
        "detector": dict(detector.facts),
    }


def identities(
    portraits: Portraits, shown: Sequence[NDArray[Any]], space: Space, of: str, settings: IdentitySettings
) -> list[tuple[Likeness, ...]]:
    """Return for each of n pictures the entities with portraits above the threshold, most similar first, each once.

    shown: for each picture the vectors of its faces, or of the whole picture, (any number, width).
    Raises BadInput if faces would be compared with whole pictures, or vectors of two spaces."""
    if not settings.on:
        return [() for _ in shown]
    if of != portraits.of:
        raise BadInput(f"cannot compare {of} with {portraits.of}: use one detector for the KB and for mentions")
    if space != portraits.space:
        raise BadInput(f"cannot compare {of} of {space.name} with portraits of {portraits.space.name}")
    return [_nearest(portraits, vectors, settings) for vectors in shown]


def _nearest(portraits: Portraits, vectors: NDArray[Any], settings: IdentitySettings) -> tuple[Likeness, ...]:
    best: dict[int, float] = {}
    asked = np.asarray(vectors, np.float32)
    for first in range(0, len(portraits.vectors) if len(asked) else 0, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        alike = (np.asarray(portraits.vectors[some], np.float32) @ asked.T).max(axis=1)
        for place in np.flatnonzero(alike > settings.threshold):
            entity = int(portraits.entities[first + place])
            best[entity] = max(best.get(entity, -1.0), float(alike[place]))
    ranked = sorted(best.items(), key=lambda found: (-found[1], found[0]))
    return tuple(Likeness(entity=entity, similarity=similarity) for entity, similarity in ranked[: settings.most])


def identity_texts(found: Sequence[Sequence[Likeness]], entity_vectors: NDArray[Any]) -> list[NDArray[Any]]:
    """Return for each of n rows the vectors of the texts of its entities, (any number, width)."""
    width = entity_vectors.shape[1]
    places = [np.array([one.entity for one in row], np.int64) for row in found]
    return [np.asarray(entity_vectors[own], np.float32).reshape(-1, width) for own in places]


def _path(kb: KnowledgeBase, named: str) -> Path | None:
    try:
        return picture_path(kb, named)
    except BadPicture:
        return None
