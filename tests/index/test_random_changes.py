"""Any sequence of additions, removals and searches gives what a dictionary of vectors would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from localmel.index import IndexSettings, build_index

WIDTH = 8
Steps = list[tuple[str, list[int], int]]

steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "search", "allowed"]),
        st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True),
        st.integers(0, 2**20),
    ),
    max_size=10,
)


def rows(n: int, seed: int) -> NDArray[Any]:
    """Few directions, so that equal vectors and equal scores are common."""
    found = np.random.default_rng(seed).integers(-2, 3, (n, WIDTH)).astype(np.float64)
    found[~found.any(axis=1), 0] = 1
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def brute(world: dict[int, NDArray[Any]], query: NDArray[Any], k: int) -> list[tuple[float, int]]:
    pairs = sorted(
        (-np.float32((query.astype(np.float64) * vector.astype(np.float64)).sum()), entity)
        for entity, vector in world.items()
    )
    return [(float(-score), entity) for score, entity in pairs[:k]]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 20), steps=steps)
def test_an_index_is_a_dictionary_that_can_be_searched(
    settings: IndexSettings, kind: str, start: int, steps: Steps
) -> None:
    first = rows(start, 1)
    world = dict(enumerate(first))
    index = build_index(first, settings)
    for what, ids, seed in steps:
        if what == "add":
            new = [entity for entity in ids if entity not in world]
            vectors = rows(len(new), seed)
            index.add(vectors, np.array(new, np.int64))
            world |= dict(zip(new, vectors, strict=True))
        elif what == "remove":
            old = [entity for entity in ids if entity in world]
            index.remove(np.array(old, np.int64))
            world = {entity: vector for entity, vector in world.items() if entity not in old}
        else:
            query = rows(1, seed)
            allowed = ids if what == "allowed" else None
            k = 1 + seed % 8
            scores, found = index.search(query, k, allowed=allowed)
            seen = {entity: world[entity] for entity in world if allowed is None or entity in allowed}
            expected = brute(seen, query[0], k)
            wanted = len(expected)
            assert (found[0, wanted:] == -1).all()
            assert set(found[0, :wanted].tolist()) <= set(seen)
            assert len(set(found[0, :wanted].tolist())) == wanted
            if kind == "float32":
                assert list(zip(scores[0, :wanted].tolist(), found[0, :wanted].tolist(), strict=True)) == expected
            else:
                least = {
                    "float16": 1e-3,
                    "bfloat16": 8e-3,
                    "int8": 2e-2,
                    "binary": 2e-2,
                    "hnsw": 1e-6,
                    "hnsw-axes": 2e-2,
                }[kind]
                np.testing.assert_allclose(scores[0, :wanted], [score for score, _ in expected], rtol=0, atol=least)
    np.testing.assert_array_equal(index.ids(), sorted(world))


@pytest.mark.parametrize("rows_at_once", [1, 7, 64])
@pytest.mark.parametrize("exact_kind", ["float32", "float16", "bfloat16", "int8", "binary"])
def test_the_size_of_a_step_changes_no_answer(exact_kind: str, rows_at_once: int) -> None:
    from localmel.index import ExactSettings

    vectors, queries = rows(200, 3), rows(9, 4)
    whole = build_index(vectors, ExactSettings(kind=exact_kind)).search(queries, 6)
    steps = ExactSettings(kind=exact_kind, rows_at_once=rows_at_once, queries_at_once=2, scores_at_once=50)
    for one, other in zip(whole, build_index(vectors, steps).search(queries, 6), strict=True):
        np.testing.assert_array_equal(one, other)
