"""The vectors of a KB's pictures, one for each entity with a picture.

In: a packed KB, its pictures and an image encoder.  Out: `<kb>/vectors/<space>.images/`, memory-mapped float16, tied to
the state of the KB, to the encoder's weights and to the bytes of the pictures.  Missing and broken pictures are marked
and counted.  Only new pictures are encoded, and an interrupted run goes on where it was.

A KB names a picture by an absolute path, or by one below `<kb>.images/`, a folder next to its own: pictures belong to
the user, and nothing that rebuilds or replaces a KB touches them."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_vectors import how_to_index
from localmel.encode.space import ImageEncoder, Space
from localmel.engines.pictures import MOST_BYTES, Picture, open_picture
from localmel.errors import BadInput, BadPicture, CorruptArtifact, KbBusy
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.store import progress
from localmel.store.arrays import VectorCache, key_of
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays, new_folder, read_manifest

KIND, VERSION = "KB image vectors", 1
_FILE = "images.safetensors"
_PICTURES_AT_ONCE = 512
_MOST_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KbImages:
    """The vectors of the pictures of n entities in one space."""

    space: Space
    vectors: NDArray[Any]  # (n, width) float16, unit rows; zero where `there` is false
    there: NDArray[Any]  # (n,) bool
    state: str
    "A hash that changes with every picture."


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturesFound:
    """Counts of a KB's pictures: encoded, missing and broken."""

    named: int
    encoded: int
    "In this run; others were encoded before."
    missing: int
    "There is no such file."
    broken: int
    "The file is damaged, or not a picture."
    examples: tuple[str, ...]
    "The first entities whose pictures cannot be used, with the reason."

    def note(self) -> str:
        """Return a sentence for the user; empty if every picture was read."""
        if not self.missing and not self.broken:
            return ""
        counts = f"pictures that the KB names: {self.named:,}, missing: {self.missing:,}, broken: {self.broken:,}"
        return f"{counts}; their entities have no picture, for example {'; '.join(self.examples)}"


def load_images(kb: KnowledgeBase, packed: PackedKb, space: Space) -> KbImages:
    """Return the vectors of the KB's pictures.  Raises BadInput, with the command, if they are missing or stale."""
    try:
        manifest = read_manifest(_folder(kb, space), kind=KIND, version=VERSION)
        if manifest.get("made_from") != packed.fingerprint or manifest.get("weights_sha256") != space.weights_sha256:
            raise _not_indexed(kb, space, "it has changed since its pictures were indexed")
        arrays = map_arrays(_folder(kb, space) / _FILE)
        vectors, there = arrays["vectors"], arrays["there"].astype(bool)
    except FileNotFoundError:
        raise _not_indexed(kb, space, "its pictures were never indexed") from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=how_to_index(kb, space.name)) from None
    return KbImages(space=space, vectors=vectors, there=there, state=str(manifest["state"]))


def _not_indexed(kb: KnowledgeBase, space: Space, why: str) -> BadInput:
    return BadInput(f"kb {kb.name!r} has no image vectors of {space.name} ({why})", hint=how_to_index(kb, space.name))


def index_images(kb: KnowledgeBase, packed: PackedKb, encoder: ImageEncoder) -> PicturesFound:
    """Encode new and changed pictures, and drop those that are gone."""
    named = _named(kb, packed, encoder.image_space)
    positions = packed.positions(np.array([row for row, _, _ in named], np.int64))
    space, folder, n = encoder.image_space, _folder(kb, encoder.image_space), len(packed.rows)
    work = _Pictures(kb, folder, encoder)
    progress.begin("encoding pictures", len(named))
    facts = {"made_from": packed.fingerprint, "space": space.name, "weights_sha256": space.weights_sha256}
    with new_folder(folder, kind=KIND, version=VERSION, facts=facts) as temporary:
        shapes = {
            "vectors": ("<f2", (n, space.width)),
            "there": ("|u1", (n,)),
            "keys": ("<i8", (n,)),
            "stamps": ("<i8", (n,)),
        }
        arrays = create_arrays(temporary / _FILE, shapes)
        for first in range(0, len(named), _PICTURES_AT_ONCE):
            here = slice(first, first + _PICTURES_AT_ONCE)
            rows = work.rows([(entity, path) for _, entity, path in named[here]])
            for position, row in zip(positions[here].tolist(), rows, strict=True):
                if row is not None:
                    arrays["there"][position] = 1
                    arrays["stamps"][position], arrays["keys"][position], arrays["vectors"][position] = row
        # in time, because the manifest is written last
        facts["state"] = hashlib.sha256(arrays["keys"].tobytes()).hexdigest()
        flush_arrays(arrays)
    work.cache.delete()
    return PicturesFound(
        named=len(named), encoded=work.encoded, missing=work.missing, broken=work.broken, examples=tuple(work.examples)
    )


