"""What can be set about an index, field by field.

In: numbers from a profile or a command.  Out: frozen settings, saved in the manifest of the index.  No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.errors import UsageError

EXACT_KINDS = ("float32", "float16", "bfloat16", "int8", "binary")
HNSW, HNSW_AXES = "hnsw", "hnsw-axes"
AUTO = "auto"
LARGE_FROM = 1_000_000
"""From this many entities on, `auto` takes int8; below, a float32 scan is fast enough and loses nothing.  Graphs are
taken where they are named: they need an extra and a long build (docs/decisions/006-index.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactSettings:
    """A scan of every vector."""

    kind: str = "float32"
    "How vectors are stored: float32, float16, bfloat16, int8 (one scale per vector) or binary (signs, and int8)."
    device: str = "cpu"
    "Where torch keeps the codes and scans them: cpu, cuda or cuda:1.  Never chosen silently."
    rescored: int = 0
    "How many candidates per result the scan hands to the second look; 0 takes what suits the kind."
    rows_at_once: int = 65_536
    "At most this many vectors per step of the scan."
    queries_at_once: int = 256
    "At most this many queries per step of the scan."
    scores_at_once: int = 2**22
    "At most this many scores per step, which bounds the memory of a search and keeps them near the processor."

    def __post_init__(self) -> None:
        if self.kind not in EXACT_KINDS:
            raise UsageError(f"there is no exact index of kind {self.kind!r}; known are {', '.join(EXACT_KINDS)}")
        if self.rescored < 0 or min(self.rows_at_once, self.queries_at_once, self.scores_at_once) < 1:
            raise UsageError("rescored must be 0 or more, and what is done at once 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class HnswSettings:
    """A graph of near neighbours, searched greedily."""

    neighbours: int = 16
    "Links per vector on the upper levels, twice as many on the lowest (hnswlib's M)."
    ef_construction: int = 100
    "How many candidates an insertion looks at; more is a better graph and a longer build."
    ef_search: int = 256
    "How many candidates a search keeps; more is higher recall and slower.  May be changed without a new build."
    threads: int = 0
    "Threads of build and search; 0 takes every core.  Only 1 gives the same graph for the same vectors."
    seed: int = 1
    "Draws the level of each vector."

    def __post_init__(self) -> None:
        if min(self.neighbours - 1, self.ef_construction, self.ef_search) < 1 or min(self.threads, self.seed) < 0:
            raise UsageError("neighbours must be 2 or more, both ef 1 or more, threads and seed 0 or more")

    @property
    def kind(self) -> str:
        """The name in the registry."""
        return HNSW


@dataclass(frozen=True, slots=True, kw_only=True)
class AxesSettings(HnswSettings):
    """A graph over the principal axes of the vectors, and a second look at whole vectors as int8 codes."""

    neighbours: int = 32
    ef_construction: int = 200
    ef_search: int = 384
    axes: int = 192
    "How many axes the graph sees; vectors that are no wider are seen whole."
    rescored: int = 384
    "How many of the graph's best are scored by whole vectors; the graph keeps no fewer in its search."

    def __post_init__(self) -> None:
        HnswSettings.__post_init__(self)
        if min(self.axes, self.rescored) < 1:
            raise UsageError("axes and rescored must be 1 or more")

    @property
    def kind(self) -> str:
        """The name in the registry."""
        return HNSW_AXES


IndexSettings = ExactSettings | HnswSettings
