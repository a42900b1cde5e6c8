"""Which index, by name or by size.

In: a kind and how many vectors there are.  Out: settings, and the index they describe.  `auto` is decided here once and
written down with the index; nothing changes kind later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
from localmel.store.artifacts import MANIFEST

KINDS = (*EXACT_KINDS, HNSW, HNSW_AXES)


def choose(kind: str, n_vectors: int, *, device: str = "cpu") -> IndexSettings:
    """Settings of the index that goes by this name; `auto` takes float32 below LARGE_FROM vectors, int8 from there."""
    if kind == AUTO:
        kind = "int8" if n_vectors >= LARGE_FROM else "float32"
    if kind == HNSW:
        return HnswSettings()
    if kind == HNSW_AXES:
        return AxesSettings()
    if kind not in EXACT_KINDS:
        raise UnknownChoice("index of kind", kind, (AUTO, *KINDS), option="--index")
    return ExactSettings(kind=kind, device=device)


def build_index(
    vectors: NDArray[Any],
    settings: IndexSettings,
    *,
    ids: NDArray[Any] | None = None,
) -> VectorIndex:
    """vectors: (n, width), unit rows, in memory or mapped; ids: (n,), without them 0 to n - 1."""
    if isinstance(settings, AxesSettings):
        return AxesIndex.build(vectors, settings, ids=ids)
    if isinstance(settings, HnswSettings):
        return HnswIndex.build(vectors, settings, ids=ids)
    return ExactIndex.build(vectors, settings, ids=ids)


def load_index(folder: Path, facts: IndexFacts, *, device: str = "cpu") -> VectorIndex:
    """The index in that folder, of whichever kind it is.

    Raises FileNotFoundError where there is none, BadInput when it is of other vectors, CorruptArtifact for damage."""
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
