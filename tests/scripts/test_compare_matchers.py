"""The table of two matchers: ranks, a combination fitted on the other half, intervals and p over sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts import compare_matchers as table

N, KNOWN = 40, 30


def scored(scores: NDArray[Any]) -> table.Scored:
    """A matcher that gives these (m, n) scores."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    return table.Scored(
        scores=np.take_along_axis(scores, best, axis=1),
        entities=best,
        of=lambda mention, positions: scores[mention, positions],
        seconds=1.0,
        held=1,
    )


@pytest.fixture
def both() -> tuple[table.Scored, table.Scored, NDArray[Any], NDArray[Any]]:
    """Two matchers, each of which sees half of what tells the entities apart."""
    chance = np.random.default_rng(0)
    gold = chance.integers(KNOWN, size=N)
    seen = np.eye(KNOWN)[gold]
    one, other = (1.2 * seen + chance.normal(size=seen.shape) for _ in range(2))
    return scored(one), scored(other), gold, np.arange(N)


def test_a_rank_is_the_place_among_what_was_found(both: Any) -> None:
    one, _, gold, _ = both
    ranks = table._ranks(one, gold)
    for mention in range(N):
        found = one.entities[mention].tolist()
        assert ranks[mention] == (found.index(gold[mention]) + 1 if gold[mention] in found else np.inf)


def test_together_they_find_what_neither_finds_alone_and_the_weight_is_from_the_other_half(both: Any) -> None:
    one, other, gold, sentence = both
    ranks, weights = table._combined(one, other, gold, sentence)
    alone = max((1 / table._ranks(found, gold)).mean() for found in (one, other))
    assert (1 / ranks).mean() > alone
    found = [table._both(one, other, mention) for mention in range(N)]
    for own, weight in zip((0, 1), weights, strict=True):
        halves = [table._with_weight(found, gold, tried)[sentence % 2 != own] for tried in table.WEIGHTS]
        fitted = [(1 / half).mean() for half in halves]
        assert weight == table.WEIGHTS[int(np.argmax(fitted))]


def test_a_difference_that_is_always_there_is_seen_and_noise_is_not() -> None:
    chance, sentence = np.random.default_rng(0), np.repeat(np.arange(100), 2)
    assert table._p(np.ones(200), sentence) < 0.001
    assert table._p(np.zeros(200), sentence) == 1.0
    assert table._p(chance.choice([-1.0, 1.0], size=200), sentence) > 0.05
    assert table._with_interval(np.full(200, 0.5), sentence) == "0.500 [0.500, 0.500]"
    low, high = table._with_interval(chance.random(200), sentence, sign=True).split("[")[1].rstrip("]").split(", ")
    assert float(low) < 0.5 < float(high)
