"""Encode mentions and entities for DWE+: tables of names, texts and everything found in pictures.

In: mentions, encoders, the chosen inputs; a KB's vectors.  Out: tables.  With a folder a mention table is stored there
piece by piece (float16, memory-mapped), tied to the texts, to the bytes of the pictures and to all models that looked
at them; an interrupted run resumes after its last piece.  Used in training, evaluation and linking."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.mention_inputs import mention_text, vectors_of_files
from localmel.encode.registry import Encoders
from localmel.encode.space import MOST_WORDS
from localmel.engines.open import open_model
from localmel.kb.packed import Lists
from localmel.matchers.dwe.choice import CLIP
from localmel.matchers.dwe.features import DweTable, Several, Singles
from localmel.matchers.protocol import laid_end_to_end
from localmel.records import Mention
from localmel.see.attributes import ClipAttributes, Shown, attribute_texts, picture_attributes
from localmel.see.identity import FACES, Likeness, Portraits, identities, identity_texts
from localmel.see.objects import objects_of_files
from localmel.store import progress
from localmel.store.arrays import ResumableArrays, read_arrays, starts_of
from localmel.store.journal import Journal

if TYPE_CHECKING:
    from localmel.encode.kb_images import KbImages
    from localmel.encode.kb_vectors import KbVectors, TextVectors
    from localmel.matchers.dwe.sight import DweSight
    from localmel.see.identity import Likeness


KIND, VERSION = "DWE+ mentions", 1
_AT_ONCE = 1024
_SINGLES = ("name", "text", "image")


def dwe_entities(vectors: KbVectors, images: KbImages | None = None, written: Sequence[TextVectors] = ()) -> DweTable:
    """Return the features of a KB's entities: static text, picture, and the chosen additional texts."""
    parts: dict[str, Singles | Several] = {"text": Singles(values=vectors.entities)}
    if images is not None:
        parts["image"] = Singles(values=images.vectors, there=images.there)
    if written:
        parts["written"] = _written(written, len(vectors.entities))
    return DweTable(n=len(vectors.entities), parts=parts)


def _written(texts: Sequence[TextVectors], n: int) -> Singles | Several:
    """Return the vectors of one source as stored, or of two sources joined per entity."""
    there = [one.has_text(np.arange(n)) for one in texts]
    if len(texts) == 1:
        return Singles(values=texts[0].vectors, there=there[0])
    each = np.stack([one.vectors for one in texts], axis=1)[np.stack(there, axis=1)]
    return Several(lists=Lists(starts=starts_of(np.sum(there, axis=0)), values=each))


def dwe_mentions(
    mentions: Sequence[Mention],
    encoders: Encoders,
    *,
    sight: DweSight | None = None,
    own: OwnPortraits | None = None,
    folder: Path | None = None,
) -> DweTable:
    """Return a table with a row for each mention.  own: the portraits to compare with, if identities are chosen.

    Pictures are used only if there is an image encoder; one that cannot be read counts as missing."""
    looking = Looking(encoders, sight, own, folder.parent if folder else None)
    if folder is None:
        return _table(looking.at(mentions), len(mentions), looking.alike)
    facts = looking.facts(mentions)
    with suppress(FileNotFoundError):
        manifest, arrays = read_arrays(folder, kind=KIND, version=VERSION)
        if all(manifest.get(name) == value for name, value in facts.items()):
            return _table(arrays, len(mentions))
    progress.begin(f"encoding mentions of {folder.name}", len(mentions))
    resumable = ResumableArrays(folder, facts)
    for number, first in enumerate(range(0, max(len(mentions), 1), _AT_ONCE)):
        some = mentions[first : first + _AT_ONCE]
        if number >= resumable.pieces:
            resumable.add(looking.at(some))
        progress.advance(len(some))
    resumable.seal(kind=KIND, version=VERSION)
    _, arrays = read_arrays(folder, kind=KIND, version=VERSION)
    return _table(arrays, len(mentions))


def _table(columns: dict[str, NDArray[Any]], n: int, alike: Sequence[tuple[Likeness, ...]] = ()) -> DweTable:
    parts: dict[str, Singles | Several] = {}
    for name in columns:
        if name in _SINGLES:
            there = columns.get(f"{name}.there")
            parts[name] = Singles(values=columns[name], there=None if there is None else there.astype(bool))
        elif "." not in name:
            lists = Lists(starts=starts_of(columns[f"{name}.counts"]), values=columns[name])
            parts[name] = Several(lists=lists)
    return DweTable(n=n, parts=parts, alike=tuple(alike))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnPortraits:
    """The portraits of the KB that mentions are compared with, and the texts of their entities."""

    portraits: Portraits
    texts: NDArray[Any]  # (entities, width)
    state: str
    "Hash that changes with the portraits and texts."


