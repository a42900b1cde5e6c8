"""What of a mention is encoded: its text, with or without the surface in front, and its picture.

In: mentions, or the paths of their pictures.  Out: texts, and vectors of pictures.  Training and linking both take
their inputs from here, so that a network is used on what it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.space import ImageEncoder, Space
from localmel.engines.pictures import Picture, open_picture
from localmel.errors import BadPicture
from localmel.records import Mention

_WINDOW = 250
"Characters kept before and after a mention, in a text longer than twice this."


def context_around(mention: Mention) -> str:
    """Return the text around the mention; a long text is cut between words."""
    text, span = mention.context, mention.span
    if len(text) <= 2 * _WINDOW:
        return text
    before = text[max(0, span.start - _WINDOW) : span.start]
    after = text[span.end : span.end + _WINDOW]
    if span.start > _WINDOW:
        before = before.partition(" ")[2]
    if span.end + _WINDOW < len(text):
        after = after.rpartition(" ")[0]
    return f"{before}{mention.surface}{after}"


def mention_text(mention: Mention) -> str:
    """Return the context with the surface in front ("Jordan: Jordan in a Bulls shirt").

    The surface tells several mentions in one text apart."""
    return f"{mention.surface}: {context_around(mention)}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureVectors:
    """The vectors of m pictures."""

    space: Space
    vectors: NDArray[Any]  # (m, width) float32, unit rows; zero where `there` is false
    there: NDArray[Any]  # (m,) bool
    unreadable: tuple[str, ...] = ()
    "One message for each file that is not a readable picture."


def vectors_of_files(
    paths: Sequence[Path | None], encoder: ImageEncoder, on_pictures: Callable[[int], None] = lambda _: None
) -> PictureVectors:
    """Encode one picture per path; None stands for no picture.  Each file is opened and encoded once.

    Files that cannot be read are skipped and reported in the result.  `on_pictures` gets the number of distinct
    pictures just done."""
    unreadable: list[str] = []
    done: dict[Path, int] = {}

    def opened() -> Iterator[Picture]:
        for path in dict.fromkeys(path for path in paths if path is not None):
            try:
                picture = open_picture(path)
            except BadPicture as error:
                unreadable.append(error.fact)
                on_pictures(1)
                continue
            done[path] = len(done)
            yield picture

    encoded = encoder.encode_images(opened(), on_pictures)
    place = np.array([-1 if path is None else done.get(path, -1) for path in paths], np.int64)
    there = place >= 0
    vectors = np.zeros((len(paths), encoder.image_space.width), np.float32)
    vectors[there] = encoded[place[there]]
    return PictureVectors(space=encoder.image_space, vectors=vectors, there=there, unreadable=tuple(unreadable))
