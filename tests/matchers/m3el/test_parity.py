"""M3EL's published form beside arrays that the published code gave: parts, scores, losses, gradients, evaluation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from localmel.errors import CorruptArtifact
from localmel.matchers.m3el.losses import M3elLosses, M3elLossSettings, m3el_losses
from localmel.matchers.m3el.network import M3el
from localmel.matchers.m3el.published import from_published, published_names
from localmel.matchers.protocol import Features

FILE = Path(os.environ.get("LOCALMEL_SHARED", Path(__file__).parents[4] / "shared")) / "parity" / "m3el.npz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"no arrays of the published code at {FILE}")
CLOSE = 1e-4
PARTS = {"uni": ("text", "image", "cross.0"), "bi": ("text", "image", "cross.0", "cross.1")}
"Our names of the published parts, in their order, by branch."
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    with np.load(FILE, allow_pickle=False) as file:
        return dict(file)


def weights(arrays: Arrays) -> dict[str, Tensor]:
    return {name[3:]: torch.from_numpy(np.array(value)) for name, value in arrays.items() if name.startswith("sd.")}


def features(arrays: Arrays, side: str) -> Features:
    """The file holds no marks: all 40 words and 50 patches of each row are looked at, as published."""
    named = {name: torch.from_numpy(arrays[f"in.{side}.{name}"]) for name in ("text", "text_tok", "img", "img_tok")}
    words, patches = named["text_tok"], named["img_tok"]
    return Features(
        text=named["text"], words=words, is_word=torch.zeros(words.shape[:2], dtype=torch.bool),
        image=named["img"], patches=patches, is_patch=torch.zeros(patches.shape[:2], dtype=torch.bool),
    )  # fmt: skip


def parts_of(network: M3el, arrays: Arrays) -> dict[str, Tensor]:
    return network.parts(network.mentions(features(arrays, "men")), network.entities(features(arrays, "ent")))


def losses_of(network: M3el, arrays: Arrays) -> M3elLosses:
    wholes = [network.whole_vectors(features(arrays, side)) for side in ("men", "ent")]
    settings = M3elLossSettings(published=True)
    return m3el_losses(parts_of(network, arrays), *wholes, torch.arange(6), settings)


@pytest.fixture(params=["uni", "bi"])
def branch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def network(arrays: Arrays, branch: str) -> M3el:
    return from_published(weights(arrays), both_ways=branch == "bi").train()


def test_each_part_of_the_score_is_the_published_one(arrays: Arrays, network: M3el, branch: str) -> None:
    parts = parts_of(network, arrays)
    assert sorted(parts) == sorted(PARTS[branch])
    for number, name in enumerate(PARTS[branch]):
        expected = arrays[f"out.{branch}.part{number}"]
        np.testing.assert_allclose(parts[name].detach().numpy(), expected, atol=CLOSE, err_msg=name)


def test_the_score_is_the_published_one(arrays: Arrays, network: M3el, branch: str) -> None:
    scores = network.scores(network.mentions(features(arrays, "men")), network.entities(features(arrays, "ent")))
    np.testing.assert_allclose(scores.detach().numpy(), arrays[f"out.{branch}.score"], atol=CLOSE)


def test_losses_are_the_published_ones(arrays: Arrays, network: M3el, branch: str) -> None:
    losses = losses_of(network, arrays)
    assert losses.contrast.item() == pytest.approx(float(arrays[f"out.{branch}.cl"]), abs=CLOSE)
    assert losses.total.item() == pytest.approx(float(arrays[f"out.{branch}.loss"]), abs=CLOSE)


def test_every_gradient_is_the_published_one(arrays: Arrays, network: M3el, branch: str) -> None:
    losses_of(network, arrays).total.backward()
    ours = {theirs: name for name, theirs in published_names().items()}
    found = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    expected = {name.removeprefix(f"grad.{branch}."): value for name, value in arrays.items()
                if name.startswith(f"grad.{branch}.")}  # fmt: skip
    stand_ins = {name for name in found if name.startswith("no_")}  # ours alone, and without any effect here
    assert {ours[name] for name in expected} == set(found) - stand_ins
    for name, value in expected.items():
        np.testing.assert_allclose(found[ours[name]].numpy(), value, atol=CLOSE, err_msg=name)
    assert all(not found[name].any() for name in stand_ins)


def test_evaluation_takes_the_first_branch_whichever_was_trained(arrays: Arrays, network: M3el) -> None:
    """The published defect: on one of three data sets the other branch is trained."""
    network.eval()
    scores = network.scores(network.mentions(features(arrays, "men")), network.entities(features(arrays, "ent")))
    np.testing.assert_allclose(scores.detach().numpy(), arrays["out.eval.score"], atol=CLOSE)


def test_a_checkpoint_that_lacks_a_tensor_or_has_one_more_is_refused(arrays: Arrays) -> None:
    whole = weights(arrays)
    with pytest.raises(CorruptArtifact, match=r"timm\.fc_key\.bias"):
        from_published({name: value for name, value in whole.items() if name != "timm.fc_key.bias"})
    with pytest.raises(CorruptArtifact, match="not known: surprise"):
        from_published({**whole, "surprise": torch.zeros(1)})
    with pytest.raises(CorruptArtifact, match=r"not known: cmm\.multi_head_module\.weight"):
        from_published({**whole, "cmm.multi_head_module.weight": torch.full((5, 1), 2.0)})
    with pytest.raises(CorruptArtifact, match=r"no numbers: cross\.one\.norm\.weight"):
        from_published({**whole, "cmm.gate_layer_norm.weight": torch.full((96,), torch.nan)})
    with pytest.raises(CorruptArtifact, match=r"other shapes .* patches\.key\.weight"):
        from_published({**whole, "iimm.fc_key.weight": torch.zeros(96, 95)})
    with pytest.raises(CorruptArtifact, match="a vector where"):
        from_published({**whole, "timm.fc_cls.weight": torch.zeros(96)})
