"""Mentions and entities as DWE+ takes them: names, sentences and their words, whole pictures, objects, attributes.

In: mentions, encoders, a detector, which attributes are asked.  Out: tables.  With a folder a mention table is kept
there piece by piece (float16, memory-mapped), tied to the texts, to the bytes of the pictures and to all that looked at
them; a run that was stopped goes on behind its last piece.  Used alike in training, evaluation and linking."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from localmel.encode.attributes import ClipAttributes, attribute_texts
from localmel.encode.images import vectors_of_files
from localmel.encode.mention_texts import mention_text
from localmel.encode.objects import Detector, objects_of_files
from localmel.kb.packed import Lists
from localmel.records import Mention
from localmel.retrieve.matchers.dwe_features import DweTable, Several, Singles
from localmel.retrieve.matchers.features import laid_end_to_end
from localmel.retrieve.matchers.growing import GrowingColumns, column, read_columns, starts_of
from localmel.retrieve.matchers.token_encoders import MOST_WORDS, TokenEncoders
from localmel.settings.attributes import AttributeSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from localmel.encode.kb_images import KbImages
    from localmel.encode.kb_vectors import KbVectors
    from localmel.encode.text_vectors import TextVectors

KIND, VERSION = "DWE+ mentions", 1
_AT_ONCE = 1024
_SINGLES = ("name", "text", "image")


def dwe_entities(vectors: KbVectors, images: KbImages | None = None, written: TextVectors | None = None) -> DweTable:
    """Of a KB's entities: their static text, their picture, and what a model wrote of them where that is chosen."""
    parts: dict[str, Singles | Several] = {"text": Singles(values=vectors.entities)}
    if images is not None:
        parts["image"] = Singles(values=images.vectors, there=images.there)
    if written is not None:
        there = written.has_text(np.arange(len(written.vectors)))
        parts["written"] = Singles(values=written.vectors, there=there)
    return DweTable(n=len(vectors.entities), parts=parts)


