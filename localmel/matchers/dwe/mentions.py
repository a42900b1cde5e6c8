"""Mentions and entities as DWE+ takes them: tables of names, texts and whatever is seen in pictures.

In: mentions, encoders, what is to be seen; a KB's vectors.  Out: tables.  With a folder a mention table is kept
there piece by piece (float16, memory-mapped), tied to the texts, to the bytes of the pictures and to all that looked at
them; a run that was stopped goes on behind its last piece.  Used alike in training, evaluation and linking."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.registry import Encoders
from localmel.kb.packed import Lists
from localmel.matchers.dwe.features import DweTable, Several, Singles
from localmel.matchers.dwe.looking import Looking, OwnPortraits
from localmel.records import Mention
from localmel.store import progress
from localmel.store.arrays import ResumableArrays, read_arrays, starts_of

if TYPE_CHECKING:
    from localmel.encode.kb_images import KbImages
    from localmel.encode.kb_vectors import KbVectors, TextVectors
    from localmel.matchers.dwe.sight import DweSight
    from localmel.see.identity import Likeness

KIND, VERSION = "DWE+ mentions", 1
_AT_ONCE = 1024
_SINGLES = ("name", "text", "image")


def dwe_entities(vectors: KbVectors, images: KbImages | None = None, written: Sequence[TextVectors] = ()) -> DweTable:
    """Of a KB's entities: their static text, their picture, and the texts beside it that are chosen."""
    parts: dict[str, Singles | Several] = {"text": Singles(values=vectors.entities)}
    if images is not None:
        parts["image"] = Singles(values=images.vectors, there=images.there)
    if written:
        parts["written"] = _written(written, len(vectors.entities))
    return DweTable(n=len(vectors.entities), parts=parts)


def _written(texts: Sequence[TextVectors], n: int) -> Singles | Several:
    """Of one source as it lies on the disk; of two of them each entity's own ones."""
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
    """A row for each mention.  Pictures are looked at only where the encoders see some; one that cannot be read counts
    as none.  own: what identities are looked for in, where they are chosen."""
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
