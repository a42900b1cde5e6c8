"""Find the nearest of many vectors, exactly or by a graph."""

from localmel.index.choose import (
    KINDS,
    Recall,
    build_index,
    choose,
    load_index,
    recall_against_exact,
    recall_of,
    sampled,
)
from localmel.index.protocol import NO_ID, IndexFacts, VectorIndex
from localmel.index.settings import LARGE_FROM, AxesSettings, ExactSettings, HnswSettings, IndexSettings
from localmel.index.vectors import fingerprint

__all__ = [
    "KINDS",
    "LARGE_FROM",
    "NO_ID",
    "AxesSettings",
    "ExactSettings",
    "HnswSettings",
    "IndexFacts",
    "IndexSettings",
    "Recall",
    "VectorIndex",
    "build_index",
    "choose",
    "fingerprint",
    "load_index",
    "recall_against_exact",
    "recall_of",
    "sampled",
]
