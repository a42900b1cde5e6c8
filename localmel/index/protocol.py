"""The protocol of all indexes over vectors.

In: unit vectors with the ids of their entities.  Out: for each query the ids with the highest inner products.
Knows nothing of texts or of entities; `IndexFacts` says which vectors an index holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from localmel.index.settings import IndexSettings

NO_ID = -1
"Fills up the ids where fewer than k vectors remain; the score is -inf there."


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """Which vectors an index holds.  Saved with it, and compared when it is loaded."""

    space: str
    "The name of the vectors' space."
    width: int
    made_from: str
    "A hash of what was indexed: `fingerprint(vectors)`, or one of the caller that changes with every vector."


class VectorIndex(Protocol):
    """Searches unit vectors by inner product."""

    @property
    def settings(self) -> IndexSettings: ...

    @property
    def width(self) -> int: ...

    @property
    def n_bytes(self) -> int:
        """Return the memory that the index takes while it is not searched."""
        ...

    def __len__(self) -> int: ...

    def ids(self) -> NDArray[Any]:
        """Return the ids that can be found now, (n,) int64, ascending."""
        ...

    def add(self, vectors: NDArray[Any], ids: NDArray[Any]) -> None:
        """Add unit rows (n, width) under ids (n,) int64, 0 or more.

        Raises BadInput, and adds nothing, if an id is in the index already or a row cannot be used."""
        ...

    def remove(self, ids: NDArray[Any]) -> None:
        """Remove ids; each may be added again with another vector.  Raises BadInput for an unknown id."""
        ...

    def search(
        self, queries: NDArray[Any], k: int, *, allowed: Iterable[int] | NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return scores (m, k) float32 and ids (m, k) int64, best first; of equal scores the smaller id comes first.

        queries: (m, width), unit rows; allowed: the only ids to return, of which unknown ones are ignored.
        Rows with fewer than k answers are filled up with -inf and NO_ID.  Exact kinds keep the smaller id also where
        equal scores compete for the last place."""
        ...

    def save(self, folder: Path, facts: IndexFacts) -> None:
        """Replace `folder` in one step: it holds the old index or the new one, never a part."""
        ...

    @classmethod
    def load(cls, folder: Path, facts: IndexFacts, *, device: str = "cpu") -> Self:
        """Load an index.  Raises FileNotFoundError where there is none, BadInput for other vectors, CorruptArtifact."""
        ...
