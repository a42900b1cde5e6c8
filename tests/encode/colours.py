"""An image encoder that needs no model: a picture's vector is its mean colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.space import Space
from localmel.engines.pictures import Picture


class Colours:
    """Three numbers for each picture."""

    def __init__(self, name: str = "colours", weights: str = "a" * 64) -> None:
        self.image_space = Space(name=name, width=3, weights_sha256=weights)
        self.asked: list[Path] = []

    def encode_images(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> NDArray[Any]:
        rows = [np.zeros((0, 3), np.float32)]
        for picture in pictures:
            self.asked.append(picture.path)
            rows.append(self.vector(picture)[None])
            on_pictures(1)
        return np.concatenate(rows)

    @staticmethod
    def vector(picture: Picture) -> NDArray[Any]:
        """(3,) float32, of length 1."""
        colour = picture.pixels().reshape(-1, 3).mean(axis=0) + 1.0
        return np.asarray(colour / np.linalg.norm(colour), np.float32)
