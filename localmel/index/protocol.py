"""What every index can do, whatever stands behind it.

In: unit vectors with the ids of their entities.  Out: for each query the ids with the highest inner product.
Knows nothing of texts, of entities, or of who made the vectors; `IndexFacts` says which vectors they were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from numpy.typing import NDArray

if TYPE_CHECKING:
    from localmel.index.settings import IndexSettings

"Hears how many more vectors are done."

NO_ID = -1
"Stands in the ids, beside a score of -inf, where fewer than k vectors remain."


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """Which vectors an index holds: written with it, compared when it is loaded."""

    space: str
    "The name of the space the vectors live in."
    width: int
    made_from: str
    "A hash of what was indexed: `fingerprint(vectors)`, or the caller's own, which must move with every change."


class VectorIndex(Protocol):
    """Unit vectors under ids, searched by inner product."""

    @property
    def settings(self) -> IndexSettings: ...

    @property
    def width(self) -> int: ...

    @property
    def n_bytes(self) -> int:
        """Memory that the vectors and whatever is needed to search them take, without the arrays of a search."""
        ...

    def __len__(self) -> int: ...

    def ids(self) -> NDArray[Any]:
        """(n,) int64, ascending: what can be found now."""
        ...

    def add(self, vectors: NDArray[Any], ids: NDArray[Any]) -> None:
        """vectors: (n, width), unit rows; ids: (n,) int64, 0 or more, none of them in the index.

        Nothing is added when one of them cannot be."""
        ...

    def remove(self, ids: NDArray[Any]) -> None:
        """These are not found any more; each may be added again, with another vector.  An unknown id is BadInput."""
        ...

    def search(
        self, queries: NDArray[Any], k: int, *, allowed: Iterable[int] | NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """(m, width) -> scores (m, k) float32 and ids (m, k) int64, best first, equal scores by the smaller id.

        `allowed`: only these ids may be answered; unknown ones are passed over.  Where fewer than k remain, the
        rest is -inf and NO_ID.  Exact kinds keep the smaller id also where equal scores compete for the last place."""
        ...

    def save(self, folder: Path, facts: IndexFacts) -> None:
        """Write to a temporary folder and rename it: `folder` is the old index or the new one, never a part."""
        ...

    @classmethod
    def load(cls, folder: Path, facts: IndexFacts, *, device: str = "cpu") -> Self:
        """Raises FileNotFoundError where there is none, BadInput for other vectors, CorruptArtifact for damage."""
        ...
