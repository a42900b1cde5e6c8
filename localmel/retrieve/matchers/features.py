"""What is known of mentions and entities before they are matched: a vector for each whole text and picture, and one for
each word and patch.

In: arrays, memory-mapped where they are large, in which tokens are laid end to end.  Out: tensors of some rows, padded,
with marks of what is there.  Refuses values that are no numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localmel.errors import BadInput
from localmel.kb.packed import Lists


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """b rows of one side.  A row without any word has no text, one without any patch no picture."""

    text: Tensor  # (b, text width)
    words: Tensor  # (b, w, word width)
    is_word: Tensor  # (b, w) bool
    image: Tensor | None = None  # (b, image width)
    patches: Tensor | None = None  # (b, p, patch width)
    is_patch: Tensor | None = None  # (b, p) bool

    def to(self, device: torch.device) -> Features:
        """The same on another device."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: None if value is None else value.to(device) for name, value in named.items()}
        return Features(**moved)

    def pictures(self) -> tuple[Tensor, Tensor, Tensor]:
        """`image`, `patches` and `is_patch`.  Raises BadInput where they were not given."""
        if self.image is None or self.patches is None or self.is_patch is None:
            raise BadInput("this matcher looks at pictures, and got no vectors of pictures or patches")
        return self.image, self.patches, self.is_patch

    def check(self, *, text: int, word: int, image: int, patch: int) -> None:
        """Raise BadInput unless shapes agree with each other and these widths, and all values are numbers.

        With `image` 0 pictures are passed over."""
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
                raise BadInput(
                    f"{name} of row {row} hold a value that is no number: the features are damaged",
                    hint="localmel index KB   # with the --profile whose encoder this is",
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """The pictures of n rows."""

    whole: NDArray[Any]  # (n, image width); for a row with several pictures their mean
    patches: NDArray[Any]  # (all patches, patch width), row after row
    starts: NDArray[Any]  # (n + 1,) int64: patches starts[i]:starts[i + 1] belong to row i


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureTable:
    """n rows of one side, nothing padded; an `EntityFeatures`."""

    text: NDArray[Any]  # (n, text width)
    words: NDArray[Any]  # (all words, word width), row after row
    word_starts: NDArray[Any]  # (n + 1,) int64
    pictures: Pictures | None = None

    def __len__(self) -> int:
        return len(self.text)

    def of(self, positions: NDArray[np.int64]) -> Features:
        """The rows at `positions`, each padded to the longest of them."""
        words, is_word = padded(Lists(starts=self.word_starts, values=self.words), positions)
        text = _tensor(self.text[positions])
        if self.pictures is None:
            return Features(text=text, words=words, is_word=is_word)
        own = self.pictures
        patches, is_patch = padded(Lists(starts=own.starts, values=own.patches), positions)
        image = _tensor(own.whole[positions])
        return Features(text=text, words=words, is_word=is_word, image=image, patches=patches, is_patch=is_patch)


def table_of(
    text: NDArray[Any],
    words: Sequence[NDArray[Any]],
    pictures: Sequence[tuple[NDArray[Any], Sequence[NDArray[Any]]]] | None = None,
) -> FeatureTable:
    """A table of n rows from the words of each and its pictures: their vectors (p, width), and p arrays of patches.

    p is 0 for a row without a picture.  `pictures` None: none has one, and none is looked at."""
    flat, starts = laid_end_to_end(words)
    if pictures is None:
        return FeatureTable(text=text, words=flat, word_starts=starts)
    whole = np.stack([vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1]) for vectors, _ in pictures])
    empty = next((array[:0] for _, arrays in pictures for array in arrays), np.zeros((0, 1), np.float32))
    patches, patch_starts = laid_end_to_end([np.concatenate([empty, *arrays]) for _, arrays in pictures])
    own = Pictures(whole=whole.astype(np.float32), patches=patches, starts=patch_starts)
    return FeatureTable(text=text, words=flat, word_starts=starts, pictures=own)


def laid_end_to_end(rows: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """n arrays (length, width) -> (all, width), and where each begins (n + 1,)."""
    return np.concatenate(rows), np.cumsum([0, *(len(row) for row in rows)])


def padded(lists: Lists, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """(b, longest, width) float32, zero beyond each row's end, and (b, longest) bool.  `longest` is at least 1."""
    values, owner = lists.of(positions)
    counts = np.bincount(owner, minlength=len(positions))
    there = np.arange(max(1, counts.max(initial=0))) < counts[:, None]
    laid_out = np.zeros((*there.shape, lists.values.shape[1]), np.float32)
    laid_out[there] = values
    return torch.from_numpy(laid_out), torch.from_numpy(there)


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
