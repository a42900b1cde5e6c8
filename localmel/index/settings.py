"""The settings of each kind of index.

In: a profile or a command.  Out: frozen settings, saved in the manifest of the index."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.errors import UnknownChoice, UsageError

EXACT_KINDS = ("float32", "float16", "bfloat16", "int8", "binary")
HNSW, HNSW_AXES = "hnsw", "hnsw-axes"
AUTO = "auto"
LARGE_FROM = 1_000_000
"""From this many entities on, `auto` takes int8; below, a float32 scan is fast enough and loses nothing.  Graphs are
used only by name: they need an extra and take long to build (docs/decisions/006-index.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactSettings:
    """Settings of a scan over all vectors."""

    kind: str = "float32"
    "How vectors are stored: float32, float16, bfloat16, int8 (one scale per vector) or binary (signs, and int8)."
    device: str = "cpu"
    "Where torch keeps and scans the codes: cpu, cuda or cuda:1.  Never chosen automatically."
    rescored: int = 0
    "How many candidates per result are scored again by whole vectors; 0 takes what suits the kind."
    rows_at_once: int = 65_536
    "At most this many vectors per step of the scan."
    queries_at_once: int = 256
    "At most this many queries per step of the scan."
    scores_at_once: int = 2**22
    "At most this many scores per step, which bounds memory and keeps the scores in the cache."

    def __post_init__(self) -> None:
        if self.kind not in EXACT_KINDS:
            raise UnknownChoice("exact index of kind", self.kind, EXACT_KINDS)
        if self.rescored < 0 or min(self.rows_at_once, self.queries_at_once, self.scores_at_once) < 1:
            raise UsageError("cannot build an index: rescored must be 0 or more, and each *_at_once 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class HnswSettings:
    """Settings of a graph of near neighbours that is searched greedily."""

    neighbours: int = 16
    "Links per vector on the upper levels, twice as many on the lowest (hnswlib's M)."
    ef_construction: int = 100
    "How many candidates an insertion looks at; more gives a better graph and a longer build."
    ef_search: int = 256
    "How many candidates a search keeps; more is slower and finds more.  Can be changed without a new build."
    threads: int = 0
    "Threads of build and search; 0 takes all cores.  Only 1 always builds the same graph."
    seed: int = 1
    "Draws the level of each vector."

    def __post_init__(self) -> None:
        if min(self.neighbours - 1, self.ef_construction, self.ef_search) < 1 or min(self.threads, self.seed) < 0:
            raise UsageError(
                "cannot build an index: neighbours must be 2 or more, ef_* 1 or more, threads and seed 0 or more"
            )

    @property
    def kind(self) -> str:
        """Return the name of this kind of index."""
        return HNSW


@dataclass(frozen=True, slots=True, kw_only=True)
class AxesSettings(HnswSettings):
    """Settings of a graph over the principal axes, whose answers are scored again by int8 codes of whole vectors."""

    neighbours: int = 32
    ef_construction: int = 200
    ef_search: int = 384
    axes: int = 192
    "How many axes the graph sees; of narrower vectors it sees everything."
    rescored: int = 384
    "How many of the graph's answers are scored again; its search keeps at least as many."

    def __post_init__(self) -> None:
        HnswSettings.__post_init__(self)
        if min(self.axes, self.rescored) < 1:
            raise UsageError("cannot build an index: axes and rescored must be 1 or more")

    @property
    def kind(self) -> str:
        """Return the name of this kind of index."""
        return HNSW_AXES


IndexSettings = ExactSettings | HnswSettings
