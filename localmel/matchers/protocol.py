"""Define the protocol of all matchers.

In: features of some rows of one side, of the matcher's own type.  Out: sides, computed once per row, and scores.
The inner product of two rows' vectors is a first score that an index can search; the matcher's own score may also use
tokens, and is computed only for the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localmel.errors import BadInput
from localmel.kb.packed import Lists

Given = TypeVar("Given", contravariant=True)
Known = TypeVar("Known", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """Vectors of the parts of n rows, padded to the longest row."""

    values: Tensor  # (n, length, width)
    there: Tensor  # (n, length) bool; false where a row has ended

    def to(self, device: torch.device) -> Tokens:
        """Return a copy on another device."""
        return Tokens(values=self.values.to(device), there=self.there.to(device))

    def rows(self, places: Tensor) -> Tokens:
        """Return the rows at `places` of any shape: (m, k) places give values (m, k, length, width)."""
        return Tokens(values=self.values[places], there=self.there[places])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """The encoding of n rows of one side, computed without the other side."""

    vectors: Tensor  # (n, width)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)

    def to(self, device: torch.device) -> Side:
        """Return a copy on another device."""
        moved = {name: tokens.to(device) for name, tokens in self.tokens.items()}
        return Side(vectors=self.vectors.to(device), tokens=moved)

    def rows(self, places: Tensor) -> Side:
        """Return the rows at `places`: (m, k) places give vectors (m, k, width)."""
        return Side(
            vectors=self.vectors[places], tokens={name: tokens.rows(places) for name, tokens in self.tokens.items()}
        )

    def __len__(self) -> int:
        return len(self.vectors)


class Matcher(Protocol[Given]):
    """A model that scores mentions against entities.  A row's side depends on that row alone, up to rounding."""

    @property
    def width(self) -> int:
        """Return the length of the vectors of both sides."""
        ...

    @property
    def vectors_say_all(self) -> bool:
        """Return whether the inner product of two vectors is the full score, so that a second step is unnecessary."""
        ...

    def mentions(self, given: Given) -> Side:
        """Return the side of some mentions.  Raises BadInput for features of other shapes or non-finite values."""
        ...

    def entities(self, given: Given) -> Side:
        """Return the side of some entities.  Raises BadInput for features of other shapes or non-finite values."""
        ...

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """Return the scores of all pairs of m mentions and n entities, shape (m, n); higher is better.

        If the entities are in rows of k, one row per mention (`Side.rows` of (m, k) places), the shape is (m, k)."""
        ...


class EntityFeatures(Protocol[Known]):
    """The features of the n entities of a KB, on disk or in memory."""

    def __len__(self) -> int: ...

    def of(self, positions: NDArray[np.int64]) -> Known:
        """Return the features of the entities at these positions."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """The features of b rows of one side.  A row without words has no text, one without patches has no picture."""

    text: Tensor  # (b, text width)
    words: Tensor  # (b, w, word width)
    is_word: Tensor  # (b, w) bool
    image: Tensor | None = None  # (b, image width)
    patches: Tensor | None = None  # (b, p, patch width)
    is_patch: Tensor | None = None  # (b, p) bool

    def to(self, device: torch.device) -> Features:
        """Return a copy on another device."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: None if value is None else value.to(device) for name, value in named.items()}
        return Features(**moved)

    def pictures(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return `image`, `patches` and `is_patch`.  Raises BadInput if they were not given."""
        if self.image is None or self.patches is None or self.is_patch is None:
            raise BadInput("this matcher looks at pictures, and got no vectors of pictures or patches")
        return self.image, self.patches, self.is_patch

    def check(self, *, text: int, word: int, image: int, patch: int) -> None:
        """Raise BadInput unless shapes agree with each other and with these widths, and all values are finite.

        With `image` 0, pictures are ignored."""
        b = len(self.text)
        expected = {
            "vectors of texts": (self.text, (b, text)),
            "vectors of words": (self.words, (*self.is_word.shape, word)),
            "marks of words": (self.is_word, (b, self.words.shape[1])),
        }
        if image:
            whole, patches, is_patch = self.pictures()
            expected |= {
                "vectors of pictures": (whole, (b, image)),
                "vectors of patches": (patches, (*is_patch.shape, patch)),
                "marks of patches": (is_patch, (b, patches.shape[1])),
            }
        for name, (values, shape) in expected.items():
            if tuple(values.shape) != tuple(shape):
                raise BadInput(f"{name} have the shape {tuple(values.shape)}; this matcher asks for {tuple(shape)}")
            if not bool(torch.isfinite(values).all()):
                row = int((~torch.isfinite(values)).reshape(b, -1).any(dim=1).nonzero()[0])
                raise BadInput(f"{name} of row {row} hold a value that is no number: the features are damaged")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """The pictures of n rows."""

    whole: NDArray[Any]  # (n, image width); for a row with several pictures their mean
    patches: Lists  # of each row; values (all patches, patch width)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureTable:
    """The features of n rows of one side, stored without padding; an `EntityFeatures`."""

    text: NDArray[Any]  # (n, text width)
    words: Lists  # of each row; values (all words, word width)
    pictures: Pictures | None = None

    def __len__(self) -> int:
        return len(self.text)

    def of(self, positions: NDArray[np.int64]) -> Features:
        """Return the rows at `positions`, each padded to the longest of them."""
        words, is_word = padded(self.words, positions)
        text = _tensor(self.text[positions])
        if self.pictures is None:
            return Features(text=text, words=words, is_word=is_word)
        patches, is_patch = padded(self.pictures.patches, positions)
        image = _tensor(self.pictures.whole[positions])
        return Features(text=text, words=words, is_word=is_word, image=image, patches=patches, is_patch=is_patch)


def pictures_of(rows: Sequence[Sequence[tuple[NDArray[Any], NDArray[Any]]]], *, image: int, patch: int) -> Pictures:
    """Return the pictures of n rows, each with any number of vectors (image,) and their patches (p, patch).

    A row's vector is the mean of its pictures' vectors; its patches are those of all its pictures."""
    whole = np.zeros((len(rows), image), np.float32)
    patches = []
    for row, own in zip(whole, rows, strict=True):
        if own:
            row[:] = np.mean([vector for vector, _ in own], axis=0)
        patches.append(np.concatenate([np.zeros((0, patch), np.float16), *(values for _, values in own)]))
    return Pictures(whole=whole, patches=laid_end_to_end(patches, patch))


def laid_end_to_end(rows: Sequence[NDArray[Any]], width: int) -> Lists:
    """Return n arrays (length, width), one per row, laid end to end."""
    values = np.concatenate([np.zeros((0, width), np.float16), *rows])
    return Lists(starts=np.cumsum([0, *map(len, rows)]), values=values)


def padded(lists: Lists, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return values (b, longest, width) float32, zero-padded, and a mask (b, longest) bool.  `longest` is at least
    1."""
    values, owner = lists.of(positions)
    counts = np.bincount(owner, minlength=len(positions))
    there = np.arange(max(1, counts.max(initial=0))) < counts[:, None]
    laid_out = np.zeros((*there.shape, lists.values.shape[1]), np.float32)
    laid_out[there] = values
    return torch.from_numpy(laid_out), torch.from_numpy(there)


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
