"""Choose an index by name or by size, build it, load it, and measure how much of the exact answer it finds.

In: a kind and the number of vectors.  Out: settings, and the index they describe.  `auto` is resolved here, once; the
kind is saved with the index and does not change later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import UnknownChoice
from localmel.index.axes import AxesIndex
from localmel.index.exact import ExactIndex
from localmel.index.folder import checked_manifest, damaged
from localmel.index.hnsw import HnswIndex
from localmel.index.protocol import IndexFacts, VectorIndex
from localmel.index.settings import (
    AUTO,
    EXACT_KINDS,
    HNSW,
    HNSW_AXES,
    LARGE_FROM,
    AxesSettings,
    ExactSettings,
    HnswSettings,
    IndexSettings,
)
from localmel.store import progress
from localmel.store.artifacts import MANIFEST

KINDS = (*EXACT_KINDS, HNSW, HNSW_AXES)


def choose(kind: str, n_vectors: int, *, device: str = "cpu") -> IndexSettings:
    """Return the settings for a kind of index; `auto` takes float32 below LARGE_FROM vectors, int8 from there on."""
    if kind == AUTO:
        kind = "int8" if n_vectors >= LARGE_FROM else "float32"
    if kind == HNSW:
        return HnswSettings()
    if kind == HNSW_AXES:
        return AxesSettings()
    if kind not in EXACT_KINDS:
        raise UnknownChoice("index of kind", kind, (AUTO, *KINDS), option="--index")
    return ExactSettings(kind=kind, device=device)


def build_index(vectors: NDArray[Any], settings: IndexSettings, *, ids: NDArray[Any] | None = None) -> VectorIndex:
    """Build an index.  vectors: (n, width), unit rows, in memory or mapped; ids: (n,), by default 0 to n - 1."""
    if isinstance(settings, AxesSettings):
        return AxesIndex.build(vectors, settings, ids=ids)
    if isinstance(settings, HnswSettings):
        return HnswIndex.build(vectors, settings, ids=ids)
    return ExactIndex.build(vectors, settings, ids=ids)


def load_index(folder: Path, facts: IndexFacts, *, device: str = "cpu") -> VectorIndex:
    """Load the index in a folder, whatever its kind.

    Raises FileNotFoundError where there is none, BadInput for other vectors, CorruptArtifact for a damaged one."""
    try:
        kind = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["index"]
    except (ValueError, KeyError, TypeError):
        checked_manifest(folder, facts)
        raise damaged(folder, "a manifest that names no kind of index") from None
    if kind == HNSW_AXES:
        return AxesIndex.load(folder, facts, device=device)
    if kind == HNSW:
        return HnswIndex.load(folder, facts, device=device)
    return ExactIndex.load(folder, facts, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """The share of the exact best k that an index found, over `n_queries`."""

    k: int
    n_queries: int
    share: float

    def __str__(self) -> str:
        return f"recall@{self.k} {self.share:.4f} over {self.n_queries:,} queries"


def sampled(queries: NDArray[Any], n_sampled: int, seed: int) -> NDArray[Any]:
    """Return at most `n_sampled` rows, drawn without replacement, in their order."""
    if len(queries) <= n_sampled:
        return queries
    rows = np.random.default_rng(seed).choice(len(queries), n_sampled, replace=False)
    return queries[np.sort(rows)]


def recall_against_exact(
    index: VectorIndex,
    vectors: NDArray[Any],
    queries: NDArray[Any],
    k: int,
    *,
    ids: NDArray[Any] | None = None,
    n_sampled: int = 1000,
    seed: int = 0,
) -> Recall:
    """Compare the index with a float32 scan of `vectors` (n, width), of which the scan holds a copy meanwhile."""
    with progress.silence():
        exact = ExactIndex.build(vectors, ExactSettings(), ids=ids)
    asked = sampled(queries, n_sampled, seed)
    return recall_of(index.search(asked, k)[1], exact.search(asked, k)[1])


def recall_of(found: NDArray[Any], truth: NDArray[Any]) -> Recall:
    """Return the recall of ids (m, k) against the true ones; 1 where there is nothing to find."""
    hits = sum(len(np.intersect1d(one[one >= 0], other[other >= 0])) for one, other in zip(found, truth, strict=True))
    wanted = int(np.count_nonzero(truth >= 0))
    return Recall(k=truth.shape[1], n_queries=len(truth), share=hits / wanted if wanted else 1.0)
