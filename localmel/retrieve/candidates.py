"""Which entities may be meant: those whose name fits, and those whose fused vector is near the mention's.

In: mentions and their fused vectors.  Out: for each mention its candidates by position in the packed KB.
Names are looked up in the KB's index; vectors are scanned in full, in batches, unless an index is given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.kb.names import NameIndex, NameMatch
from localmel.kb.store import KnowledgeBase
from localmel.records import Alike
from localmel.settings import RetrieveSettings

if TYPE_CHECKING:
    from localmel.index import VectorIndex
    from localmel.kb.packed import PackedKb

_ROWS_AT_ONCE = 65536
_LARGE = 20_000
"From this many entities on, and with many mentions at once, torch's bfloat16 product is worth importing torch."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The candidates of one mention, in no order that matters yet."""

    positions: NDArray[Any]  # (n,) int64
    matches: tuple[NameMatch | None, ...]
    "How each was found by name; None for one found by its vector only."
    cosine: NDArray[Any]  # (n,) float32 of the fused vectors of mention and candidate
    alike: tuple[Alike, ...] = ()
    "Entities whose pictures are like the mention's, where a matcher looks for them; they need not be candidates."


def united(
    matches: Sequence[NameMatch], near: NDArray[Any], packed: PackedKb
) -> tuple[NDArray[Any], tuple[NameMatch | None, ...]]:
    """Those found by name, then those found by vector only (near: positions).  Positions, and how each was found."""
    by_name = packed.positions(np.array([match.row for match in matches], np.int64))
    by_vector = near[(near >= 0) & ~np.isin(near, by_name)]  # an index may find fewer, and says so by NO_ID
    return np.concatenate([by_name, by_vector]), (*matches, *[None] * len(by_vector))


def with_cosines(
    found: Sequence[tuple[NDArray[Any], tuple[NameMatch | None, ...]]],
    cosines: Sequence[NDArray[Any]],
    alike: Sequence[tuple[Alike, ...]] = (),
) -> list[Candidates]:
    """Of each mention what `united` found, and the cosines of that; alike: of each, where they are looked for."""
    return [
        Candidates(positions=positions, matches=matches, cosine=cosine, alike=seen)
        for (positions, matches), cosine, seen in zip(found, cosines, alike or [()] * len(found), strict=True)
    ]


class Finder(Protocol):
    """Finds candidates in one KB.  What it is shown of mentions is its own: fused vectors, or a matcher's features."""

    def find(self, surfaces: Sequence[str], mentions: Any) -> list[Candidates]:
        """surfaces: (m,); mentions: of these.  One answer for each."""
        ...

    def cosines(self, mentions: Any, places: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Of each of m mentions and the entities at its places, (n,) int64 each.  Returns (n,) float32 each."""
        ...


class CandidateFinder:
    """A `Finder` by fused vectors."""

    def __init__(
        self,
        kb: KnowledgeBase,
        packed: PackedKb,
        entities: NDArray[Any],
        settings: RetrieveSettings,
        *,
        index: VectorIndex | None = None,
    ) -> None:
        """entities: (n, width) unit rows in position order; index: over the same rows, without one they are scanned."""
        self._index = index
        self._packed = packed
        self._entities = entities
        self._settings = settings
        self._names = NameIndex(kb, use_counts=settings.use_counts)

    def find(self, surfaces: Sequence[str], mentions: NDArray[Any]) -> list[Candidates]:
        """surfaces: (m,), mentions: (m, width) unit rows.  One answer for each."""
        named = [self._names.find(surface, limit=self._settings.by_name) for surface in surfaces]
        both = [
            united(matches, near, self._packed) for matches, near in zip(named, self._nearest(mentions), strict=True)
        ]
        return with_cosines(both, self.cosines(mentions, [positions for positions, _ in both]))

    def cosines(self, mentions: NDArray[Any], places: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `Finder`."""
        return [self._entities[one].astype(np.float32) @ mention for mention, one in zip(mentions, places, strict=True)]

    def _nearest(self, queries: NDArray[Any]) -> NDArray[Any]:
        """(m, width) -> (m, k) positions of the entities with the highest cosine, best first."""
        n = len(self._packed.rows)
        k = min(self._settings.by_vector, n)
        if self._index is not None and k:
            return self._index.search(queries, k)[1]
        if n >= _LARGE and len(queries) > 1:
            return self._nearest_by_torch(queries, k)
        scores = np.empty((len(queries), n), np.float32)
        for start in range(0, n, _ROWS_AT_ONCE):
            rows = self._entities[start : start + _ROWS_AT_ONCE].astype(np.float32)
            scores[:, start : start + len(rows)] = queries @ rows.T
        if not k:
            return np.zeros((len(queries), 0), np.int64)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1)

    def _nearest_by_torch(self, queries: NDArray[Any], k: int) -> NDArray[Any]:
        import torch

        scores = torch.from_numpy(queries).to(torch.bfloat16) @ self._torch_entities.T
        best: NDArray[Any] = scores.float().topk(k, dim=1).indices.numpy()
        return best

    @cached_property
    def _torch_entities(self) -> Any:
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        return torch.from_numpy(np.array(self._entities)).to(torch.bfloat16)
