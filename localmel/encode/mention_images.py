"""The vectors of pictures that mentions name: each picture is opened and encoded once, a bad one stops nothing.

In: paths, None where there is no picture.  Out: a row for each, and a mark for those that have a picture."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureVectors:
    """The pictures of m rows."""

    space: Space
    vectors: NDArray[Any]  # (m, width) float32, unit rows; zero where `there` is false
    there: NDArray[Any]  # (m,) bool
    unreadable: tuple[str, ...] = ()
    "What is wrong with each picture that was opened in vain."


def vectors_of_files(
    paths: Sequence[Path | None], encoder: ImageEncoder, on_pictures: Callable[[int], None] = lambda _: None
) -> PictureVectors:
    """One row for each path.  `on_pictures` hears how many more different pictures are done."""
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
