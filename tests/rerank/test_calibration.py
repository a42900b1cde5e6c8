"""A calibration mends what an overconfident model says, is fitted on val alone, and survives the way to the disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.errors import BadInput, CorruptArtifact
from localmel.evaluate.metrics import expected_calibration_error
from localmel.rerank.calibration import (
    ChoiceCalibration,
    Judged,
    answers_of,
    calibrations_without,
    decide,
    fit_calibration,
    fitted_temperature,
    fitted_threshold,
    load_calibration,
    rising_curve,
)

VAL = {"split": "val", "model": {"name": "known", "revision": "r"}}


def drawn(n: int, *, too_sure: float, nil_share: float = 0.2, seed: int = 0) -> list[Judged]:
    """Choices of a model whose logits are `too_sure` times what they should be: drawn from its true probabilities."""
    random = np.random.default_rng(seed)
    judged = []
    for _ in range(n):
        logits = random.normal(0, 1.5, 6)
        logits[-1] += math.log(nil_share * 5)
        shares = np.exp(logits) / np.exp(logits).sum()
        right = int(random.choice(6, p=shares))
        logs = np.log(shares) * too_sure
        judged.append(Judged(logs=tuple(logs - np.log(np.exp(logs).sum())), right=right, is_nil=right == 5))
    return judged


def ece(judged: list[Judged], calibration: ChoiceCalibration) -> float:
    return expected_calibration_error(*answers_of(judged, calibration))


@pytest.mark.parametrize("too_sure", [0.3, 1.0, 4.0])
def test_the_temperature_is_found_that_was_put_in(too_sure: float) -> None:
    assert fitted_temperature(drawn(4000, too_sure=too_sure)) == pytest.approx(too_sure, rel=0.1)


@pytest.mark.parametrize("isotonic", [False, True])
def test_an_overconfident_model_is_mended_on_mentions_not_fitted_on(isotonic: bool) -> None:
    fitted = fit_calibration(drawn(3000, too_sure=5.0), isotonic=isotonic, fitted_on=VAL)
    others = drawn(3000, too_sure=5.0, seed=1)
    before, after = ece(others, ChoiceCalibration()), ece(others, fitted)
    assert before > 0.25
    assert after < 0.05
    assert bool(fitted.said) == isotonic


def test_the_loss_at_the_temperature_is_the_least_of_a_fine_grid() -> None:
    judged = drawn(300, too_sure=2.5)
    found = fitted_temperature(judged)

    def loss(temperature: float) -> float:
        total = 0.0
        for one in judged:
            logits = np.array(one.logs) / temperature
            total -= logits[one.right] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        return total

    assert loss(found) <= min(loss(temperature) for temperature in np.geomspace(0.05, 40, 600)) + 1e-6


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_threshold_has_as_many_right_answers_as_any(rows: list[tuple[int, bool, bool]]) -> None:
    """Against counting at every threshold; NIL probabilities of few values, so that many are equal."""
    judged = []
    for tenths, is_nil, first_is_right in rows:
        nil = tenths / 10
        right = 2 if is_nil else 0 if first_is_right else 1
        shares = ((1 - nil) * 0.9, (1 - nil) * 0.1, nil)
        judged.append(Judged(logs=tuple(map(math.log, shares)), right=right, is_nil=is_nil))

    def n_right(threshold: float) -> int:
        return int(answers_of(judged, ChoiceCalibration(nil_from=threshold))[1].sum())

    found = fitted_threshold(judged, 1.0)
    best = max(n_right(threshold) for threshold in np.arange(0.005, 1.05, 0.01))
    assert n_right(found) == best
    if n_right(0.5) == best and all(tenths != 5 for tenths, _, _ in rows):
        assert found == 0.5


def test_nil_is_no_right_answer_where_the_kb_has_the_entity_and_no_option_is_it() -> None:
    logs = (math.log(0.2), math.log(0.1), math.log(0.7))
    outside = Judged(logs=logs, right=2, is_nil=False)
    assert answers_of([outside], ChoiceCalibration())[1].tolist() == [False]
    assert fitted_threshold([outside] * 3 + [Judged(logs=logs, right=0, is_nil=False)], 1.0) > 0.7


@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=25))
def test_the_curve_is_the_isotonic_regression(rows: list[tuple[int, bool]]) -> None:
    """Against its min-max formula: the highest mean from anywhere below up to the lowest mean to anywhere above."""
    sure, correct = np.array([tenths / 10 for tenths, _ in rows]), np.array([right for _, right in rows])
    said, true = rising_curve(sure, correct)
    levels = sorted(set(sure.tolist()))
    for number, level in enumerate(levels):
        expected = max(
            min(correct[(sure >= low) & (sure <= high)].mean() for high in levels[number:])
            for low in levels[: number + 1]
        )
        assert np.interp(level, said, true) == pytest.approx(expected, abs=1e-5)


def test_the_curve_agrees_with_scikit_learn() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic", reason="scikit-learn comes with the extra fit")
    random = np.random.default_rng(3)
    sure = random.random(500).round(2)
    correct = random.random(500) < sure**2
    said, true = rising_curve(sure, correct)
    theirs = isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(sure, correct)
    assert np.interp(sure, said, true) == pytest.approx(theirs.predict(sure), abs=1e-5)


def test_a_saved_calibration_decides_the_same(tmp_path: Path) -> None:
    judged = drawn(400, too_sure=3.0)
    fitted = fit_calibration(judged, isotonic=True, fitted_on=VAL)
    fitted.save(tmp_path / "calibration.json")
    loaded = load_calibration(tmp_path / "calibration.json")
    assert loaded == fitted
    assert [decide(one.logs, 0.5, loaded) for one in judged] == [decide(one.logs, 0.5, fitted) for one in judged]
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert (found["kind"], found["version"], found["fitted_on"]) == ("choice calibration", 1, VAL)
    fitted.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "calibration.json").read_bytes()


@pytest.mark.parametrize("split", ["test", "train", "train+val", None])
def test_nothing_but_val_is_fitted_on(split: str | None) -> None:
    with pytest.raises(BadInput, match="only val is allowed"):
        fit_calibration(drawn(100, too_sure=1.0), fitted_on={"split": split})


def test_a_choice_is_judged_by_a_calibration_that_has_not_seen_its_sentence() -> None:
    judged = drawn(100, too_sure=3.0)
    clusters = [f"sentence {number // 2}" for number in range(100)]
    found = calibrations_without(judged, clusters, isotonic=False, parts=5)
    assert len({one.temperature for one in found}) == 5
    for number in (0, 37, 99):
        own = found[number]
        fitted_with = [one for one, other in zip(judged, found, strict=True) if other != own]
        assert own.temperature == fitted_temperature(fitted_with)
        assert found[number // 2 * 2] == own
    assert calibrations_without(judged[:3], ["one"] * 3, isotonic=True) == [ChoiceCalibration()] * 3


def test_too_few_choices_are_refused() -> None:
    with pytest.raises(BadInput, match="on 49 choices: at least 50"):
        fit_calibration(drawn(49, too_sure=1.0), fitted_on=VAL)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kind": "else"},
        {"temperature": 0.0},
        {"temperature": "warm"},
        {"temperature": None},
        {"nil_from": -1},
        {"isotonic": {"said": [0.5, 0.2], "true": [0.1, 0.2]}},
        {"isotonic": {"said": [0.5], "true": [0.1, 0.2]}},
        {"isotonic": {"said": [0.5], "true": [1.5]}},
        {"fitted_on": 3},
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(ChoiceCalibration(fitted_on=VAL).to_json() | change))
    with pytest.raises(CorruptArtifact, match=r"is not a choice calibration of version 1"):
        load_calibration(path)


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_any_bytes_at_all_are_a_calibration_or_an_error(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calibration.json"
        path.write_bytes(content)
        with pytest.raises(CorruptArtifact):
            load_calibration(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist") as refused:
        load_calibration(tmp_path / "none.json")
    assert "--fit-calibration" in refused.value.hint
