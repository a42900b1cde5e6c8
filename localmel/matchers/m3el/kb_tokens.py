"""Encode the words and patches of a KB's entities with a frozen encoder.

In: a packed KB and an encoder.  Out: `<kb>/vectors/<space>.words/` and `<space>.patches/`, memory-mapped float16, tied
to the state of the KB, to its pictures and to the encoder's weights.  The vectors of whole texts and pictures are made
elsewhere (encode/kb_vectors.py, encode/kb_images.py).  After a change only new texts and pictures are encoded; an
interrupted run resumes after its last piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages, picture_path
from localmel.encode.kb_vectors import KbVectors, how_to_index
from localmel.encode.space import MOST_WORDS, PatchEncoder, Space, WordEncoder
from localmel.engines.pictures import Picture, open_picture
from localmel.errors import BadInput, BadPicture, CorruptArtifact, KbBusy
from localmel.kb.packed import Lists, PackedKb, entity_texts
from localmel.kb.store import KnowledgeBase
from localmel.matchers.protocol import FeatureTable, Pictures
from localmel.store import progress
from localmel.store.arrays import ResumableArrays, key_of, read_arrays, starts_of

KIND, VERSION = "KB tokens", 1
_TEXTS_AT_ONCE, _PICTURES_AT_ONCE = 1024, 256
_NOTHING = 0
"Key of a row with nothing to encode."


def index_words(kb: KnowledgeBase, packed: PackedKb, encoder: WordEncoder) -> int:
    """Encode the words of each entity's text, unless this was already done.  Returns the number of texts encoded."""
    with kb.reading():
        _refuse_change(kb, packed, encoder.space)
        if _stands(_folder(kb, encoder.space, "words"), _facts(packed, encoder.space)):
            return 0
        progress.begin("encoding words", len(packed.rows))
        work = _Encoding(_folder(kb, encoder.space, "words"), _facts(packed, encoder.space), encoder.word_width)
        texts = entity_texts(kb)
        progress.advance(sum(1 for _ in islice(texts, work.pieces * _TEXTS_AT_ONCE)))
        while some := list(islice(texts, _TEXTS_AT_ONCE)):
            keys = [key_of(text.encode("utf-8", "replace")) for text in some]
            missing = work.missing(keys)
            made = encoder.words([some[place] for place in missing])
            work.add(keys, dict(zip(missing, made, strict=True)))
            progress.advance(len(some))
    return work.seal()


def index_patches(kb: KnowledgeBase, packed: PackedKb, images: KbImages, encoder: PatchEncoder) -> int:
    """Encode the patches of each picture that has a vector in `images`, unless this was already done.

    Returns the number of pictures encoded.  A picture that can no longer be read gets no patches: its entity counts as
    having no picture."""
    space = encoder.image_space
    with kb.reading():
        _refuse_change(kb, packed, space)
        named = dict(kb.select("SELECT entity, path FROM images"))
    if _stands(_folder(kb, space, "patches"), _facts(packed, space, images)):
        return 0
    names = [named.get(row) if there else None for row, there in zip(packed.rows.tolist(), images.there, strict=True)]
    progress.begin("encoding patches", len(names))
    work = _Encoding(_folder(kb, space, "patches"), _facts(packed, space, images), encoder.patch_width)
    first = min(work.pieces * _PICTURES_AT_ONCE, len(names))
    progress.advance(first)
    for start in range(first, len(names), _PICTURES_AT_ONCE):
        some = names[start : start + _PICTURES_AT_ONCE]
        keys = [_key_of_picture(kb, name) for name in some]
        work.add(keys, _patches(kb, some, work.missing(keys), encoder))
        progress.advance(len(some))
    return work.seal()


def load_words(kb: KnowledgeBase, packed: PackedKb, space: Space) -> Lists:
    """Return the words of each entity, by position.  Raises BadInput, with the command to run, if none match the KB."""
    return _loaded(kb, _folder(kb, space, "words"), _facts(packed, space), space)


def load_patches(kb: KnowledgeBase, packed: PackedKb, images: KbImages) -> Lists:
    """Return the patches of each entity's picture, by position; an entity without a picture has none.

    Raises BadInput, with the command to run, if none match the KB."""
    return _loaded(kb, _folder(kb, images.space, "patches"), _facts(packed, images.space, images), images.space)


def kb_features(
    kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None = None
) -> FeatureTable:
    """Return all features of a KB's entities.  Leaves out pictures if `images` is None."""
    words = load_words(kb, packed, vectors.space)
    if images is None:
        return FeatureTable(text=vectors.entities, words=words)
    pictures = Pictures(whole=images.vectors, patches=load_patches(kb, packed, images))
    return FeatureTable(text=vectors.entities, words=words, pictures=pictures)


