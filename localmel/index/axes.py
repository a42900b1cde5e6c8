"""Search by a graph over the principal axes of the vectors, whose answers are scored again by whole vectors.

In: unit vectors.  Out: most of the best k; `recall_against_exact` measures how many.  Needs the extra `index`.
The axes are the eigenvectors of the second moment of a seeded sample, so that inner products lose as little as
possible.  Projections are scaled to unit length, which costs less recall than leaving them shorter.  A walk through the
graph then reads fewer bytes per vector and misses its goal less often.  The best `rescored` answers are scored by int8
codes of whole vectors; where few ids are allowed, the codes answer alone."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from localmel.index.exact import ExactIndex
from localmel.index.folder import Origin, checked_manifest, damaged, saving, settings_from
from localmel.index.hnsw import HnswIndex
from localmel.index.protocol import IndexFacts
from localmel.index.settings import AxesSettings, ExactSettings, HnswSettings
from localmel.index.vectors import allowed_ids, check_asked, check_shape, unit_chunks
from localmel.store import progress
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays

AXES, GRAPH, CODES = "axes.safetensors", "graph", "codes"
_SAMPLED = 20_000
"How many vectors the axes are computed from: forty times the width of any encoder here."
_SCAN_UP_TO = 4096
"Up to this many allowed ids, the codes are scanned, which is faster than walking past all others."
_NOTHING = 1e-6
"A projection shorter than this counts as zero and is replaced by the first axis."


class AxesIndex:
    """An index of a graph over (n, axes) and int8 codes over (n, width), with the same ids in both."""

    def __init__(self, width: int, settings: AxesSettings) -> None:
        self._settings = settings
        self._width = width
        self._origin = Origin()
        self._lock = threading.RLock()
        self._axes: NDArray[Any] | None = None  # (width, axes), orthonormal columns; computed from the first vectors
        self._graph = HnswIndex(self._n_axes, self._graph_settings())
        self._codes = ExactIndex(width, ExactSettings(kind="int8"))

    @property
    def _n_axes(self) -> int:
        return min(self._settings.axes, self._width)

    def _graph_settings(self) -> HnswSettings:
        names = ("neighbours", "ef_construction", "ef_search", "threads", "seed")
        return HnswSettings(**{name: getattr(self._settings, name) for name in names})

    @classmethod
    def build(cls, vectors: NDArray[Any], settings: AxesSettings, *, ids: NDArray[Any] | None = None) -> Self:
        """Build an index of unit rows (n, width) under ids (n,), by default 0 to n - 1."""
        check_shape(vectors, vectors.shape[-1], "vectors")
        index = cls(vectors.shape[1], settings)
        index.add(vectors, np.arange(len(vectors)) if ids is None else ids)
        return index

    @property
    def settings(self) -> AxesSettings:
        return self._settings

    @property
    def width(self) -> int:
        return self._width

    @property
    def n_bytes(self) -> int:
        axes = 0 if self._axes is None else self._axes.nbytes
        return self._graph.n_bytes + self._codes.n_bytes + int(axes)

    def __len__(self) -> int:
        return len(self._graph)

    def ids(self) -> NDArray[Any]:
        return self._graph.ids()

    def set_ef_search(self, ef: int) -> None:
        """Search with another ef from now on.  It is saved with the index."""
        from dataclasses import replace

        with self._lock:
            self._settings = replace(self._settings, ef_search=ef)
            self._graph.set_ef_search(ef)

    def add(self, vectors: NDArray[Any], ids: NDArray[Any]) -> None:
        check_shape(vectors, self._width, "vectors")
        with self._lock:
            with progress.silence():  # the graph below is what takes long
                if len(self._codes):  # raises before anything has changed
                    self._codes.add(vectors, ids)
                else:
                    self._codes = ExactIndex.build(vectors, self._codes.settings, ids=ids)
            if not len(vectors):
                return
            if self._axes is None:
                self._axes = principal_axes(vectors, self._n_axes, self._settings.seed)
            ids = np.asarray(ids, np.int64)
            self._graph.reserve(len(vectors))
            for start, rows in unit_chunks(vectors):
                self._graph.add(self._along_axes(rows), ids[start : start + len(rows)])

    def remove(self, ids: NDArray[Any]) -> None:
        with self._lock:
            self._codes.remove(ids)
            self._graph.remove(ids)

    def search(
        self, queries: NDArray[Any], k: int, *, allowed: Iterable[int] | NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        check_asked(queries, self._width, k)
        wanted = None if allowed is None else allowed_ids(allowed)
        room = max(self._settings.rescored, 4 * k)
        with self._lock:
            if self._axes is None or not k or (wanted is not None and len(wanted) <= max(_SCAN_UP_TO, room)):
                return self._codes.search(queries, k, allowed=wanted)
            rows = np.ascontiguousarray(queries, np.float32)
            room = max(k, min(room, len(self)))
            ids = self._graph.search(self._along_axes(rows), room, allowed=wanted)[1]
            scores = self._codes.scores_of(rows, ids)
        order = np.lexsort((ids, -scores))[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def _along_axes(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the projections of (n, width) as unit rows (n, axes)."""
        found: NDArray[Any] = rows @ self._axes
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found[lengths[:, 0] < _NOTHING] = np.eye(1, found.shape[1], dtype=np.float32)
        found /= np.where(lengths < _NOTHING, np.float32(1), lengths)
        return found

    def save(self, folder: Path, facts: IndexFacts) -> None:
        count, width = len(self), self._width
        with (
            self._lock,
            saving(folder, facts, self._settings, width=width, count=count, origin=self._origin) as temporary,
        ):
            axes = np.zeros((width, 0), np.float32) if self._axes is None else self._axes
            arrays = create_arrays(temporary / AXES, {"axes": ("<f4", axes.shape)})
            arrays["axes"][:] = axes
            flush_arrays(arrays)
            for name, part in ((GRAPH, self._graph), (CODES, self._codes)):
                part.save(temporary / name, _facts_of(part, facts))
                (temporary / f".{name}.lock").unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path, facts: IndexFacts, *, device: str = "cpu") -> Self:
        """Load the graph into memory and map the codes.  `device` is ignored: both are searched on the CPU."""
        manifest = checked_manifest(folder, facts)
        index = cls(facts.width, settings_from(manifest, AxesSettings, folder))
        axes = map_arrays(folder / AXES).get("axes")
        if axes is None or axes.shape not in ((facts.width, 0), (facts.width, index._n_axes)):
            raise damaged(folder, "axes of another shape than its manifest says")
        index._axes = np.array(axes) if axes.shape[1] else None
        try:
            index._graph = HnswIndex.load(folder / GRAPH, _facts_of(index._graph, facts))
            index._codes = ExactIndex.load(folder / CODES, _facts_of(index._codes, facts))
        except FileNotFoundError:
            raise damaged(folder, "only some of its files") from None
        if not np.array_equal(index._graph.ids(), index._codes.ids()) or (len(index) and index._axes is None):
            raise damaged(folder, "a graph and codes of different vectors")
        index._origin.remember(folder)
        return index


def principal_axes(vectors: NDArray[Any], n_axes: int, seed: int) -> NDArray[Any]:
    """Return orthonormal columns (width, n_axes) along which vectors (n, width) are longest, longest first.

    Computed from a seeded sample of at most 20,000; the largest coordinate of each column is positive."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:_SAMPLED])
    sample = np.asarray(vectors[rows], np.float64)
    found = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :n_axes]
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=0)[None], axis=0)
    axes: NDArray[Any] = np.ascontiguousarray(found * np.sign(largest), np.float32)
    return axes


def _facts_of(part: HnswIndex | ExactIndex, facts: IndexFacts) -> IndexFacts:
    return IndexFacts(space=facts.space, width=part.width, made_from=facts.made_from)
