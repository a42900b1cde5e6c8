"""Calibrate the choices of a language model: fit on validation, decide every later choice with it.

In: averaged log probabilities of choices, and what was right.  Out: a temperature, a NIL threshold and optionally an
isotonic curve, as one JSON file that records what it was fitted on.  Runs in NumPy; knows no engine.
Sources: Guo et al., 2017 (temperature); Zadrozny and Elkan, 2002 (isotonic, by pooling adjacent violators)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.engines.protocol import EngineFacts
from localmel.errors import BadInput, CorruptArtifact
from localmel.settings import RerankSettings
from localmel.store.artifacts import write_json

KIND, VERSION = "choice calibration", 1
FITTED_ON = "val"
"The only split a calibration may be fitted on."
ASKED = ("most_candidates", "most_relations", "most_tails", "evidence_first", "orders", "seed")
"Settings that decide what the model is asked; a calibration is valid for one combination of them."
_COLDEST, _HOTTEST, _STEPS = 0.02, 50.0, 80
_FEWEST = 50
"The fewest mentions to fit on: a threshold from fewer is arbitrary."
_SAME = 1e-9
"Averages closer than this are equal; then the candidate that retrieval ranked first is chosen."


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceCalibration:
    """Turns the logarithms of a choice into calibrated probabilities."""

    temperature: float = 1.0
    "Divides the averaged logarithms; above 1 for an overconfident model."
    nil_from: float = 0.5
    "The answer is NIL where its probability, at this temperature, reaches this threshold."
    said: tuple[float, ...] = ()
    "Ascending probabilities of answers; empty without an isotonic curve."
    true: tuple[float, ...] = ()
    "How often answers with these probabilities were right; values in between are interpolated linearly."
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    "Split, number of mentions, and hashes of questions, choices and model."

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < math.inf or not self.nil_from >= 0.0:
            raise ValueError(f"temperature {self.temperature} and NIL threshold {self.nil_from} are not valid")
        curve = (*self.said, *self.true)
        rising = list(self.said) == sorted(self.said) and list(self.true) == sorted(self.true)
        if len(self.said) != len(self.true) or not rising or not all(0.0 <= value <= 1.0 for value in curve):
            raise ValueError(f"the isotonic curve {self.said} -> {self.true} does not rise from 0 to 1")

    def confidence(self, probability: float) -> float:
        """Return the calibrated probability of an answer with this probability."""
        if not self.said:
            return probability
        return float(np.interp(probability, self.said, self.true))

    def to_json(self) -> dict[str, Any]:
        """Return what the file contains."""
        return {
            "kind": KIND,
            "version": VERSION,
            "temperature": self.temperature,
            "nil_from": self.nil_from,
            "isotonic": {"said": list(self.said), "true": list(self.true)} if self.said else None,
            "fitted_on": dict(self.fitted_on),
        }

    def save(self, path: Path) -> None:
        """Write the file as JSON, atomically."""
        write_json(path, self.to_json())


def load_calibration(path: Path) -> ChoiceCalibration:
    """Load a saved calibration.  Raises BadInput where there is none, CorruptArtifact where it cannot be used."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found["kind"], found["version"]) != (KIND, VERSION):
            raise ValueError(f"{found['kind']!r} version {found['version']!r}")
        curve = found["isotonic"] or {"said": [], "true": []}
        return ChoiceCalibration(
            temperature=float(found["temperature"]),
            nil_from=float(found["nil_from"]),
            said=tuple(map(float, curve["said"])),
            true=tuple(map(float, curve["true"])),
            fitted_on=dict(found["fitted_on"]),
        )
    except FileNotFoundError:
        raise BadInput(
            f"cannot load calibration: {path} does not exist", hint="localmel rerank --run RUN --fit-calibration FILE"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        fact = f"cannot load calibration: {path} is not a {KIND} of version {VERSION} ({error})"
        raise CorruptArtifact(fact, hint="localmel rerank --run RUN --fit-calibration ANOTHER_FILE") from None


def check_fits(calibration: ChoiceCalibration, facts: EngineFacts, settings: RerankSettings) -> None:
    """Raise BadInput where a calibration was fitted on another model or on answers to other questions."""
    fitted = calibration.fitted_on
    differ = [name for name in ASKED if name != "seed" and fitted.get("asked", {}).get(name) != getattr(settings, name)]
    if (revision := fitted.get("model", {}).get("revision")) != facts.revision:
        differ.insert(0, f"model ({fitted.get('model', {}).get('name')} {str(revision)[:12]})")
    if differ:
        raise BadInput(
            f"cannot use the calibration: it was fitted on other answers than those of {facts.model} and differs in "
            f"{', '.join(differ)}",
            hint="localmel rerank DATA --run VAL_RUN --kb KB --fit-calibration FILE",
        )


# --- deciding ---------------------------------------------------------------------------------------------------------


def probabilities_of(logs: Sequence[float], temperature: float = 1.0) -> tuple[float, ...]:
    """Return the softmax of averaged logarithms at a temperature."""
    highest = max(logs)
    shares = [math.exp((log - highest) / temperature) for log in logs]
    total = math.fsum(shares)
    return tuple(share / total for share in shares)


def decide(
    logs: Sequence[float], nil_from: float, calibration: ChoiceCalibration | None = None
) -> tuple[int | None, float, float]:
    """Return the option (None for NIL), the probability that it is right, and the probability of NIL.

    The answer is NIL where its probability reaches `nil_from`, or the calibration's threshold if there is one.  Among
    equally probable options the one that retrieval ranked first is chosen."""
    probabilities = probabilities_of(logs, calibration.temperature if calibration else 1.0)
    nil = probabilities[-1]
    if len(logs) == 1 or nil >= (calibration.nil_from if calibration else nil_from):
        option, sure = None, nil
    else:
        option = best_of(logs[:-1])
        sure = probabilities[option]
    return option, calibration.confidence(sure) if calibration else sure, nil


def best_of(logs: Sequence[float]) -> int:
    """Return the position of the first of the highest values."""
    highest = max(logs)
    return next(place for place, log in enumerate(logs) if log >= highest - _SAME)


# --- fitting ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One choice of the model, together with the right answer."""

    logs: tuple[float, ...]
    "Log probability of each option, then NIL."
    right: int
    "The right option; the number of options where none is right."
    is_nil: bool
    "Whether the KB lacks the entity.  Where the KB has it and no option is right, the answer NIL is still wrong."


def fit_calibration(
    judged: Sequence[Judged], *, isotonic: bool = False, fitted_on: Mapping[str, Any]
) -> ChoiceCalibration:
    """Fit the temperature by negative log likelihood, then the NIL threshold by accuracy, then the curve.

    Raises BadInput for a split other than val, and for too few mentions."""
    if fitted_on.get("split") != FITTED_ON:
        raise BadInput(
            f"cannot fit a calibration on split {fitted_on.get('split')!r}: only {FITTED_ON} is allowed",
            hint="localmel retrieve --run NAME --split val ...",
        )
    if len(judged) < _FEWEST:
        raise BadInput(f"cannot fit a calibration on {len(judged)} choices: at least {_FEWEST} are needed")
    return _fitted(judged, isotonic, fitted_on)


def calibrations_without(
    judged: Sequence[Judged], clusters: Sequence[str], *, isotonic: bool, parts: int = 5
) -> list[ChoiceCalibration]:
    """Fit, for each choice, a calibration without it, by cross-validation that keeps clusters (sentences) whole."""
    number = {name: place % parts for place, name in enumerate(sorted(set(clusters)))}
    part_of = [number[name] for name in clusters]
    fitted = {}
    for part in set(part_of):
        others = [one for one, other in zip(judged, part_of, strict=True) if other != part]
        fitted[part] = _fitted(others, isotonic, {}) if others else ChoiceCalibration()
    return [fitted[part] for part in part_of]


def _fitted(judged: Sequence[Judged], isotonic: bool, fitted_on: Mapping[str, Any]) -> ChoiceCalibration:
    fitted = ChoiceCalibration(temperature=fitted_temperature(judged), fitted_on=dict(fitted_on))
    fitted = replace(fitted, nil_from=fitted_threshold(judged, fitted.temperature))
    if not isotonic:
        return fitted
    said, true = rising_curve(*answers_of(judged, fitted))
    return replace(fitted, said=said, true=true)


def fitted_temperature(judged: Sequence[Judged]) -> float:
    """Minimise the negative log likelihood over the temperature by golden-section search: it has one minimum."""
    table = np.full((len(judged), max(len(one.logs) for one in judged)), -np.inf)
    for line, one in enumerate(judged):
        table[line, : len(one.logs)] = np.array(one.logs) - max(one.logs)
    right = table[np.arange(len(judged)), [one.right for one in judged]]

    def loss(log_temperature: float) -> float:
        scaled = table / math.exp(log_temperature)
        return float((np.log(np.exp(scaled).sum(axis=1)) - right / math.exp(log_temperature)).sum())

    low, high, ratio = math.log(_COLDEST), math.log(_HOTTEST), (math.sqrt(5) - 1) / 2
    places = [high - ratio * (high - low), low + ratio * (high - low)]
    losses = [loss(place) for place in places]
    for _ in range(_STEPS):
        if losses[0] <= losses[1]:
            high = places[1]
            places = [high - ratio * (high - low), places[0]]
            losses = [loss(places[0]), losses[0]]
        else:
            low = places[0]
            places = [places[1], low + ratio * (high - low)]
            losses = [losses[1], loss(places[1])]
    return round(math.exp((low + high) / 2), 6)


def fitted_threshold(judged: Sequence[Judged], temperature: float) -> float:
    """Return the NIL threshold with the most right answers; among equally good ones the nearest to one half.

    A threshold lies midway between two observed NIL probabilities, or at one half where that is between them."""
    nil = np.array([probabilities_of(one.logs, temperature)[-1] for one in judged])
    nil_right = np.array([one.is_nil for one in judged])
    option_right = np.array([len(one.logs) > 1 and best_of(one.logs[:-1]) == one.right for one in judged])
    order = np.argsort(nil, kind="stable")
    levels = nil[order]
    # with the threshold before position i of the order, all from i on are answered NIL
    right = np.concatenate([[0], np.cumsum(option_right[order])]) + np.concatenate(
        [np.cumsum(nil_right[order][::-1])[::-1], [0]]
    )
    below, above = np.concatenate([[0.0], levels]), np.concatenate([levels, [1.01]])
    edges = np.where((below < 0.5) & (above > 0.5), 0.5, (below + above) / 2)
    possible = np.concatenate([[True], levels[1:] > levels[:-1], [True]])
    best = np.flatnonzero(possible & (right == right[possible].max()))
    return float(edges[best[np.abs(edges[best] - 0.5).argmin()]])


def answers_of(judged: Sequence[Judged], calibration: ChoiceCalibration) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the probability of each answer under a calibration, and whether it is right; both (n,)."""
    decided = [decide(one.logs, calibration.nil_from, calibration) for one in judged]
    right = [
        one.is_nil if option is None else option == one.right
        for one, (option, _, _) in zip(judged, decided, strict=True)
    ]
    return np.array([sure for _, sure, _ in decided], np.float64), np.array(right, bool)


def rising_curve(sure: NDArray[Any], correct: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fit a rising step function by least squares (isotonic regression); returns the corners of its steps."""
    order = np.lexsort((correct, sure))
    levels, starts = np.unique(sure[order], return_index=True)
    counts = np.diff(np.append(starts, len(sure))).astype(float)
    means = np.add.reduceat(correct[order].astype(float), starts) / counts
    blocks: list[list[float]] = []  # mean, weight, lowest and highest level
    for level, mean, count in zip(levels.tolist(), means.tolist(), counts.tolist(), strict=True):
        blocks.append([mean, count, level, level])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean_after, weight_after, _, highest = blocks.pop()
            mean_before, weight_before, lowest, _ = blocks.pop()
            weight = weight_before + weight_after
            pooled = (mean_before * weight_before + mean_after * weight_after) / weight
            blocks.append([pooled, weight, lowest, highest])
    corners = dict.fromkeys((round(level, 6), round(mean, 6)) for mean, _, *ends in blocks for level in ends)
    return tuple(level for level, _ in corners), tuple(mean for _, mean in corners)
