"""Vectors -> the nearest ones, exactly or by a graph, behind one protocol."""

from localmel.index.choose import KINDS, build_index, choose, load_index
from localmel.index.protocol import NO_ID, IndexFacts, VectorIndex
from localmel.index.recall import Recall, recall_against_exact
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
]
