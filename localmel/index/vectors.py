"""Check vectors and ids before they enter an index.

In: arrays from the caller, in memory or mapped.  Out: float32 chunks of finite unit rows; distinct int64 ids.
Refuses rows that are not finite, not of norm 1 or of another width."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput

ROWS_AT_ONCE = 16_384
TOLERANCE = 0.01
"How far from 1 the norm of a row may be; rounding to float16 or bfloat16 changes it by less."


def fingerprint(vectors: NDArray[Any]) -> str:
    """Return the SHA-256 of type, shape and bytes of the vectors, which are read in pieces."""
    digest = hashlib.sha256(f"{vectors.dtype.str} {vectors.shape}".encode())
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        digest.update(vectors[start : start + ROWS_AT_ONCE].tobytes())
    return digest.hexdigest()


def check_shape(vectors: NDArray[Any], width: int, what: str) -> None:
    """Raise BadInput unless these are rows of `width` floats."""
    if vectors.ndim != 2 or vectors.shape[1] != width or vectors.dtype.kind != "f":
        raise BadInput(
            f"{what} are {vectors.dtype} of shape {vectors.shape}, not floats of shape (n, {width})",
            hint="encode them in the space that was indexed",
        )


def unit_chunks(
    vectors: NDArray[Any], *, order: NDArray[Any] | None = None, what: str = "vectors"
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (start, float32 rows) in the given order.  Raises BadInput that names the first bad row."""
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        end = start + ROWS_AT_ONCE
        rows = np.ascontiguousarray(vectors[start:end] if order is None else vectors[order[start:end]], np.float32)
        if len(_bad(rows)):
            raise _refused(vectors, what)
        yield start, rows


def check_units(vectors: NDArray[Any], what: str) -> None:
    """Raise BadInput unless every row is finite and has norm 1."""
    for _ in unit_chunks(vectors, what=what):
        pass


def check_asked(queries: NDArray[Any], width: int, k: int) -> None:
    """Raise BadInput unless these queries are unit rows and k is not negative."""
    check_shape(queries, width, "queries")
    check_units(queries, "queries")
    if k < 0:
        raise BadInput(f"cannot search: k is {k}; it must be 0 or more")


def _bad(rows: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("nw,nw->n", rows, rows))
    return np.flatnonzero(~(np.abs(norms - 1) <= TOLERANCE))


def _refused(vectors: NDArray[Any], what: str) -> BadInput:
    first, count = -1, 0
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        found = _bad(np.asarray(vectors[start : start + ROWS_AT_ONCE], np.float32))
        if len(found) and not count:
            first = start + int(found[0])
        count += len(found)
    row = np.asarray(vectors[first], np.float64)
    fact = f"has norm {np.linalg.norm(row):.3g}" if np.isfinite(row).all() else "is not finite"
    return BadInput(
        f"row {first} of the {what} {fact} ({count:,} of {len(vectors):,} rows are not unit vectors)",
        hint="normalise the vectors and leave out those of empty texts",
    )


def checked_ids(ids: Iterable[int] | NDArray[Any], count: int | None, what: str = "ids") -> NDArray[Any]:
    """Return the ids, (n,) int64.  Raises BadInput for negative or repeated ids, or if there are not `count`."""
    given = ids if isinstance(ids, np.ndarray) else np.array(list(ids), np.int64)
    if given.ndim != 1 or (len(given) and given.dtype.kind not in "iu") or count not in (None, len(given)):
        raise BadInput(f"the {what} are {given.dtype} of shape {given.shape}, not {count or 'n'} integers")
    found = given.astype(np.int64)
    if len(found) and found.min() < 0:
        raise BadInput(f"the {what} include {found.min()}; they must be 0 or more")
    values, counts = np.unique(found, return_counts=True)
    if len(values) != len(found):
        raise BadInput(f"the {what} include {values[counts.argmax()]} {counts.max()} times")
    return found


def allowed_ids(ids: Iterable[int] | NDArray[Any]) -> NDArray[Any]:
    """Return the distinct ids, (n,) int64, ascending."""
    found: NDArray[Any] = np.unique(ids if isinstance(ids, np.ndarray) else np.array(list(ids), np.int64))
    return found.astype(np.int64)


def places(ids: NDArray[Any], wanted: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the positions of `wanted` in the ascending `ids`, and a mask of those that are there."""
    found = np.searchsorted(ids, wanted)
    if not len(ids):
        return found, np.zeros(wanted.shape, bool)
    return found, ids[np.minimum(found, len(ids) - 1)] == wanted
