"""A graph that sees vectors along their principal axes only, and a second look at whole vectors.

In: unit vectors.  Out: nearly the best k; how nearly says `recall_against_exact`.  Needs the extra `index`.
The axes are the eigenvectors of the second moment of a seeded sample, so that inner products lose as little as they
can; what lies along them is made a unit vector again, which costs less recall than leaving it shorter.  A walk through
the graph then reads fewer bytes for each vector it passes, and among fewer axes it goes astray less often.  The best
`rescored` of it are scored by int8 codes of the whole vectors, which answer alone where few ids are allowed."""

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
"Vectors that the axes are found from: forty times the width of any encoder here."
_SCAN_UP_TO = 4096
"Where `allowed` names no more than this many, their codes are scanned: quicker than walking past all others."
_NOTHING = 1e-6
"What lies along the axes is nothing, where it is shorter than this; the first axis then stands for it."


class AxesIndex:
    """One graph over (n, axes), one set of int8 codes over (n, width), the same ids in both."""

    def __init__(self, width: int, settings: AxesSettings) -> None:
        self._settings = settings
        self._width = width
        self._origin = Origin()
        self._lock = threading.RLock()
        self._axes: NDArray[Any] | None = None  # (width, axes), orthonormal columns; found from the first vectors
        self._graph = HnswIndex(self._n_axes, self._graph_settings())
        self._codes = ExactIndex(width, ExactSettings(kind="int8"))

    @property
    def _n_axes(self) -> int:
        return min(self._settings.axes, self._width)

    def _graph_settings(self) -> HnswSettings:
        names = ("neighbours", "ef_construction", "ef_search", "threads", "seed")
        return HnswSettings(**{name: getattr(self._settings, name) for name in names})

    @classmethod
    def build(
        cls,
        vectors: NDArray[Any],
        settings: AxesSettings,
        *,
        ids: NDArray[Any] | None = None,
    ) -> Self:
        """vectors: (n, width), unit rows; ids: (n,), without them 0 to n - 1."""
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
        """Search with another ef from now on; it is saved with the index."""
        from dataclasses import replace

        with self._lock:
            self._settings = replace(self._settings, ef_search=ef)
            self._graph.set_ef_search(ef)

    def add(self, vectors: NDArray[Any], ids: NDArray[Any]) -> None:
        check_shape(vectors, self._width, "vectors")
        with self._lock:
            if len(self._codes):  # refuses what does not fit, before anything is changed
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
                progress.advance(len(rows))

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
        """(n, width) -> (n, axes) unit rows."""
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
        """The graph is read into memory, the codes are mapped; `device` is passed over: both stay on the processor."""
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
            raise damaged(folder, "only a part of its files") from None
        if not np.array_equal(index._graph.ids(), index._codes.ids()) or (len(index) and index._axes is None):
            raise damaged(folder, "a graph and codes of different vectors")
        index._origin.remember(folder)
        return index


def principal_axes(vectors: NDArray[Any], n_axes: int, seed: int) -> NDArray[Any]:
    """(n, width) -> (width, n_axes) orthonormal columns along which the vectors are longest, longest first.

    Found from a seeded sample of at most 20,000; the largest coordinate of each is positive."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:_SAMPLED])
    sample = np.asarray(vectors[rows], np.float64)
    found = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :n_axes]
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=0)[None], axis=0)
    axes: NDArray[Any] = np.ascontiguousarray(found * np.sign(largest), np.float32)
    return axes


def _facts_of(part: HnswIndex | ExactIndex, facts: IndexFacts) -> IndexFacts:
    return IndexFacts(space=facts.space, width=part.width, made_from=facts.made_from)
