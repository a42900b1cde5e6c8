"""The evidence scorer: features of the candidates -> probabilities over the candidates and NIL.

In: the matrix of `features`.  Out: scores and probabilities.  A few small networks that differ only in their seed score
each candidate and, once per list, NIL; one softmax over the mean scores, at a temperature fitted on held-out mentions,
turns them into probabilities.  scripts/fit_evidence_scorer.py trains it; here it runs in NumPy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import CorruptArtifact, shell_line
from localmel.rerank.features import FEATURE_NAMES
from localmel.store.artifacts import sha256_of

VERSION = 2
CLIP = 6.0
"Standardised features are clipped here, so that a KB unlike the training KB cannot produce extreme scores."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement:
    """The scorer's opinion of one mention's n candidates."""

    scores: NDArray[Any]  # (n,) before the softmax; higher is better
    probabilities: NDArray[Any]  # (n,)
    nil: float
    "Probability that none of them is right."


def scorer_sha256(folder: Path) -> list[str]:
    """Hash the two files of a scorer.  Raises CorruptArtifact if the folder holds none."""
    try:
        return [sha256_of(folder / name) for name in ("scorer.json", "weights.safetensors")]
    except OSError as error:
        raise CorruptArtifact(f"{folder} holds no evidence scorer ({error})", hint=shell_line("ls", folder)) from None


class EvidenceScorer:
    """A trained scorer, loaded from a folder with weights.safetensors and scorer.json."""

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            card = json.loads((folder / "scorer.json").read_text(encoding="utf-8"))
            self._weights = load_file(folder / "weights.safetensors")
            names, version, self._temperature = list(card["features"]), card["version"], float(card["temperature"])
            members = int(card["members"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CorruptArtifact(f"cannot load an evidence scorer from {folder}: {error}") from None
        unknown = [name for name in names if name not in FEATURE_NAMES]
        if version != VERSION or unknown:
            raise CorruptArtifact(
                f"cannot use the evidence scorer {folder}: it was fitted for other features (version {version}, "
                f"unknown {unknown})"
            )
        self._columns = [FEATURE_NAMES.index(name) for name in names]
        _check(self._weights, len(names), members, self._temperature, folder)
        self._members = [_with_prefix(self._weights, f"{member}.") for member in range(members)]

    def judge(self, features: NDArray[Any]) -> Judgement:
        """Score the candidates of one mention.  features: (n, len(FEATURES)).  Without candidates NIL is certain."""
        if not len(features):
            return Judgement(scores=np.zeros(0), probabilities=np.zeros(0), nil=1.0)
        inputs = (features[:, self._columns] - self._weights["mean"]) / self._weights["deviation"]
        inputs = np.clip(inputs, -CLIP, CLIP)
        scored = [_scores(weights, inputs) for weights in self._members]
        scores = np.mean([scores for scores, _ in scored], axis=0)
        nil = float(np.mean([nil for _, nil in scored]))
        logits = np.append(scores, nil).astype(np.float64) / self._temperature
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        return Judgement(scores=scores, probabilities=shares[:-1], nil=float(shares[-1]))


def _scores(weights: dict[str, NDArray[Any]], inputs: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return one network's score of each candidate, shape (n,), and of NIL.  inputs: (n, features)."""
    hidden = _gelu(inputs @ weights["candidate.0"].T + weights["candidate.0.bias"])
    hidden = _gelu(hidden @ weights["candidate.1"].T + weights["candidate.1.bias"])
    scores = (hidden @ weights["candidate.2"].T + weights["candidate.2.bias"])[:, 0]
    summary = np.concatenate([inputs[scores.argmax()], inputs.max(axis=0)])
    hidden = _gelu(weights["nil.0"] @ summary + weights["nil.0.bias"])
    return scores, float((weights["nil.1"] @ hidden + weights["nil.1.bias"])[0])


def _with_prefix(weights: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _check(weights: dict[str, NDArray[Any]], n_features: int, members: int, temperature: float, folder: Path) -> None:
    """Raise CorruptArtifact unless exactly the expected tensors are there: `x` is (out, in) and `x.bias` (out,)."""
    expected: dict[str, tuple[int, ...]] = {"mean": (n_features,), "deviation": (n_features,)}
    for member in range(members):
        widths = {"candidate": [n_features], "nil": [2 * n_features]}
        for part, layers in (("candidate", 3), ("nil", 2)):
            for number in range(layers):
                name = f"{member}.{part}.{number}"
                width = 1 if number == layers - 1 else np.size(weights.get(f"{name}.bias", ()))
                expected[name], expected[f"{name}.bias"] = (width, widths[part][-1]), (width,)
                widths[part].append(width)
    found = {name: value.shape for name, value in weights.items()}
    if found != expected or members < 1:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise CorruptArtifact(
            f"cannot load an evidence scorer from {folder}: missing, extra or misshapen tensors: {', '.join(wrong)}"
        )
    usable = all(np.isfinite(value).all() for value in weights.values()) and (weights["deviation"] > 0).all()
    if not usable or not 0 < temperature < float("inf"):
        raise CorruptArtifact(
            f"cannot load an evidence scorer from {folder}: a tensor is not finite, a deviation is not positive, or "
            f"the temperature is {temperature}"
        )


def _gelu(values: NDArray[Any]) -> NDArray[Any]:
    """Apply GELU in its tanh approximation, as in training."""
    cubed: NDArray[Any] = values * values * values
    return 0.5 * values * (1.0 + np.tanh(0.7978845608 * (values + 0.044715 * cubed)))
