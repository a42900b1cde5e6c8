"""Which place is chosen: by hand, for a reranker without a preference, and for one that always takes the first."""

from __future__ import annotations

import numpy as np
import pytest

from localmel.evaluate.position_bias import Offer, position_bias

IDS = tuple(f"Q{number}" for number in range(8))


def test_shares_counted_by_hand() -> None:
    offers = [
        Offer(cluster="a", offered=("Q1", "Q2"), chosen="Q1", gold="Q2"),
        Offer(cluster="b", offered=("Q1", "Q2"), chosen="Q1", gold="Q1"),
        Offer(cluster="c", offered=("Q2", "Q1"), chosen=None, gold="Q1"),
        Offer(cluster="d", offered=("Q2", "Q1", "Q3"), chosen="Q1", gold="Q1"),
        Offer(cluster="e", offered=("Q2", "Q1"), chosen="Q2", gold="Q7"),
        Offer(cluster="f", offered=("Q2", "Q1"), chosen="Q2", gold=None),
    ]
    found = position_bias(offers)
    assert found is not None
    assert found.n == 4
    first, second, third = found.places
    assert (first.gold, first.chosen, first.right) == (0.25, 0.5, 1.0)
    assert (second.gold, second.chosen, second.right) == (0.75, 0.25, pytest.approx(1 / 3))
    assert (third.gold, third.chosen, third.right) == (0.0, 0.0, None)
    assert found.pull.value == 0.25


def offers_of(n: int, always_first: bool) -> list[Offer]:
    random = np.random.default_rng(0)
    offers = []
    for number in range(n):
        offered = tuple(random.permutation(IDS).tolist())
        gold = offered[random.integers(8)]
        by_chance = gold if random.random() < 0.7 else offered[random.integers(8)]
        offers.append(
            Offer(cluster=str(number), offered=offered, chosen=offered[0] if always_first else by_chance, gold=gold)
        )
    return offers


def test_a_reranker_without_a_preference_has_no_pull() -> None:
    found = position_bias(offers_of(1000, always_first=False))
    assert found is not None
    assert found.pull.low is not None
    assert found.pull.high is not None
    assert found.pull.low < 0 < found.pull.high


def test_one_that_takes_the_first_has_all_the_pull_there_is() -> None:
    found = position_bias(offers_of(400, always_first=True))
    assert found is not None
    assert found.pull.value == pytest.approx(1 - found.places[0].gold)
    assert found.pull.low > 0.8  # type: ignore[operator]


def test_where_no_gold_was_offered_nothing_is_said() -> None:
    assert position_bias([]) is None
    assert position_bias([Offer(cluster="a", offered=("Q1",), chosen="Q1", gold="Q2")]) is None
