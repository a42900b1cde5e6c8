"""A liking for places is found where it was put in, and not where there is none; its test is as good as SciPy's."""

from __future__ import annotations

import math
from random import Random

import pytest

from localmel.rerank.choice import Vote
from localmel.rerank.position_bias import position_bias, upper_chi_square


def vote(order: list[int], place: int) -> Vote:
    n = len(order)
    return Vote(order=tuple(order), logs=tuple(0.0 if one == place else -9.0 for one in range(n + 1)))


def votes(n: int, n_places: int, liking: float, seed: int = 0) -> list[list[Vote]]:
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
    found = position_bias(votes(3000, 6, liking=0.3))
    assert found is not None
    assert found.places[0].chosen == pytest.approx(0.3 + 0.7 / 6, abs=0.03)
    assert found.places[0].low > found.places[0].by_chance == pytest.approx(1 / 6)
    assert found.moved == pytest.approx(0.3 * 5 / 6, abs=0.03)
    assert found.p < 1e-9
    assert found.agreement == pytest.approx(0.7, abs=0.03)
    assert (found.n, found.n_orders, found.nil) == (3000, 2, 0.0)


def test_where_nothing_was_put_in_the_test_is_silent_as_often_as_it_says() -> None:
    found = [position_bias(votes(200, 6, liking=0.0, seed=seed)) for seed in range(100)]
    below = [one.p < 0.05 for one in found if one]
    assert sum(below) / len(below) == pytest.approx(0.05, abs=0.06)
    assert all(one.agreement == 1.0 for one in found if one)


def test_mentions_with_fewer_candidates_and_nil_answers_are_left_out_of_the_places() -> None:
    mixed = [*votes(100, 6, liking=1.0), *votes(20, 3, liking=0.0), [vote([0, 1, 2], 3)], []]
    found = position_bias(mixed)
    assert found is not None
    assert (found.n, len(found.places), found.nil) == (100, 6, pytest.approx(1 / 121))
    assert found.moved == pytest.approx(5 / 6)
    assert position_bias([[vote([0, 1], 2)], []]) is None
    assert position_bias([]) is None


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
