"""What it would cost to ask only in doubt, against routing each mention by hand."""

from __future__ import annotations

from random import Random

import pytest

from localmel.rerank.routing import THRESHOLDS, Routed, routing_curve


def drawn(n: int, seed: int = 0) -> list[Routed]:
    """The surer the scorer the more often it is right; the model is right in nine of ten."""
    random = Random(seed)
    found = []
    for _ in range(n):
        sure, nil = random.random(), random.random() < 0.2
        scorer, model = random.random() < sure, random.random() < 0.9
        found.append(
            Routed(
                sure=sure,
                scorer_hit=None if nil else scorer,
                model_hit=None if nil else model,
                scorer_right=scorer,
                model_right=model,
                tokens=random.randint(100, 200),
            )
        )
    return found


def test_the_ends_of_the_curve_are_the_two_systems() -> None:
    routed = drawn(500)
    points = {point.route_from: point for point in routing_curve(routed)}
    every, none = points[0.0], points[1e-9]
    assert (every.asked, every.tokens) == (1.0, 1.0)
    assert every.accuracy == sum(one.model_right for one in routed) / 500
    assert (none.asked, none.tokens) == (0.0, 0.0)
    in_kb = [one for one in routed if one.scorer_hit is not None]
    assert none.hits_at_1 == sum(bool(one.scorer_hit) for one in in_kb) / len(in_kb)


def test_each_point_is_what_routing_by_hand_gives() -> None:
    routed = drawn(300, seed=1)
    for point in routing_curve(routed):
        answers = [
            (one.scorer_right, 0) if 0 < point.route_from <= one.sure else (one.model_right, 1) for one in routed
        ]
        assert point.accuracy == pytest.approx(sum(right for right, _ in answers) / 300)
        assert point.asked == pytest.approx(sum(asked for _, asked in answers) / 300)
    asked = [point.asked for point in routing_curve(routed)]
    assert asked == sorted(asked, reverse=True)


def test_with_a_scorer_that_knows_when_it_is_right_half_the_cost_keeps_almost_all() -> None:
    points = {point.route_from: point for point in routing_curve(drawn(5000))}
    assert points[0.9].asked == pytest.approx(0.9, abs=0.02)
    assert points[0.9].accuracy > points[0.0].accuracy
    assert points[0.5].accuracy < points[0.0].accuracy


def test_without_mentions_or_golds_nothing_is_claimed() -> None:
    assert routing_curve([]) == ()
    nil = Routed(sure=0.5, scorer_hit=None, model_hit=None, scorer_right=True, model_right=False, tokens=0)
    points = routing_curve([nil])
    assert len(points) == len(THRESHOLDS)
    assert points[0].hits_at_1 is None
    assert (points[0].accuracy, points[-1].accuracy, points[0].tokens) == (0.0, 1.0, 0.0)
