"""Search by a graph of near neighbours (hnswlib): approximate, and fast where a scan is slow.

In: unit vectors.  Out: most of the best k; `recall_against_exact` measures how many.  Needs the extra `index`.
The class adds what hnswlib leaves to its caller: it saves and restores ef, asks for more answers where ids were removed
or filtered out, scans the vectors where the graph cannot answer, and makes room when the graph is full.
Several threads build a graph in no fixed order, so that the same vectors may give other links and, rarely, other
answers.  With `threads=1` the bytes are the same each time."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput, MissingExtra, OutOfSpace, shell_line
from localmel.index.folder import ARRAYS, Origin, checked_manifest, damaged, saving, settings_from
from localmel.index.protocol import NO_ID, IndexFacts
from localmel.index.settings import HnswSettings
from localmel.index.vectors import (
    ROWS_AT_ONCE,
    allowed_ids,
    check_asked,
    check_shape,
    check_units,
    checked_ids,
    unit_chunks,
)
from localmel.store import progress
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays

GRAPH = "graph.hnswlib"
_SCAN_UP_TO = 4096
"Up to this many allowed ids are scanned, which is faster than walking past all others."


class HnswIndex:
    """An index of one hnswlib graph.  Searches and changes of one index wait for each other; each uses all threads."""

    def __init__(self, width: int, settings: HnswSettings) -> None:
        self._settings = settings
        self._width = width
        self._origin = Origin()
        self._lock = threading.RLock()
        self._ids = _no_ids()  # ascending; the ids that can be found
        self._removed = _no_ids()  # ascending; ids that the graph still holds, marked as deleted
        self._graph = self._new_graph(0)

    def _new_graph(self, room: int) -> Any:
        graph = _hnswlib().Index(space="ip", dim=self._width)
        graph.init_index(
            max_elements=max(room, 1),
            M=self._settings.neighbours,
            ef_construction=self._settings.ef_construction,
            random_seed=self._settings.seed,
        )
        self._set_threads(graph)
        return graph

    def _set_threads(self, graph: Any) -> None:
        graph.set_ef(self._settings.ef_search)
        if self._settings.threads:
            graph.set_num_threads(self._settings.threads)

    @classmethod
    def build(cls, vectors: NDArray[Any], settings: HnswSettings, *, ids: NDArray[Any] | None = None) -> Self:
        """Build an index of unit rows (n, width) under ids (n,), by default 0 to n - 1."""
        check_shape(vectors, vectors.shape[-1], "vectors")
        index = cls(vectors.shape[1], settings)
        index._graph = index._new_graph(len(vectors))
        index.add(vectors, np.arange(len(vectors)) if ids is None else ids)
        return index

    @property
    def settings(self) -> HnswSettings:
        return self._settings

    @property
    def width(self) -> int:
        return self._width

    @property
    def n_bytes(self) -> int:
        return int(self._graph.index_file_size()) + self._ids.nbytes + self._removed.nbytes

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> NDArray[Any]:
        return self._ids.copy()

    def set_ef_search(self, ef: int) -> None:
        """Search with another ef from now on.  It is saved with the index."""
        from dataclasses import replace

        with self._lock:
            self._settings = replace(self._settings, ef_search=ef)
            self._graph.set_ef(ef)

    def reserve(self, count: int) -> None:
        """Make room for `count` more vectors, so that adding them piece by piece copies the graph only once."""
        with self._lock:
            needed = self._graph.get_current_count() + count
            if needed > self._graph.get_max_elements():
                self._graph.resize_index(needed)

    def add(self, vectors: NDArray[Any], ids: NDArray[Any]) -> None:
        check_shape(vectors, self._width, "vectors")
        ids = checked_ids(ids, len(vectors))
        check_units(vectors, "vectors")
        with self._lock:
            if known := np.intersect1d(ids, self._ids).tolist():
                raise BadInput(
                    f"cannot add {len(known):,} of the ids: {known[0]} is in the index already", hint="remove them"
                )
            held = self._graph.get_current_count()
            needed = held + len(np.setdiff1d(ids, self._removed))
            if needed > self._graph.get_max_elements():
                self._graph.resize_index(max(needed, held + held // 4))
            for start, rows in unit_chunks(vectors):
                added = ids[start : start + len(rows)]
                self._graph.add_items(rows, added)
                self._ids = np.union1d(self._ids, added)
                self._removed = np.setdiff1d(self._removed, added)
                progress.advance(len(rows))

    def remove(self, ids: NDArray[Any]) -> None:
        ids = checked_ids(ids, None)
        with self._lock:
            if unknown := np.setdiff1d(ids, self._ids).tolist():
                raise BadInput(f"cannot remove {len(unknown):,} of the ids: {unknown[0]} is not in the index")
            for entity in ids.tolist():
                self._graph.mark_deleted(entity)
            self._ids = np.setdiff1d(self._ids, ids)
            self._removed = np.union1d(self._removed, ids)

    def search(
        self, queries: NDArray[Any], k: int, *, allowed: Iterable[int] | NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        check_asked(queries, self._width, k)
        rows = np.ascontiguousarray(queries, np.float32)
        scores = np.full((len(rows), k), -np.inf, np.float32)
        ids = np.full((len(rows), k), NO_ID, np.int64)
        with self._lock:
            live = self._ids
            if allowed is not None:
                live = np.intersect1d(allowed_ids(allowed), live, assume_unique=True)
            kept = min(k, len(live))
            if kept and len(rows):
                found = (
                    self._scanned(rows, kept, live) if self._is_small(live, kept) else self._walked(rows, kept, live)
                )
                scores[:, :kept], ids[:, :kept] = found
        return scores, ids

    def _is_small(self, live: NDArray[Any], k: int) -> bool:
        return len(live) < len(self._ids) and len(live) <= max(_SCAN_UP_TO, 4 * k)

    def _walked(self, queries: NDArray[Any], k: int, live: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ask the graph for more and more until each row has k allowed answers; scan for rows where it fails."""
        scores = np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.int64)
        open_rows = np.arange(len(queries))
        total = len(self._ids)
        everything = len(live) == total
        asked = k if everything else min(total, 2 * k * total // len(live))
        while len(open_rows) and asked <= max(k, total // 8, self._settings.ef_search):
            found = self._asked(queries[open_rows], asked)
            if found is None and len(open_rows) == 1:
                break
            if found is None:  # it failed for at least one row: ask for each alone, so that the others are not scanned
                for row in open_rows:
                    scores[row], ids[row] = (array[0] for array in self._walked(queries[[row]], k, live))
                return scores, ids
            fits = np.ones(found[1].shape, bool) if everything else np.isin(found[1], live)
            done = fits.sum(axis=1) >= k
            order = np.argsort(~fits[done], axis=1, kind="stable")[:, :k]
            scores[open_rows[done]] = np.take_along_axis(found[0][done], order, axis=1)
            ids[open_rows[done]] = np.take_along_axis(found[1][done], order, axis=1)
            open_rows = open_rows[~done]
            asked = min(total, asked * 2) if asked < total else total + 1
        if len(open_rows):
            scores[open_rows], ids[open_rows] = self._scanned(queries[open_rows], k, live)
        return scores, ids

    def _asked(self, queries: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return scores and ids (m, k) from the graph, best first, or None where it reaches fewer than k vectors."""
        self._graph.set_ef(max(self._settings.ef_search, k))
        try:
            labels, distances = self._graph.knn_query(queries, k=k)
        except RuntimeError:  # fewer than k were reached: removed vectors block the way, or the graph is not connected
            return None
        finally:
            self._graph.set_ef(self._settings.ef_search)
        ids, scores = labels.astype(np.int64), (1 - distances).astype(np.float32)
        order = np.lexsort((ids, -scores))
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def _scanned(self, queries: NDArray[Any], k: int, live: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the best k of some ids by scoring each of them."""
        scores: NDArray[Any] = np.zeros((len(queries), 0), np.float32)
        ids: NDArray[Any] = np.zeros((len(queries), 0), np.int64)
        for start in range(0, len(live), ROWS_AT_ONCE):
            chunk = live[start : start + ROWS_AT_ONCE]
            rows = np.asarray(self._graph.get_items(chunk.tolist()), np.float32)
            scores = np.concatenate([scores, queries @ rows.T], axis=1)
            ids = np.concatenate([ids, np.broadcast_to(chunk, (len(queries), len(chunk)))], axis=1)
            order = np.lexsort((ids, -scores))[:, :k]
            scores, ids = (np.take_along_axis(array, order, axis=1) for array in (scores, ids))
        return scores, ids

    def save(self, folder: Path, facts: IndexFacts) -> None:
        count = len(self)
        with (
            self._lock,
            saving(folder, facts, self._settings, width=self._width, count=count, origin=self._origin) as temporary,
        ):
            shapes = {"ids": ("<i8", (count,)), "removed": ("<i8", (len(self._removed),))}
            arrays = create_arrays(temporary / ARRAYS, shapes)
            arrays["ids"][:], arrays["removed"][:] = self._ids, self._removed
            flush_arrays(arrays)
            path = temporary / GRAPH
            self._graph.save_index(str(path))
            expected = self._graph.index_file_size()
            if not path.exists() or path.stat().st_size != expected:  # hnswlib does not report a failed write
                raise OutOfSpace(
                    f"cannot save index {folder}: the disk is full, and the graph takes {expected:,} bytes; "
                    "the index that was there is unchanged",
                    hint=shell_line("df -h", folder.parent, note="free some space, then run the same command again"),
                )

    @classmethod
    def load(cls, folder: Path, facts: IndexFacts, *, device: str = "cpu") -> Self:
        """Load an index into memory: hnswlib cannot map it.  `device` is ignored; the graph is searched on the CPU."""
        manifest = checked_manifest(folder, facts)
        index = cls(facts.width, settings_from(manifest, HnswSettings, folder))
        arrays = map_arrays(folder / ARRAYS)
        if set(arrays) != {"ids", "removed"} or len(arrays["ids"]) != manifest["count"]:
            raise damaged(folder, "arrays of other shapes than its manifest says")
        index._ids, index._removed = np.array(arrays["ids"]), np.array(arrays["removed"])
        graph = _hnswlib().Index(space="ip", dim=facts.width)
        try:
            graph.load_index(str(folder / GRAPH))
        except RuntimeError as error:
            raise damaged(folder, f"a graph that hnswlib cannot read ({error})") from None
        if graph.get_current_count() != len(index._ids) + len(index._removed):
            raise damaged(folder, f"a graph of {graph.get_current_count():,} vectors, but another number of ids")
        index._set_threads(graph)
        index._graph = graph
        index._origin.remember(folder)
        return index


def _no_ids() -> NDArray[Any]:
    return np.zeros(0, np.int64)


def _hnswlib() -> Any:
    try:
        import hnswlib
    except ImportError:
        raise MissingExtra(
            "cannot open an index of kind 'hnsw': the package hnswlib is not installed",
            hint="pip install 'localmel[index]'",
        ) from None
    return hnswlib
