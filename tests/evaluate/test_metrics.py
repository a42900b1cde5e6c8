"""The metrics against their definitions, written out slowly, and against scikit-learn where it has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.evaluate.metrics import (
    area_under_roc,
    expected_calibration_error,
    f1_of,
    reliability_of,
    wilson_interval,
)

labelled = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40)


@given(labelled)
@settings(max_examples=60, deadline=None)
def test_the_area_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[bool, int]]) -> None:
    positive = [score for is_positive, score in rows if is_positive]
    negative = [score for is_positive, score in rows if not is_positive]
    area = area_under_roc(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]))
    if not positive or not negative:
        assert math.isnan(area)
        return
    pairs = [(high > low) + 0.5 * (high == low) for high in positive for low in negative]
    assert area == pytest.approx(sum(pairs) / len(pairs))


def test_area_and_f1_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    actual, score = random.random(500) < 0.4, random.random(500).round(2)
    predicted = score > 0.6
    assert area_under_roc(actual, score) == pytest.approx(metrics.roc_auc_score(actual, score))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(actual, predicted, average="binary")
    assert f1_of(predicted, actual) == pytest.approx((precision, recall, f1))


def test_nothing_predicted_and_nothing_actual_is_no_division_by_zero() -> None:
    none = np.zeros(3, bool)
    assert f1_of(none, none) == (0.0, 0.0, 0.0)


def test_calibration_error_of_a_case_counted_by_hand() -> None:
    # two answers at .95, one right: |.95 - .5| = .45; two at .05, none right: .05; half of the mentions each
    probability, correct = np.array([0.95, 0.95, 0.05, 0.05]), np.array([1, 0, 0, 0])
    assert expected_calibration_error(probability, correct) == pytest.approx(0.25)
    assert expected_calibration_error(np.array([1.0, 1.0]), np.array([1, 1])) == 0.0


def test_a_calibrated_system_has_a_small_error_and_an_overconfident_one_a_large_one() -> None:
    random = np.random.default_rng(1)
    probability = random.random(20_000)
    correct = random.random(20_000) < probability
    assert expected_calibration_error(probability, correct) < 0.02
    assert expected_calibration_error(np.sqrt(probability), correct) > 0.1


def test_reliability_bins_counted_by_hand() -> None:
    probability, correct = np.array([0.95, 1.0, 0.96, 0.02, 0.02]), np.array([1, 1, 0, 0, 1])
    low, high = reliability_of(probability, correct)
    assert (low.n, low.sure, low.right) == (2, pytest.approx(0.02), 0.5)
    assert (high.n, high.sure, high.right) == (3, pytest.approx(0.97), pytest.approx(2 / 3))
    assert high.low == pytest.approx(0.2077, abs=1e-3)  # Wilson, 2 of 3
    assert high.high == pytest.approx(0.9385, abs=1e-3)


def test_the_reliability_bins_add_up_to_the_calibration_error() -> None:
    random = np.random.default_rng(3)
    probability, correct = random.random(200).round(1), random.random(200) < 0.5
    bins = reliability_of(probability, correct)
    error = sum(one.n * abs(one.sure - one.right) for one in bins) / 200
    assert error == pytest.approx(expected_calibration_error(probability, correct))
    assert [one.sure for one in bins] == sorted(one.sure for one in bins)
    assert all(one.low <= one.right <= one.high for one in bins)


@pytest.mark.parametrize(("count", "n"), [(0, 5), (5, 5), (1, 3), (17, 40), (999, 1000)])
def test_wilson_intervals_agree_with_scipy(count: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy, the independent judge here, is not installed")
    interval = stats.binomtest(count, n).proportion_ci(method="wilson")
    assert wilson_interval(count, n) == pytest.approx((interval.low, interval.high), abs=1e-12)
