"""Encode mentions for a token-level matcher: vectors of whole texts and pictures, of their words and patches.

In: mentions and encoders.  Out: a table.  With a folder it is stored there piece by piece (float16 tokens,
memory-mapped), tied to the texts, to the bytes of the pictures and to the encoders; an interrupted run resumes after
its last piece.  Used in training, evaluation and linking.  Never sees the gold entities."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.mention_inputs import mention_text, vectors_of_files
from localmel.encode.registry import Encoders
from localmel.encode.space import MOST_WORDS, PatchEncoder
from localmel.engines.pictures import Picture, open_picture
from localmel.errors import BadPicture
from localmel.kb.packed import Lists
from localmel.matchers.protocol import FeatureTable, Pictures
from localmel.records import Mention
from localmel.store import progress
from localmel.store.arrays import ResumableArrays, read_arrays, starts_of

KIND, VERSION = "mention tokens", 1
_AT_ONCE = 1024

Columns = dict[str, "NDArray[Any]"]


def mention_features(mentions: Sequence[Mention], encoders: Encoders, *, folder: Path | None = None) -> FeatureTable:
    """Return a table with a row for each mention.  A picture that cannot be read counts as missing."""
    if folder is None:
        return _table(_encoded(mentions, encoders))
    facts = _facts(mentions, encoders)
    with suppress(FileNotFoundError):
        manifest, arrays = read_arrays(folder, kind=KIND, version=VERSION)
        if all(manifest.get(name) == value for name, value in facts.items()):
            return _table(arrays)
    progress.begin(f"encoding words of {folder.name}", len(mentions))
    resumable = ResumableArrays(folder, facts)
    for number, first in enumerate(range(0, max(len(mentions), 1), _AT_ONCE)):
        some = mentions[first : first + _AT_ONCE]
        if number >= resumable.pieces:
            resumable.add(_encoded(some, encoders))
        progress.advance(len(some))
    resumable.seal(kind=KIND, version=VERSION)
    _, arrays = read_arrays(folder, kind=KIND, version=VERSION)
    return _table(arrays)


def _encoded(mentions: Sequence[Mention], encoders: Encoders) -> Columns:
    """Return the columns of the mentions, encoding each distinct text and picture once."""
    texts = [mention_text(mention) for mention in mentions]
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    vectors, words = encoders.text.encode(list(place)), encoders.text.words(list(place))
    own = [words[place[text]] for text in texts]
    columns = {"text": vectors[[place[text] for text in texts]], **_laid_out("words", own, encoders.text.word_width)}
    if encoders.image is None:
        return columns
    paths = [mention.image for mention in mentions]
    found = vectors_of_files(paths, encoders.image)
    patches = _patches([path for path, there in zip(paths, found.there, strict=True) if there], encoders.image)
    none = np.zeros((0, encoders.image.patch_width), np.float16)
    rows = [patches.get(path, none) if path else none for path in paths]
    return {**columns, "image": found.vectors, **_laid_out("patches", rows, encoders.image.patch_width)}


def _patches(paths: Sequence[Path | None], encoder: PatchEncoder) -> dict[Path, NDArray[Any]]:
    good: list[Path] = []

    def opened() -> Iterator[Picture]:
        for path in dict.fromkeys(path for path in paths if path):
            try:
                picture = open_picture(path)
            except BadPicture:
                continue
            good.append(path)
            yield picture

    return dict(zip(good, encoder.patches(opened()), strict=False))  # `good` grows as pictures are consumed


def _laid_out(name: str, rows: Sequence[NDArray[Any]], width: int) -> Columns:
    return {
        name: np.concatenate([np.zeros((0, width), np.float16), *rows]),
        f"{name}.counts": np.array([len(row) for row in rows], np.int64),
    }


def _table(columns: Columns) -> FeatureTable:
    words = Lists(starts=starts_of(columns["words.counts"]), values=columns["words"])
    if "image" not in columns:
        return FeatureTable(text=columns["text"], words=words)
    patches = Lists(starts=starts_of(columns["patches.counts"]), values=columns["patches"])
    return FeatureTable(text=columns["text"], words=words, pictures=Pictures(whole=columns["image"], patches=patches))


def _facts(mentions: Sequence[Mention], encoders: Encoders) -> dict[str, Any]:
    text, image = encoders.text.space, encoders.image_space
    digest, known = hashlib.sha256(), dict[Path, bytes]()
    for mention in mentions:
        digest.update(hashlib.sha256(mention_text(mention).encode("utf-8", "replace")).digest())
        if image and mention.image:
            if mention.image not in known:
                known[mention.image] = _bytes_of(mention.image)
            digest.update(known[mention.image])
    spaces = {"space": text.name, "weights_sha256": text.weights_sha256}
    pictures = {"image_space": image.name, "image_sha256": image.weights_sha256} if image else {}
    return {**spaces, **pictures, "most_words": MOST_WORDS, "mentions": digest.hexdigest()}


def _bytes_of(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except (OSError, ValueError):
        return b"nothing"