class _Encoding:
    """Rows of tokens, reused from an earlier run or encoded in this one."""

    def __init__(self, target: Path, facts: Mapping[str, Any], width: int) -> None:
        self._target, self._width, self._encoded = target, width, 0
        self._known: dict[int, int] = {}
        self._lists = Lists(starts=np.zeros(1, np.int64), values=np.zeros((0, width), np.float16))
        try:
            manifest, arrays = read_arrays(target, kind=KIND, version=VERSION, every_byte=True)
            if all(manifest.get(name) == facts[name] for name in ("weights_sha256", "most_words")):
                self._known = {key: row for row, key in enumerate(arrays["keys"].tolist())}
                self._lists = _lists(target, arrays)
        except (FileNotFoundError, CorruptArtifact):
            pass
        self._resumable = ResumableArrays(target, facts)
        self.pieces = self._resumable.pieces
        "Number of pieces already written."

    def missing(self, keys: Sequence[int]) -> list[int]:
        """Return the places of the rows that still have to be encoded."""
        return [place for place, key in enumerate(keys) if key != _NOTHING and key not in self._known]

    def add(self, keys: Sequence[int], made: Mapping[int, NDArray[Any]]) -> None:
        """Add one piece.  made: tokens by place; a row found neither there nor in an earlier run gets no tokens."""
        rows = [self._row(key, made.get(place)) for place, key in enumerate(keys)]
        self._resumable.add(
            {
                "values": np.concatenate([np.zeros((0, self._width), np.float16), *rows]),
                "counts": np.array([len(row) for row in rows], np.int64),
                "keys": np.array(keys, np.int64),
            }
        )
        self._encoded += len(made)

    def seal(self) -> int:
        """Move the file into place.  Returns the number of rows encoded in this run."""
        if not self._resumable.pieces:
            self.add([], {})
        self._resumable.seal(kind=KIND, version=VERSION)
        return self._encoded

    def _row(self, key: int, made: NDArray[Any] | None) -> NDArray[Any]:
        if made is not None:
            return made
        if (row := self._known.get(key)) is None:
            return np.zeros((0, self._width), np.float16)
        return np.asarray(self._lists.values[self._lists.starts[row] : self._lists.starts[row + 1]])


def _patches(
    kb: KnowledgeBase, names: Sequence[str | None], places: Sequence[int], encoder: PatchEncoder
) -> dict[int, NDArray[Any]]:
    """Return the patches of the pictures at these places, by place, leaving out pictures that cannot be opened."""
    good: list[int] = []

    def opened() -> Iterator[Picture]:
        for place in places:
            try:
                picture = open_picture(picture_path(kb, names[place] or ""))
            except BadPicture:
                continue
            good.append(place)
            yield picture

    return dict(zip(good, encoder.patches(opened()), strict=False))  # `good` grows as pictures are consumed


def _key_of_picture(kb: KnowledgeBase, name: str | None) -> int:
    try:
        return _NOTHING if name is None else key_of(picture_path(kb, name).read_bytes())
    except (OSError, ValueError, BadPicture):
        return _NOTHING


def _facts(packed: PackedKb, space: Space, images: KbImages | None = None) -> dict[str, Any]:
    facts = {"made_from": packed.fingerprint, "space": space.name, "weights_sha256": space.weights_sha256}
    return {**facts, "most_words": MOST_WORDS, "pictures": images.state if images else None}


def _loaded(kb: KnowledgeBase, folder: Path, facts: Mapping[str, Any], space: Space) -> Lists:
    hint = how_to_index(kb, space.name)
    try:
        manifest, arrays = read_arrays(folder, kind=KIND, version=VERSION)
        found = _lists(folder, arrays)
    except FileNotFoundError:
        raise BadInput(f"kb {kb.name!r} has no {folder.name}: they were never encoded", hint=hint) from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=hint) from None
    if any(manifest.get(name) != value for name, value in facts.items()):
        raise BadInput(f"kb {kb.name!r} has changed since its {folder.name} were encoded", hint=hint)
    return found


def _stands(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Return whether all arrays are intact and were made from the same facts."""
    try:
        manifest, _ = read_arrays(folder, kind=KIND, version=VERSION, every_byte=True)
    except (FileNotFoundError, CorruptArtifact):
        return False
    return all(manifest.get(name) == value for name, value in facts.items())


def _lists(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> Lists:
    return Lists(starts=starts_of(arrays["counts"]), values=arrays["values"])


def _folder(kb: KnowledgeBase, space: Space, what: str) -> Path:
    return kb.folder / "vectors" / f"{space.name}.{what}"


def _refuse_change(kb: KnowledgeBase, packed: PackedKb, space: Space) -> None:
    if kb.fingerprint != packed.fingerprint:
        raise KbBusy(f"kb {kb.name!r} was changed while it was indexed", hint=how_to_index(kb, space.name))