class Looking:
    """The encoders and models that look at mentions."""

    def __init__(
        self, encoders: Encoders, sight: DweSight | None, own: OwnPortraits | None, folder: Path | None
    ) -> None:
        """Set up the models.  sight: without one, only whole pictures are used.  folder: stores what pictures show."""
        self._encoders, self._sight, self._own, self._folder = encoders, sight, own, folder
        self._clip: ClipAttributes | None = None
        self.alike: list[tuple[Likeness, ...]] = []
        "Similar portraits of all mentions processed so far, in order."

    def at(self, mentions: Sequence[Mention]) -> dict[str, NDArray[Any]]:
        """Return the columns of the mentions, encoding each distinct text and picture once."""
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
        image, sight = self._encoders.image, self._sight
        if image is None:
            self.alike += [() for _ in mentions]
            return {}
        paths = [one.image for one in mentions]
        pictures = vectors_of_files(paths, image)
        columns = {"image": pictures.vectors, "image.there": pictures.there.astype(np.uint8)}
        if sight is None:
            return columns
        whole = [pictures.vectors[row : row + there] for row, there in enumerate(pictures.there.tolist())]
        faces = whole
        if sight.objects:
            found = objects_of_files(paths, sight.objects, image, folder=self._kept("objects"))
            columns |= {"objects": found.lists.values, "objects.counts": np.diff(found.lists.starts)}
        if sight.faces:
            found = objects_of_files(paths, sight.faces, image, folder=self._kept("faces"))
            columns |= {"faces": found.lists.values, "faces.counts": np.diff(found.lists.starts)}
            faces = [found.of(row) for row in range(len(paths))]
        if sight.choice.attributes:
            seen = [path if there else None for path, there in zip(paths, pictures.there, strict=True)]
            shown = self._asked_clip(pictures.vectors) if sight.choice.attributes == CLIP else self._asked_model(seen)
            rows = [row if path else () for row, path in zip(shown, seen, strict=True)]
            made = attribute_texts(rows, self._encoders.text)
            columns |= _laid_out("attributes", made, self._encoders.text.space.width)
        if self._own is not None:
            portraits, settings = self._own.portraits, sight.choice.identity_settings
            shown_of = faces if portraits.of == FACES else whole
            alike = identities(portraits, shown_of, image.image_space, portraits.of, settings)
            columns |= _laid_out("identity", identity_texts(alike, self._own.texts), self._encoders.text.space.width)
            self.alike += alike
        return columns

    def _asked_clip(self, vectors: NDArray[Any]) -> list[tuple[Shown, ...]]:
        assert self._sight is not None
        self._clip = self._clip or ClipAttributes(_Both(self._encoders), self._sight.choice.attribute_settings)
        return self._clip.shown(vectors, _Both(self._encoders).image_space)

    def _asked_model(self, paths: Sequence[Path | None]) -> list[tuple[Shown, ...]]:
        """Return the attributes the model names for each picture; none if its answer cannot be read.

        The model is in memory for these pictures only."""
        assert self._sight is not None
        choice, kept = self._sight.choice, self._kept("attributes")
        assert choice.model is not None
        if not (different := list(dict.fromkeys(path for path in paths if path))):
            return [() for _ in paths]
        with open_model(choice.model) as engine, ExitStack() as stack:
            journal = stack.enter_context(Journal(kept / "answers.jsonl")) if kept else None
            with progress.silence():  # the step counts mentions, not pictures
                answers = picture_attributes(different, engine, choice.attribute_settings, journal, model=choice.model)
        shown = {answer.picture: answer.shown for answer in answers}
        return [shown[path] if path else () for path in paths]

    def _kept(self, name: str) -> Path | None:
        return self._folder / name if self._folder else None

    def facts(self, mentions: Sequence[Mention]) -> dict[str, Any]:
        """Return the facts that the columns depend on."""
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
            "sight": self._sight.facts() if self._sight else None,
            "portraits": self._own.state if self._own else None,
            "most_words": MOST_WORDS,
            "mentions": digest.hexdigest(),
        }


class _Both:
    """The two encoders of a profile as one object, for encoders that share a space."""

    def __init__(self, encoders: Encoders) -> None:
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
    """Return vectors as float16, stored or not, so that a run that reuses stored ones computes the same results."""
    return values.astype(np.float16) if values.dtype.kind == "f" else values


def _bytes_of(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"nothing"
    except (OSError, ValueError):
        return b"nothing"