def _named(kb: KnowledgeBase, packed: PackedKb, space: Space) -> list[tuple[int, str, str]]:
    """Return row, id and picture of each entity that names a picture."""
    with kb.reading():
        if kb.fingerprint != packed.fingerprint:
            raise KbBusy(f"kb {kb.name!r} was changed while it was indexed", hint=how_to_index(kb, space.name))
        sql = "SELECT i.entity, e.id, i.path FROM images i JOIN entities e ON e.row = i.entity ORDER BY i.entity"
        return [(int(row), str(entity), str(path)) for row, entity, path in kb.select(sql)]


def pictures_folder(kb: KnowledgeBase) -> Path:
    """Return the folder of pictures with relative paths.  It need not exist, and may be a link."""
    folder = kb.folder.resolve()
    return folder.with_name(f"{folder.name}.images")


def picture_path(kb: KnowledgeBase, named: str) -> Path:
    """Return the path of the picture that a KB calls `named`.  Raises BadPicture for a path with `..` in it."""
    path = PurePosixPath(named)
    if path.is_absolute():
        return Path(named)
    if ".." in path.parts:
        raise BadPicture(f"{named!r:.200} is outside {pictures_folder(kb)}", hint="use its absolute path")
    return pictures_folder(kb) / path


def _folder(kb: KnowledgeBase, space: Space) -> Path:
    return kb.folder / "vectors" / f"{space.name}.images"


_Row = tuple[int, int, Any]
"The stamp and the key of a picture, and its vector (width,)."


class _Pictures:
    """Returns vectors of pictures; what an earlier run encoded is not encoded again."""

    def __init__(self, kb: KnowledgeBase, folder: Path, encoder: ImageEncoder) -> None:
        self.encoded = self.missing = self.broken = 0
        self.examples: list[str] = []
        self._kb, self._encoder = kb, encoder
        sha256 = encoder.image_space.weights_sha256
        self.cache = VectorCache(folder, width=encoder.image_space.width, sha256=sha256)
        pairs = (("keys", "vectors"),)
        arrays = self.cache.reuse_index(folder, _FILE, pairs, kind=KIND, version=VERSION, sha256=sha256)
        self._stamps: dict[int, int] = {}
        if arrays:
            self._stamps = dict(zip(arrays["stamps"].tolist(), arrays["keys"].tolist(), strict=True))

    def rows(self, named: list[tuple[str, str]]) -> list[_Row | None]:
        """Return a row for each (entity id, picture), or None where the picture cannot be read."""
        looked_at = [self._look_at(entity, picture) for entity, picture in named]
        new: dict[int, tuple[str, Path]] = {}
        for (entity, _), found in zip(named, looked_at, strict=True):
            if found and self.cache.find(found[1]) is None:
                new.setdefault(found[1], (entity, found[2]))
        progress.advance(len(named) - len(new))
        made = self._made(new) if new else {}
        rows: list[_Row | None] = []
        for found in looked_at:
            vector = None if found is None else made.get(found[1], self.cache.find(found[1]))
            self.broken += found is not None and vector is None
            rows.append(None if found is None or vector is None else (found[0], found[1], vector))
        return rows

    def _look_at(self, entity: str, named: str) -> tuple[int, int, Path] | None:
        """Return stamp, key and path of a picture, or None if it is missing or broken.

        The stamp is made of name, size and times; a file with a known stamp is not read again."""
        try:
            path = picture_path(self._kb, named)
            found = path.stat()
            stamp = key_of(f"{named}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}".encode())
            key = self._stamps.get(stamp)
            if key is None:
                if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
                    open_picture(path)  # raises, and says why
                key = key_of(path.read_bytes()) or 1  # 0 marks entities without a picture
            return stamp, key, path
        except (FileNotFoundError, NotADirectoryError):
            self.missing += 1
            self._example(f"{entity}: there is no {path}")
        except BadPicture as error:
            self.broken += 1
            self._example(f"{entity}: {error.fact}")
        except (OSError, ValueError) as error:
            self.broken += 1
            self._example(f"{entity}: cannot read {named!r:.200} ({error})")
        return None

    def _made(self, new: dict[int, tuple[str, Path]]) -> dict[int, NDArray[Any]]:
        """Encode the pictures that can be opened.  Returns their vectors by key."""
        keys: list[int] = []

        def opened() -> Iterator[Picture]:
            for key, (entity, path) in new.items():
                try:
                    picture = open_picture(path)
                except BadPicture as error:
                    self._example(f"{entity}: {error.fact}")
                    progress.advance(1)
                    continue
                keys.append(key)
                yield picture

        vectors = self._encoder.encode_images(opened(), progress.advance).astype(np.float16)
        self.cache.write(np.array(keys, np.int64), vectors)
        self.encoded += len(keys)
        return dict(zip(keys, vectors, strict=True))

    def _example(self, text: str) -> None:
        if len(self.examples) < _MOST_EXAMPLES:
            self.examples.append(text)
