"""Vectors and the space they live in: comparing vectors of two spaces is refused, not computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from localmel.engines.pictures import Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Which model made a vector, from which bytes, and how long it is."""

    name: str
    width: int
    weights_sha256: str


class TextEncoder(Protocol):
    """Texts -> unit vectors of one space."""

    @property
    def space(self) -> Space: ...

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = ...) -> NDArray[Any]:
        """(n,) texts -> (n, width) float32, unit rows, in the order of the texts.

        A text's vector depends on the text alone up to rounding.  `on_texts` hears how many more are done."""
        ...


class ImageEncoder(Protocol):
    """Pictures -> unit vectors of one space, which may be that of a text encoder."""

    @property
    def image_space(self) -> Space: ...

    def encode_images(self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = ...) -> NDArray[Any]:
        """n pictures -> (n, width) float32, unit rows, in the order of the pictures.

        Pictures are taken one after the other and let go, so that few are held decoded at a time.  A picture's vector
        depends on its pixels alone up to rounding.  `on_pictures` hears how many more are done."""
        ...
