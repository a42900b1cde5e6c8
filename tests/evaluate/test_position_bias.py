"""Which place is chosen: by hand, for a reranker without a preference, and for one that always takes the first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest

from localmel.evaluate.position_bias import Offer, place_preference, position_bias, upper_chi_square

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


# --- against chance -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """One order of the candidates, and the place that was chosen; the number of places for NIL."""

    order: tuple[int, ...]
    place: int

    @property
    def option(self) -> int | None:
        return self.order[self.place] if self.place < len(self.order) else None


def vote(order: list[int], place: int) -> Answer:
    return Answer(tuple(order), place)


def votes(n: int, n_places: int, liking: float, seed: int = 0) -> list[list[Answer]]:
    """In so many of the mentions the first place is chosen whatever stands there, else a candidate wherever it is."""
    random = Random(seed)
    found = []
    for _ in range(n):
        order = random.sample(range(n_places), n_places)
        turned = order[1:] + order[:1]
        if random.random() < liking:
            found.append([vote(order, 0), vote(turned, 0)])
        else:
            right = random.randrange(n_places)
            found.append([vote(order, order.index(right)), vote(turned, turned.index(right))])
    return found


def test_what_was_put_in_is_found() -> None:
    found = place_preference(votes(3000, 6, liking=0.3))
    assert found is not None
    assert found.places[0].chosen == pytest.approx(0.3 + 0.7 / 6, abs=0.03)
    assert found.places[0].low > found.places[0].by_chance == pytest.approx(1 / 6)
    assert found.moved == pytest.approx(0.3 * 5 / 6, abs=0.03)
    assert found.p < 1e-9
    assert found.agreement == pytest.approx(0.7, abs=0.03)
    assert (found.n, found.n_orders, found.nil) == (3000, 2, 0.0)


def test_where_nothing_was_put_in_the_test_is_silent_as_often_as_it_says() -> None:
    found = [place_preference(votes(200, 6, liking=0.0, seed=seed)) for seed in range(100)]
    below = [one.p < 0.05 for one in found if one]
    assert sum(below) / len(below) == pytest.approx(0.05, abs=0.06)
    assert all(one.agreement == 1.0 for one in found if one)


def test_mentions_with_fewer_candidates_and_nil_answers_are_left_out_of_the_places() -> None:
    mixed = [*votes(100, 6, liking=1.0), *votes(20, 3, liking=0.0), [vote([0, 1, 2], 3)], []]
    found = place_preference(mixed)
    assert found is not None
    assert (found.n, len(found.places), found.nil) == (100, 6, pytest.approx(1 / 121))
    assert found.moved == pytest.approx(5 / 6)
    assert place_preference([[vote([0, 1], 2)], []]) is None
    assert place_preference([]) is None


@pytest.mark.parametrize("degrees", range(1, 26))
def test_the_tail_of_chi_square_is_the_integral_of_its_density(degrees: int) -> None:
    """Added up in small steps from far out; and the mean of 1 degree is that of a squared normal deviate."""

    def density(value: float) -> float:
        half = degrees / 2
        return math.exp((half - 1) * math.log(value) - value / 2 - half * math.log(2) - math.lgamma(half))

    step = 0.005
    for start in (1.0, 7.5, 20.0):
        area = sum(density(start + (n + 0.5) * step) for n in range(int(150 / step))) * step
        assert upper_chi_square(start, degrees) == pytest.approx(area, rel=2e-4, abs=1e-12)
    assert upper_chi_square(0.0, degrees) == 1.0
    assert upper_chi_square(3000.0, degrees) == pytest.approx(0.0, abs=1e-200)
