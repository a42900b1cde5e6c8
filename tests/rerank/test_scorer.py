"""The scorer's NumPy arithmetic equals torch's; its probabilities are probabilities; damaged weights are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from localmel.errors import CorruptArtifact
from localmel.rerank.features import FEATURE_NAMES
from localmel.rerank.scorer import EvidenceScorer
from localmel.settings.shipped import shipped

FOLDER = shipped("weights/evidence-scorer")


@pytest.fixture(scope="module")
def scorer() -> EvidenceScorer:
    return EvidenceScorer(FOLDER)


def some_features(n: int, seed: int) -> Any:
    """Around what the network was fitted on, with a few far out."""
    chance = np.random.default_rng(seed)
    values = chance.standard_normal((n, len(FEATURE_NAMES))).astype(np.float32) * chance.choice([0.3, 1.0, 30.0])
    weights = load_file(FOLDER / "weights.safetensors")
    columns = [FEATURE_NAMES.index(name) for name in json.loads((FOLDER / "scorer.json").read_text())["features"]]
    values[:, columns] = values[:, columns] * weights["deviation"] + weights["mean"]
    return values.astype(np.float32)


def torch_logits(features: Any) -> tuple[Any, Any]:
    """The network of scripts/fit_evidence_scorer.py on the shipped tensors: scores, and logits with NIL last."""
    import torch
    from torch.nn import functional as F

    card = json.loads((FOLDER / "scorer.json").read_text())
    weights = {name: torch.from_numpy(value) for name, value in load_file(FOLDER / "weights.safetensors").items()}
    columns = [FEATURE_NAMES.index(name) for name in card["features"]]
    inputs = torch.from_numpy(features)[:, columns]
    inputs = ((inputs - weights["mean"]) / weights["deviation"]).clip(-6, 6)

    def member(number: int) -> tuple[Any, Any]:
        def layer(values: Any, name: str) -> Any:
            return F.linear(values, weights[f"{number}.{name}"], weights[f"{number}.{name}.bias"])

        hidden = F.gelu(layer(inputs, "candidate.0"), approximate="tanh")
        hidden = F.gelu(layer(hidden, "candidate.1"), approximate="tanh")
        scores = layer(hidden, "candidate.2")[:, 0]
        summary = torch.cat([inputs[scores.argmax()], inputs.amax(dim=0)])
        return scores, layer(F.gelu(layer(summary, "nil.0"), approximate="tanh"), "nil.1")

    members = [member(number) for number in range(card["members"])]
    scores = torch.stack([scores for scores, _ in members]).mean(dim=0)
    nil = torch.stack([nil for _, nil in members]).mean(dim=0)
    return scores.numpy(), torch.cat([scores, nil]).double() / card["temperature"]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [1, 2, 17, 80])
def test_numpy_computes_what_torch_computes(scorer: EvidenceScorer, n: int, seed: int) -> None:
    features = some_features(n, seed)
    scores, logits = torch_logits(features)
    judgement = scorer.judge(features)
    assert judgement.scores == pytest.approx(scores, abs=1e-5, rel=1e-5)
    shares = logits.softmax(dim=0).numpy()
    assert judgement.probabilities == pytest.approx(shares[:-1], abs=1e-5)
    assert judgement.nil == pytest.approx(shares[-1], abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_probabilities_and_nil_sum_to_1(scorer: EvidenceScorer, seed: int) -> None:
    judgement = scorer.judge(some_features(30, seed))
    assert (judgement.probabilities >= 0).all()
    assert judgement.probabilities.sum() + judgement.nil == pytest.approx(1, abs=1e-12)
    assert np.array_equal(np.argsort(-judgement.scores), np.argsort(-judgement.probabilities))


def test_without_a_candidate_nil_is_certain(scorer: EvidenceScorer) -> None:
    judgement = scorer.judge(np.zeros((0, len(FEATURE_NAMES)), np.float32))
    assert judgement.nil == 1.0
    assert len(judgement.probabilities) == len(judgement.scores) == 0


def test_numbers_far_out_give_probabilities_all_the_same(scorer: EvidenceScorer) -> None:
    for size in (1e6, -1e6, 1e30):
        judgement = scorer.judge(np.full((3, len(FEATURE_NAMES)), size, np.float32))
        assert np.isfinite(judgement.probabilities).all()
        assert judgement.probabilities.sum() + judgement.nil == pytest.approx(1)


def test_the_order_of_the_candidates_does_not_matter(scorer: EvidenceScorer) -> None:
    features = some_features(20, 1)
    order = np.random.default_rng(0).permutation(20)
    plain, mixed = scorer.judge(features), scorer.judge(features[order])
    assert mixed.probabilities == pytest.approx(plain.probabilities[order], abs=1e-6)
    assert mixed.nil == pytest.approx(plain.nil, abs=1e-6)


# --- damaged -----------------------------------------------------------------------------------------------------


def change_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "scorer.json").read_text())
    (folder / "scorer.json").write_text(json.dumps({**card, **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    weights = load_file(folder / "weights.safetensors")
    change(weights)
    save_file(weights, folder / "weights.safetensors")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "no card": lambda folder: (folder / "scorer.json").unlink(),
    "weights cut off": lambda folder: (folder / "weights.safetensors").write_bytes(
        (folder / "weights.safetensors").read_bytes()[:-1]
    ),
    "weights are zeros": lambda folder: (folder / "weights.safetensors").write_bytes(bytes(5000)),
    "empty weights": lambda folder: (folder / "weights.safetensors").write_bytes(b""),
    "card is no JSON": lambda folder: (folder / "scorer.json").write_text("{"),
    "card is a list": lambda folder: (folder / "scorer.json").write_text("[1]"),
    "card is not UTF-8": lambda folder: (folder / "scorer.json").write_bytes(b"\xff\xfe"),
    "card without features": lambda folder: (folder / "scorer.json").write_text('{"version": 2, "temperature": 1}'),
    "features are a number": lambda folder: change_card(folder, features=3),
    "newer version": lambda folder: change_card(folder, version=99),
    "unknown feature": lambda folder: change_card(folder, features=[*FEATURE_NAMES, "luck"]),
    "a feature less": lambda folder: change_card(folder, features=list(FEATURE_NAMES[1:])),
    "temperature is a word": lambda folder: change_card(folder, temperature="warm"),
    "temperature is 0": lambda folder: change_card(folder, temperature=0),
    "temperature is a list": lambda folder: change_card(folder, temperature=[1]),
    "no members": lambda folder: change_card(folder, members=0),
    "a member too many": lambda folder: change_card(folder, members=99),
    "members are a word": lambda folder: change_card(folder, members="three"),
    "a tensor is missing": lambda folder: change_weights(folder, lambda weights: weights.pop("0.nil.1.bias")),
    "a tensor too many": lambda folder: change_weights(
        folder, lambda weights: weights.update(x=np.zeros(1, np.float32))
    ),
    "a tensor is turned": lambda folder: change_weights(
        folder, lambda weights: weights.update({"0.candidate.0": np.ascontiguousarray(weights["0.candidate.0"].T)})
    ),
    "a number is none": lambda folder: change_weights(folder, lambda weights: weights["0.candidate.1"].fill(np.nan)),
    "a deviation is 0": lambda folder: change_weights(folder, lambda weights: weights["deviation"].fill(0)),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_a_damaged_scorer_is_refused_when_it_is_loaded(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "scorer"
    shutil.copytree(FOLDER, folder)
    EvidenceScorer(folder)
    DAMAGE[damage](folder)
    with pytest.raises(CorruptArtifact) as caught:
        EvidenceScorer(folder)
    assert str(folder) in caught.value.fact
    assert caught.value.exit_code == 6
