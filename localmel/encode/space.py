"""Vectors and the space they live in: comparing vectors of two spaces is refused, not computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