def dwe_mentions(
    mentions: Sequence[Mention],
    encoders: TokenEncoders,
    *,
    detector: Detector | None = None,
    attributes: AttributeSettings | None = None,
    folder: Path | None = None,
    on_total: Callable[[str, int], None] = lambda _what, _total: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> DweTable:
    """A row for each mention.  Pictures, objects and attributes only where the encoders see pictures; a picture that
    cannot be read counts as none.  `attributes` are asked of the same CLIP that encodes texts."""
    looking = _Looking(encoders, detector, attributes, folder.parent / "objects" if folder else None)
    if folder is None:
        return _table(looking.at(mentions), len(mentions))
    facts = looking.facts(mentions)
    with suppress(FileNotFoundError):
        manifest, arrays = read_columns(folder, kind=KIND, version=VERSION)
        if all(manifest.get(name) == value for name, value in facts.items()):
            return _table({name: column(folder, arrays, name) for name in arrays}, len(mentions))
    on_total(f"encoding mentions of {folder.name}", len(mentions))
    growing = GrowingColumns(folder, facts)
    for number, first in enumerate(range(0, max(len(mentions), 1), _AT_ONCE)):
        some = mentions[first : first + _AT_ONCE]
        if number >= growing.pieces:
            growing.add(looking.at(some))
        on_done(len(some))
    growing.seal(kind=KIND, version=VERSION)
    _, arrays = read_columns(folder, kind=KIND, version=VERSION)
    return _table(arrays, len(mentions))


class _Looking:
    """All that looks at mentions, and what it sees of some of them."""

    def __init__(
        self,
        encoders: TokenEncoders,
        detector: Detector | None,
        attributes: AttributeSettings | None,
        folder: Path | None,
    ) -> None:
        """folder: where boxes and vectors of objects are kept."""
        self._encoders, self._detector, self._settings, self._folder = encoders, detector, attributes, folder
        self._asking: ClipAttributes | None = None

    def at(self, mentions: Sequence[Mention]) -> dict[str, NDArray[Any]]:
        """Each different text and picture is encoded once."""
        encoder = self._encoders.text
        texts, names = [mention_text(one) for one in mentions], [one.surface for one in mentions]
        different = list(dict.fromkeys(texts))
        place = {text: number for number, text in enumerate(different)}
        words = encoder.words(different)
        columns = {
            "name": _in_order(names, encoder.encode),
            "text": _in_order(texts, encoder.encode),
            **_laid_out("words", [words[place[text]] for text in texts], encoder.word_width),
        }
        return {name: _short(values) for name, values in {**columns, **self._shown(mentions)}.items()}

    def _shown(self, mentions: Sequence[Mention]) -> dict[str, NDArray[Any]]:
        image = self._encoders.image
        if image is None:
            return {}
        paths = [one.image for one in mentions]
        pictures = vectors_of_files(paths, image)
        columns = {"image": pictures.vectors, "image.there": pictures.there.astype(np.uint8)}
        if self._detector is not None:
            found = objects_of_files(paths, self._detector, image, folder=self._folder)
            columns |= {"objects": found.lists.values, "objects.counts": np.diff(found.lists.starts)}
        if self._settings is not None:
            self._asking = self._asking or ClipAttributes(_Both(self._encoders), self._settings)
            shown = self._asking.shown(pictures.vectors, pictures.space)
            shown = [row if there else () for row, there in zip(shown, pictures.there, strict=True)]
            rows = attribute_texts(shown, self._encoders.text)
            columns |= _laid_out("attributes", rows, self._encoders.text.space.width)
        return columns

    def facts(self, mentions: Sequence[Mention]) -> dict[str, Any]:
        """What the columns hang on."""
        digest, known = hashlib.sha256(), dict[Path, bytes]()
        for one in mentions:
            for text in (one.surface, mention_text(one)):
                digest.update(hashlib.sha256(text.encode("utf-8", "replace")).digest())
            if self._encoders.image and one.image:
                if one.image not in known:
                    known[one.image] = _bytes_of(one.image)
                digest.update(known[one.image])
        spaces = {"text": self._encoders.text.space, "image": self._encoders.image_space}
        return {
            "spaces": {name: asdict(space) if space else None for name, space in spaces.items()},
            "detector": dict(self._detector.facts) if self._detector else None,
            "attributes": asdict(self._settings) if self._settings else None,
            "most_words": MOST_WORDS,
            "mentions": digest.hexdigest(),
        }


class _Both:
    """The two encoders of a profile as one, where their space is one."""

    def __init__(self, encoders: TokenEncoders) -> None:
        assert encoders.image is not None
        self.space, self.encode = encoders.text.space, encoders.text.encode
        self.image_space, self.encode_images = encoders.image.image_space, encoders.image.encode_images


def _in_order(texts: Sequence[str], encode: Callable[[list[str]], NDArray[Any]]) -> NDArray[Any]:
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    vectors: NDArray[Any] = encode(list(place))[[place[text] for text in texts]]
    return vectors


def _laid_out(name: str, rows: Sequence[NDArray[Any]], width: int) -> dict[str, NDArray[Any]]:
    lists = laid_end_to_end(rows, width)
    return {name: lists.values, f"{name}.counts": np.diff(lists.starts)}


def _short(values: NDArray[Any]) -> NDArray[Any]:
    """Kept or not, vectors are float16: a run that finds them kept computes what the first one did."""
    return values.astype(np.float16) if values.dtype.kind == "f" else values


def _table(columns: dict[str, NDArray[Any]], n: int) -> DweTable:
    parts: dict[str, Singles | Several] = {}
    for name in columns:
        if name in _SINGLES:
            there = columns.get(f"{name}.there")
            parts[name] = Singles(values=columns[name], there=None if there is None else there.astype(bool))
        elif "." not in name:
            lists = Lists(starts=starts_of(columns[f"{name}.counts"]), values=columns[name])
            parts[name] = Several(lists=lists)
    return DweTable(n=n, parts=parts)


def _bytes_of(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"nothing"
    except (OSError, ValueError):
        return b"nothing"
