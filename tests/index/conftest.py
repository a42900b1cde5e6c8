"""Small worlds of unit vectors, and the slow obvious answer every index is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.index import KINDS, AxesSettings, HnswSettings, IndexSettings, choose

LEAST_RECALL = {
    "float32": 1.0,
    "float16": 0.98,
    "bfloat16": 0.95,
    "int8": 0.95,
    "binary": 0.95,
    "hnsw": 0.95,
    "hnsw-axes": 0.9,
}
"Of kinds that round, neighbours closer to each other than the rounding may change places."
TOLERANCE = {
    "float32": 2e-7,
    "float16": 1e-3,
    "bfloat16": 8e-3,
    "int8": 1e-2,
    "binary": 1e-2,
    "hnsw": 1e-6,
    "hnsw-axes": 1e-2,
}


def truth(world: Mapping[int, NDArray[Any]], queries: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Score everything, sort by score and then by id, pad with -inf and -1."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    ids = np.full((len(queries), k), -1, np.int64)
    for row, query in enumerate(queries):
        pairs = [
            (-np.float32((query.astype(np.float64) * vector.astype(np.float64)).sum()), entity)
            for entity, vector in world.items()
        ]
        for place, (score, entity) in enumerate(sorted(pairs)[:k]):
            scores[row, place], ids[row, place] = -score, entity
    return scores, ids


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind = str(request.param)
    if kind.startswith("hnsw"):
        pytest.importorskip("hnswlib", reason="hnswlib is not installed (extra `index`)")
    return kind


@pytest.fixture
def settings(kind: str) -> IndexSettings:
    if kind == "hnsw-axes":
        return AxesSettings(ef_search=64, axes=16, rescored=64)
    return HnswSettings(ef_search=64) if kind == "hnsw" else choose(kind, 0)


@pytest.fixture
def agrees(kind: str) -> Callable[..., None]:
    """`agrees((scores, ids), world, queries)`: the answer is the true one, as nearly as the kind promises."""

    def check(
        answer: tuple[NDArray[Any], NDArray[Any]], world: Mapping[int, NDArray[Any]], queries: NDArray[Any]
    ) -> None:
        scores, ids = answer
        assert (scores.dtype, ids.dtype, scores.shape) == (np.float32, np.int64, ids.shape)
        true_scores, true_ids = truth(world, queries, ids.shape[1])
        if kind == "float32":
            np.testing.assert_array_equal(ids, true_ids)
            np.testing.assert_array_equal(scores, true_scores)
            return
        np.testing.assert_array_equal(ids >= 0, true_ids >= 0)  # as many as there are
        np.testing.assert_array_equal(ids >= 0, np.isfinite(scores))
        assert (np.diff(np.where(np.isfinite(scores), scores, -9), axis=1) <= 0).all()
        found = [{entity for entity in row if entity >= 0} for row in ids.tolist()]
        for row, (entities, query) in enumerate(zip(found, queries, strict=True)):
            assert len(entities) == (true_ids[row] >= 0).sum()  # none twice
            for entity, score in zip(ids[row], scores[row], strict=True):
                if entity >= 0:
                    assert abs(float(query @ world[int(entity)]) - score) <= TOLERANCE[kind]
        hits = sum(len(entities & set(true.tolist())) for entities, true in zip(found, true_ids, strict=True))
        assert hits >= LEAST_RECALL[kind] * (true_ids >= 0).sum()

    return check
