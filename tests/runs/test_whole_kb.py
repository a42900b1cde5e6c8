"""Ranks and the K best over a whole KB, held against the definition: every dot product in float64, fully sorted."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.runs import whole_kb
from localmel.runs.whole_kb import rank_in_kb


def unit(values: NDArray[Any]) -> NDArray[Any]:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def drawn(n: int, m: int, width: int, *, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Entities of which many are equal, golds at every depth, some missing, mentions near their gold or anywhere."""
    random = np.random.default_rng(seed)
    entities = unit(random.standard_normal((n, width))).astype(np.float16)
    entities[random.integers(0, n, n // 3)] = entities[random.integers(0, n)]
    gold = random.integers(-1, n, m)
    near = np.where(random.random((m, 1)) < 0.5, 3.0 * entities[gold].astype(np.float64), 0.0)
    return unit(random.standard_normal((m, width)) + near).astype(np.float32), entities, gold


@pytest.mark.parametrize("few", [2048, 4], ids=["settled by bfloat16", "mostly scored again in float32"])
@pytest.mark.parametrize(
    ("n", "m", "width", "k"), [(1, 3, 4, 16), (50, 7, 8, 16), (9000, 40, 16, 5), (7000, 300, 64, 16)]
)
def test_ranks_and_best_are_those_of_a_full_sort(
    monkeypatch: pytest.MonkeyPatch, few: int, n: int, m: int, width: int, k: int
) -> None:
    monkeypatch.setattr(whole_kb, "_FEW", few)
    mentions, entities, gold = drawn(n, m, width)
    found = rank_in_kb(mentions, entities, gold, [str(number) for number in range(m)], k=k)
    for line in range(m):
        scores = (mentions[line].astype(np.float64) * entities).sum(axis=1)
        order = np.argsort(-scores, kind="stable")
        assert found.best[line].tolist() == order[:k].tolist()
        assert found.scores[line].tolist() == scores[order[:k]].tolist()
        if gold[line] < 0:
            assert np.isinf(found.rank[line])
            assert np.isinf(found.place[line])
            continue
        own = scores[gold[line]]
        assert found.rank[line] == 1 + (scores > own).sum() + ((scores == own).sum() - 1) / 2
        assert found.place[line] == 1 + order.tolist().index(gold[line])


def test_no_mentions_are_legal() -> None:
    found = rank_in_kb(np.zeros((0, 4), np.float32), np.eye(4, dtype=np.float16), np.zeros(0, np.int64), [], k=3)
    assert (found.rank.shape, found.best.shape) == ((0,), (0, 3))


@pytest.mark.parametrize(
    ("row", "said"), [(np.full(4, np.nan), "is nan"), (np.zeros(4), "is 0.0"), (np.ones(4), "is 2.0")]
)
def test_a_vector_that_cannot_be_compared_is_named(row: NDArray[Any], said: str) -> None:
    good, gold = np.eye(4, dtype=np.float32), np.zeros(4, np.int64)
    bad = good.copy()
    bad[2] = row
    with pytest.raises(BadInput, match=f"the vector of mention 'c': its length {said}"):
        rank_in_kb(bad, good, gold, list("abcd"), k=1)
    with pytest.raises(BadInput, match=f"the vector of entity at position 2: its length {said}"):
        rank_in_kb(good, bad, gold, list("abcd"), k=1)


def test_vectors_of_two_widths_are_refused() -> None:
    with pytest.raises(BadInput, match="mention vectors have width 4, entity vectors 3"):
        rank_in_kb(np.eye(4, dtype=np.float32), np.eye(3, dtype=np.float32), np.zeros(4, np.int64), list("abcd"), k=1)


def test_hundreds_of_mentions_against_a_large_kb_take_seconds() -> None:
    """A guard against another order of growth, in seconds of the processor; the measured time is in the docs."""
    random = np.random.default_rng(0)
    entities = unit(random.standard_normal((100_000, 64), dtype=np.float32)).astype(np.float16)
    gold = random.integers(0, len(entities), 500)
    mentions = unit(entities[gold].astype(np.float32) + 0.1 * random.standard_normal((500, 64), dtype=np.float32))
    start = time.process_time()
    found = rank_in_kb(mentions, entities, gold, ["x"] * 500, k=16)
    assert time.process_time() - start < 20
    assert np.median(found.rank) == 1.0
