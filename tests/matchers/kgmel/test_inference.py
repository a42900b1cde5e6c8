"""The encoder in NumPy beside the network in torch, and its refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from localmel.errors import BadInput, CorruptArtifact
from localmel.matchers.kgmel.inference import FusedEncoder
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.matchers.kgmel.network import FusionNetwork, FusionSettings, PackedTriples


def triples_of(lengths: list[int], width: int, chance: np.random.Generator) -> TripleArrays:
    n_tails, n_relations, n_pairs, n = 7, 3, 9, sum(lengths)
    return TripleArrays(
        tails=chance.standard_normal((n_tails, width)).astype(np.float32),
        relations=chance.standard_normal((n_relations, width)).astype(np.float32),
        pair_tail=chance.integers(n_tails, size=n_pairs),
        pair_relation=chance.integers(n_relations, size=n_pairs),
        triples=chance.integers(n_pairs, size=n),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def network_of(settings: FusionSettings) -> FusionNetwork:
    """Random weights; also those that start at zero."""
    torch.manual_seed(3)
    network = FusionNetwork(settings).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(std=0.3)
    return network


def encoder_of(network: FusionNetwork) -> FusedEncoder:
    return FusedEncoder({name: value.numpy() for name, value in network.state_dict().items()}, network.settings)


def by_network(network: FusionNetwork, triples: TripleArrays, **inputs: NDArray[Any]) -> NDArray[Any]:
    packed = PackedTriples(**{name: torch.from_numpy(value) for name, value in triples.named()})
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        return torch.nn.functional.normalize(network(triples=packed, **tensors), dim=1).numpy()


@pytest.mark.parametrize("lengths", [[3, 0, 12, 1, 0], [0, 0], [4], []], ids=["mixed", "all empty", "one row", "none"])
@pytest.mark.parametrize("image_width", [0, 5])
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("kept", [1, 5, 50])
def test_it_gives_the_vectors_of_the_network(lengths: list[int], image_width: int, gate: bool, kept: int) -> None:
    chance = np.random.default_rng(kept)
    network = network_of(
        FusionSettings(
            text_width=6,
            triple_width=8,
            image_width=image_width,
            width=10,
            gate=gate,
            kept_triples=kept,
            temperature=0.4,
        )
    )
    triples, b = triples_of(lengths, 8, chance), len(lengths)
    text = chance.standard_normal((b, 6)).astype(np.float32)
    choices: list[dict[str, NDArray[Any]]] = [{"text": text}]
    if image_width:
        image = chance.standard_normal((b, image_width)).astype(np.float32)
        choices += [{"text": text, "image": image}, {"text": text, "image": image, "has_image": chance.random(b) < 0.5}]
    for inputs in choices:
        found = encoder_of(network).fuse(triples=triples, **inputs)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, by_network(network, triples, **inputs), atol=1e-5)


def test_zero_vectors_and_large_scores_give_no_nan() -> None:
    settings = FusionSettings(text_width=4, triple_width=4, width=4, temperature=1e-4)
    triples = triples_of([5, 0], 4, np.random.default_rng(0))
    for scale in (0.0, 1e4):
        vectors = encoder_of(network_of(settings)).fuse(text=np.full((2, 4), scale, np.float32), triples=triples)
        assert np.isfinite(vectors).all()


def test_wrong_inputs_are_refused_with_both_shapes() -> None:
    settings = FusionSettings(text_width=4, triple_width=6, width=5)
    encoder = encoder_of(network_of(settings))
    triples = triples_of([2, 1], 6, np.random.default_rng(0))
    text = np.zeros((2, 4), np.float32)
    with pytest.raises(BadInput, match=r"\(2, 3\).*\(2, 4\)"):
        encoder.fuse(text=text[:, :3], triples=triples)
    with pytest.raises(BadInput, match="no image space"):
        encoder.fuse(text=text, image=text, triples=triples)
    text[1, 0] = np.nan
    with pytest.raises(BadInput, match="no number, in row 1"):
        encoder.fuse(text=text, triples=triples)


def test_damaged_weights_are_refused() -> None:
    settings = FusionSettings(text_width=4, triple_width=6, width=5)
    good = {name: value.numpy() for name, value in network_of(settings).state_dict().items()}
    for damage, reason in (
        ({"mix.bias": None}, "lacks mix.bias"),
        ({"more": good["mix.bias"]}, "not known: more"),
        ({"mix.bias": good["mix.bias"][:2]}, r"\(2,\).*\(5,\)"),
        ({"mix.bias": good["mix.bias"] * np.nan}, "no numbers"),
    ):
        weights = {name: value for name, value in {**good, **damage}.items() if value is not None}
        with pytest.raises(CorruptArtifact, match=reason):
            FusedEncoder(weights, settings)


def test_it_is_imported_without_torch() -> None:
    code = "import sys, localmel.matchers.kgmel.inference; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
