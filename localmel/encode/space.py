"""What all encoders have in common: the space of their vectors, their protocols, and how texts share a batch.

In: texts or pictures.  Out: unit rows, and rows for their words and patches.  Vectors of two different spaces must not
be compared, so the space is part of every table of vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # `localmel doctor` must run where NumPy is broken
    from numpy.typing import NDArray

    from localmel.engines.pictures import Picture  # imports PIL

MOST_WORDS = 40
"""How many words of a text get vectors of their own.  M3EL uses 40 too, but counts the begin and end tokens."""

Method = Literal["onnxruntime", "torch"]
"What computes a text encoder that can run in either; others ignore it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Which model made a vector, from which weights, and how long the vector is."""

    name: str
    width: int
    weights_sha256: str


class TextEncoder(Protocol):
    """Encodes texts as unit vectors of one space."""

    @property
    def space(self) -> Space: ...

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = ...) -> NDArray[Any]:
        """Return one unit vector per text, in order, shape (n, width) float32.

        A text's vector depends on the text alone, up to rounding.  `on_texts` gets the number of texts just done."""
        ...


class ImageEncoder(Protocol):
    """Encodes pictures as unit vectors of one space, which may be that of a text encoder."""

    @property
    def image_space(self) -> Space: ...

    def encode_images(self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = ...) -> NDArray[Any]:
        """Return one unit vector per picture, in order, shape (n, width) float32.

        Pictures are taken and released one by one, so that only few are decoded at a time.  A picture's vector
        depends on its pixels alone, up to rounding.  `on_pictures` gets the number of pictures just done."""
        ...


class WordEncoder(TextEncoder, Protocol):
    """Encodes texts, and their words too (a word is a token of the model's vocabulary)."""

    @property
    def word_width(self) -> int: ...

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = ...) -> list[NDArray[Any]]:
        """Return for each text the last layer's states of its words, shape (up to MOST_WORDS, word_width) float16.

        Begin and end tokens are left out, so an empty text has no words.  The states depend on the text alone, up to
        rounding."""
        ...


class PatchEncoder(ImageEncoder, Protocol):
    """Encodes pictures, and their patches too."""

    @property
    def patch_width(self) -> int: ...

    def patches(self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = ...) -> list[NDArray[Any]]:
        """Return for each picture the last layer's states of its patches, shape (patches, patch_width) float16.

        Patches run row by row through the picture; the state of the whole picture is left out."""
        ...


def batches_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group texts of similar length, short ones first, so that little is spent on padding.

    lengths: how many tokens each text has; budget: how many tokens a batch may have, padding included.
    Yields lists of positions.  Example: lengths [9, 2, 3] and a budget of 9 give [1, 2] and [0]."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[place] > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
