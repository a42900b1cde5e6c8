"""Vectors of any length -> unit vectors whose inner products rank entities alike, as an index wants them.

In: vectors of entities, or of mentions.  Out: unit rows with one further value, and what turns their inner products
back into those of the vectors: (unit mention . unit entity) x longest x length.  An entity's further value fills it up
to the longest one, a mention's is 0: the order of entities is kept exactly, up to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput


def lifted_entities(vectors: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """(n, width) -> (n, width + 1) unit rows, and the length of the longest vector (1 where all are zero)."""
    lengths = _lengths(vectors, "entity")
    longest = float(lengths.max(initial=0.0)) or 1.0
    unit = np.empty((len(vectors), vectors.shape[1] + 1), np.float32)
    unit[:, :-1] = vectors / np.float32(longest)
    unit[:, -1] = np.sqrt(np.maximum(0.0, 1.0 - (lengths / longest) ** 2))
    return unit, longest


def lifted_mentions(vectors: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(m, width) -> (m, width + 1) unit rows, and the length of each vector (m,).

    A mention of which nothing is known has length 0: all its scores are 0, whatever is found."""
    lengths = _lengths(vectors, "mention")
    unit = np.zeros((len(vectors), vectors.shape[1] + 1), np.float32)
    unit[:, :-1] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
    unit[lengths == 0, -1] = 1.0
    return unit, lengths


def _lengths(vectors: NDArray[Any], what: str) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("nw,nw->n", vectors, vectors, dtype=np.float64))
    if not np.isfinite(lengths).all():
        wrong = int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise BadInput(f"the vector of {what} {wrong} is not finite: its features or the matcher are damaged")
    return lengths
