"""What every matcher can do, whatever it looks at.

In: what is known of some rows of one side, as the matcher wants it.  Out: sides, made once for each row, and scores.
The inner product of two rows' vectors is a first score that an index can search; the matcher's own score may look at
tokens too, and is asked for the best only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Given = TypeVar("Given", contravariant=True)
Known = TypeVar("Known", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """Vectors of the parts of n rows, padded to the longest row."""

    values: Tensor  # (n, length, width)
    there: Tensor  # (n, length) bool; false where a row has ended

    def to(self, device: torch.device) -> Tokens:
        """The same on another device."""
        return Tokens(values=self.values.to(device), there=self.there.to(device))

    def rows(self, places: Tensor) -> Tokens:
        """Those at `places`, of whatever shape: (m, k) places give values (m, k, length, width)."""
        return Tokens(values=self.values[places], there=self.there[places])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """What a matcher made of n rows of one side, without looking at the other."""

    vectors: Tensor  # (n, width)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)

    def to(self, device: torch.device) -> Side:
        """The same on another device."""
        moved = {name: tokens.to(device) for name, tokens in self.tokens.items()}
        return Side(vectors=self.vectors.to(device), tokens=moved)

    def rows(self, places: Tensor) -> Side:
        """Those at `places`: (m, k) places give vectors (m, k, width)."""
        return Side(
            vectors=self.vectors[places], tokens={name: tokens.rows(places) for name, tokens in self.tokens.items()}
        )

    def __len__(self) -> int:
        return len(self.vectors)


class Matcher(Protocol[Given]):
    """Scores mentions against entities.  What it makes of a row depends on that row alone up to rounding."""

    @property
    def width(self) -> int:
        """Of the vectors of both sides."""
        ...

    @property
    def vectors_say_all(self) -> bool:
        """Whether the inner product of two vectors is the score, so that nothing is gained by a second look."""
        ...

    def mentions(self, given: Given) -> Side:
        """The side of some mentions.  Raises BadInput for features of other shapes or with values that are none."""
        ...

    def entities(self, given: Given) -> Side:
        """The side of some entities.  Raises BadInput likewise."""
        ...

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """(m, n) scores of all pairs of m mentions and n entities; higher is better.

        Where the entities stand in rows of k, one row for each mention (`Side.rows` of (m, k) places): (m, k)."""
        ...


class EntityFeatures(Protocol[Known]):
    """What is known of the n entities of a KB, on disk or in memory."""

    def __len__(self) -> int: ...

    def of(self, positions: NDArray[np.int64]) -> Known:
        """Of the entities at these positions."""
        ...
