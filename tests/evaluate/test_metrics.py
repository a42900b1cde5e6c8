"""The metrics against their definitions, written out slowly, and against scikit-learn where it has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.evaluate.metrics import area_under_roc, expected_calibration_error, f1_of, share_of

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


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        hits = (random.random(150) < 0.7).astype(float)
        share = share_of(hits, [str(number) for number in range(150)], samples=400, seed=seed)
        covered += share.low <= 0.7 <= share.high
    assert 0.90 <= covered / 200 <= 0.99


def test_mentions_of_one_sentence_are_drawn_together() -> None:
    hits = [1.0] * 50 + [0.0] * 50
    alone = share_of(hits, [str(number) for number in range(100)])
    together = share_of(hits, [str(number // 25) for number in range(100)])
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert together.value == alone.value == 0.5
    assert (alone.n, str(alone)) == (100, f"0.500 [{alone.low:.3f}, {alone.high:.3f}]")


def test_no_mentions_have_no_share() -> None:
    with pytest.raises(ValueError, match="no mentions"):
        share_of([], [])
