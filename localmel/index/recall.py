"""How much of the exact answer an index finds.

In: an index, the vectors it was built from, queries.  Out: the share of the best k that it returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.index.exact import ExactIndex
from localmel.index.protocol import VectorIndex
from localmel.index.settings import ExactSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Over `n_queries`, the mean share of the exact best k among the k answered."""

    k: int
    n_queries: int
    share: float

    def __str__(self) -> str:
        return f"recall@{self.k} {self.share:.4f} over {self.n_queries:,} queries"


def sampled(queries: NDArray[Any], n_sampled: int, seed: int) -> NDArray[Any]:
    """At most `n_sampled` rows, drawn without replacement; all of them, in order, where there are no more."""
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
    """Compare with a float32 scan of `vectors` (n, width) under `ids`; the scan holds a copy of them meanwhile."""
    exact = ExactIndex.build(vectors, ExactSettings(), ids=ids)
    asked = sampled(queries, n_sampled, seed)
    return recall_of(index.search(asked, k)[1], exact.search(asked, k)[1])


def recall_of(found: NDArray[Any], truth: NDArray[Any]) -> Recall:
    """found, truth: (m, k) ids.  Places without an id do not count; 1 where there is nothing to find."""
    hits = sum(len(np.intersect1d(one[one >= 0], other[other >= 0])) for one, other in zip(found, truth, strict=True))
    wanted = int(np.count_nonzero(truth >= 0))
    return Recall(k=truth.shape[1], n_queries=len(truth), share=hits / wanted if wanted else 1.0)
