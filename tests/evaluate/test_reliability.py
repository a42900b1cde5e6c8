"""The curve behind the calibration error: the same bins, counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from localmel.evaluate.metrics import expected_calibration_error
from localmel.evaluate.protocol import Outcome
from localmel.evaluate.reliability import reliability_of

Make = Callable[..., Outcome]
Draw = Callable[..., list[Outcome]]


def test_bins_counted_by_hand(outcome: Make) -> None:
    wrong = {"rank": 2.0, "predicted": "Q9"}
    outcomes = [
        outcome("a", probability=0.95), outcome("b", probability=1.0), outcome("c", probability=0.96, **wrong),
        outcome("d", probability=0.02, **wrong), outcome("e", probability=0.02, gold=None, predicted=None),
    ]  # fmt: skip
    low, high = reliability_of(outcomes)
    assert (low.n, low.sure, low.right) == (2, pytest.approx(0.02), 0.5)
    assert (high.n, high.sure, high.right) == (3, pytest.approx(0.97), pytest.approx(2 / 3))
    assert high.low == pytest.approx(0.2077, abs=1e-3)  # Wilson, 2 of 3
    assert high.high == pytest.approx(0.9385, abs=1e-3)


def test_the_bins_add_up_to_the_calibration_error(draw: Draw) -> None:
    outcomes = draw(200)
    bins = reliability_of(outcomes)
    error = sum(one.n * abs(one.sure - one.right) for one in bins) / 200
    probability = [one.probability for one in outcomes]
    right = [one.predicted == one.gold for one in outcomes]
    assert error == pytest.approx(expected_calibration_error(probability, right))  # type: ignore[arg-type]
    assert [one.sure for one in bins] == sorted(one.sure for one in bins)
    assert all(one.low <= one.right <= one.high for one in bins)
