"""The features of mentions and entities in DWE+: by part, any number of vectors for each row.

A mention has `name` (the surface alone), `text` (surface and sentence), `words`, `image` (the whole picture),
`objects`, `faces`, `attributes` and `identity` (texts that say what the picture shows).  An entity has `text`
(static), `written` (a model's description), `image` (one or more pictures).  A part that is not given is missing from
every row.

In: arrays, memory-mapped where they are large.  Out: padded tensors of the requested rows, with masks.  Refuses
values that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.kb.packed import Lists
from localmel.matchers.protocol import Tokens, laid_end_to_end, padded
from localmel.see.identity import Likeness


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DweFeatures:
    """The features of n rows of one side."""

    n: int
    parts: Mapping[str, Tokens]
    alike: tuple[tuple[Likeness, ...], ...] = ()
    "For each mention the entities whose portraits resemble its picture, if they were looked for; for display."

    def to(self, device: torch.device) -> DweFeatures:
        """Return a copy on another device."""
        return replace(self, parts={name: tokens.to(device) for name, tokens in self.parts.items()})

    def __len__(self) -> int:
        return self.n

    def check(self, width_of: Callable[[str], int]) -> None:
        """Raise BadInput unless each part has n rows, vectors of the width `width_of` gives, and only finite values.

        Skips a part whose width is 0."""
        for name, tokens in self.parts.items():
            if not (width := width_of(name)):
                continue
            shape, marks = tuple(tokens.values.shape), tuple(tokens.there.shape)
            if len(shape) != 3 or shape[0] != self.n or shape[2] != width:
                asked = f"({self.n}, any number, {width})"
                raise BadInput(f"vectors of {name} have the shape {shape}; this matcher asks for {asked}")
            if marks != shape[:2] or tokens.there.dtype != torch.bool:
                raise BadInput(f"marks of {name} have the shape {marks}, type {tokens.there.dtype}; not {shape[:2]}")
            wrong = ~torch.isfinite(tokens.values)
            if bool(wrong.any()):
                row = int(wrong.reshape(self.n, -1).any(dim=1).nonzero()[0])
                raise BadInput(f"vectors of {name} of row {row} hold a value that is no number: they are damaged")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Singles:
    """At most one vector for each of n rows."""

    values: NDArray[Any]  # (n, width)
    there: NDArray[Any] | None = None  # (n,) bool; None: every row has one

    def __len__(self) -> int:
        return len(self.values)

    def of(self, positions: NDArray[np.int64]) -> Tokens:
        """Return the rows at `positions`, with zeros for a missing row."""
        there = np.ones(len(positions), bool) if self.there is None else np.asarray(self.there[positions], bool)
        values = np.where(there[:, None], np.asarray(self.values[positions], np.float32), np.float32(0))
        return Tokens(values=torch.from_numpy(values)[:, None], there=torch.from_numpy(there)[:, None])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Several:
    """Any number of vectors for each of n rows."""

    lists: Lists

    def __len__(self) -> int:
        return len(self.lists.starts) - 1

    def of(self, positions: NDArray[np.int64]) -> Tokens:
        """Return the rows at `positions`, padded to the longest of them."""
        values, there = padded(self.lists, positions)
        return Tokens(values=values, there=there)


def several(rows: Sequence[NDArray[Any]], width: int) -> Several:
    """Return the part made of one array (any number, width) for each row."""
    return Several(lists=laid_end_to_end(rows, width))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DweTable:
    """The unpadded features of n rows of one side; an `EntityFeatures`.  Raises BadInput if parts differ in length."""

    n: int
    parts: Mapping[str, Singles | Several]
    alike: tuple[tuple[Likeness, ...], ...] = ()
    "See `DweFeatures`."

    def __post_init__(self) -> None:
        for name, part in self.parts.items():
            if len(part) != self.n:
                raise BadInput(f"{name} is given for {len(part):,} rows, of {self.n:,}")

    def __len__(self) -> int:
        return self.n

    def of(self, positions: NDArray[np.int64]) -> DweFeatures:
        """Return the features of the rows at `positions`."""
        parts = {name: part.of(positions) for name, part in self.parts.items()}
        alike = tuple(self.alike[position] for position in positions.tolist()) if self.alike else ()
        return DweFeatures(n=len(positions), parts=parts, alike=alike)
