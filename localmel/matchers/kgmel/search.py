"""Search a KB by fused vectors, with a full scan or an index.

In: mentions and the triples stated about them.  Out: entities by cosine.  A few mentions are compared in NumPy; torch
is imported only for many mentions over a large KB, where its bfloat16 product saves more time than the import takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.space import ImageEncoder
from localmel.index import VectorIndex
from localmel.matchers.kgmel.inference import FusedEncoder
from localmel.matchers.kgmel.mention_vectors import mention_arrays, mention_pictures
from localmel.matchers.kind import Found
from localmel.records import Alike, Mention, Triple

_ROWS_AT_ONCE = 65536
_LARGE = 20_000
"From this many entities on, and with several mentions at once, torch's bfloat16 product is worth importing torch."


class FusedSearch:
    """A `KbSearch` by the fused vectors of mentions and entities."""

    def __init__(
        self,
        encoder: FusedEncoder,
        entities: NDArray[Any],
        *,
        images: ImageEncoder | None = None,
        index: VectorIndex | None = None,
    ) -> None:
        """encoder: fuses mentions; entities: (n, width) unit rows in position order, scanned unless `index` is given.

        images: encodes the mentions' pictures, for a network that looks at them."""
        self._encoder, self._images = encoder, images
        self._entities, self._index = entities, index

    def shown(
        self,
        mentions: Sequence[Mention],
        stated: Sequence[Sequence[Triple]],
        encode: Callable[[Sequence[str]], NDArray[Any]],
    ) -> NDArray[Any]:
        """Return the fused vectors of m mentions: (m, width) float32 unit rows."""
        text, triples = mention_arrays(mentions, stated, encode)
        return self._encoder.fuse(text=text, triples=triples, **mention_pictures(mentions, self._images))

    def best(self, shown: NDArray[Any], k: int) -> Found:
        """Return the k entities of the highest cosine for each mention, best first.  shown: (m, width) unit rows."""
        n = len(self._entities)
        k = min(k, n)
        if self._index is not None and k:
            scores, places = self._index.search(shown, k)
        elif n >= _LARGE and len(shown) > 1:
            scores, places = self._nearest_by_torch(shown, k)
        else:
            scores, places = self._nearest(shown, k)
        return Found(scores=scores, entities=places, n_scored=0)

    def scores_of(self, shown: NDArray[Any], places: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the cosines between each mention and the entities at its places."""
        return [self._entities[one].astype(np.float32) @ mention for mention, one in zip(shown, places, strict=True)]

    def as_cosines(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Return the scores unchanged, because they are cosines."""
        return scores

    def alike(self, shown: NDArray[Any]) -> list[tuple[Alike, ...]]:
        """Return an empty list, because KGMEL compares no portraits."""
        return []

    def _nearest(self, shown: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        if not k:
            return np.zeros((len(shown), 0), np.float32), np.zeros((len(shown), 0), np.int64)
        n = len(self._entities)
        scores = np.empty((len(shown), n), np.float32)
        for start in range(0, n, _ROWS_AT_ONCE):
            rows = self._entities[start : start + _ROWS_AT_ONCE].astype(np.float32)
            scores[:, start : start + len(rows)] = shown @ rows.T
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(best, order, axis=1)

    def _nearest_by_torch(self, shown: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        import torch

        found = (torch.from_numpy(shown).to(torch.bfloat16) @ self._torch_entities.T).float().topk(k, dim=1)
        return found.values.numpy(), found.indices.numpy()

    @cached_property
    def _torch_entities(self) -> Any:
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        return torch.from_numpy(np.array(self._entities)).to(torch.bfloat16)
