"""The fusion network beside arrays that the published code gave: values, losses, gradients, training, ranks.

The file's `sd.*` are no start: they are the weights after the five training steps (equal to `sd_after5.*`; the arrays
were saved by reference).  The start is the default initialisation of torch under seed 7, in the published order of
layers; the first test shows it by the file's own outputs and gradients."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bench.published import PaddedBatch, PublishedRetriever, published_loss
from localmel.matchers.kgmel.losses import contrastive_losses
from localmel.matchers.kgmel.network import _PUBLISHED, FusionNetwork, PackedTriples, _ends, from_published
from localmel.matchers.train.settings import LossSettings

FILE = Path(os.environ.get("LOCALMEL_SHARED", Path(__file__).parents[4] / "shared")) / "parity" / "kgmel_d64.npz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"no arrays of the published code at {FILE}")
WIDTH, SEED, CLOSE = 64, 7, 1e-5
SIDES = {"mention": "m", "entity": "e"}
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    with np.load(FILE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def start() -> PublishedRetriever:
    torch.manual_seed(SEED)
    return PublishedRetriever(WIDTH).eval()


@pytest.fixture
def network(start: PublishedRetriever) -> FusionNetwork:
    return from_published(start.state_dict()).eval()


def padded(arrays: Arrays, side: str, mask: str) -> PaddedBatch:
    of = {name: torch.from_numpy(arrays[f"in.{side}.{name}"]) for name in ("head", "img", "rel", "tail", mask)}
    return PaddedBatch(
        text=of["head"], image=of["img"], relations=of["rel"], tails=of["tail"], mask=of[mask].bool()
    )  # fmt: skip


def packed(batch: PaddedBatch) -> dict[str, Any]:
    """The same batch without its padding."""
    n = int(batch.mask.sum())
    each = torch.arange(n)
    triples = PackedTriples(
        tails=batch.tails[batch.mask],
        relations=batch.relations[batch.mask],
        pair_tail=each,
        pair_relation=each,
        triples=each,
        starts=F.pad(batch.mask.sum(dim=1).cumsum(0), (1, 0)),
    )
    return {"text": batch.text, "image": batch.image, "triples": triples}


def gradients_by_published_name(network: FusionNetwork) -> dict[str, Tensor]:
    """Gradients under the published names: fc1 is one matrix over [tail ; relation] there."""
    given = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    found = {"reltail_feature_combine.fc1.weight": torch.cat([given["tail_in.weight"], given["relation_in.weight"]], 1)}
    for ours, theirs in _PUBLISHED.items():
        for end in _ends(ours):
            found[theirs + end] = given[ours + end]
    return found


def total_loss(network: FusionNetwork, arrays: Arrays, mask: str) -> Any:
    mentions, entities = (F.normalize(network(**packed(padded(arrays, side, mask))), dim=1) for side in SIDES.values())
    settings = LossSettings(published_negatives=True)
    return contrastive_losses(mentions, entities, torch.arange(len(mentions)), settings)


@pytest.mark.parametrize("mask", ["keep", "ref_mask"])
@pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
def test_the_plain_form_gives_the_published_values_from_seed_7(
    arrays: Arrays, start: PublishedRetriever, side: str, mask: str
) -> None:
    with torch.no_grad():
        vectors = start(padded(arrays, side, mask)).numpy()
    np.testing.assert_allclose(vectors, arrays[f"out.{mask}.{side}"], atol=CLOSE)


def test_the_stored_weights_are_those_after_training_and_not_the_start(
    arrays: Arrays, start: PublishedRetriever
) -> None:
    stored = {name: arrays[f"sd.{name}"] for name in start.state_dict()}
    assert all((stored[name] == arrays[f"sd_after5.{name}"]).all() for name in stored)
    assert max(abs(stored[name] - value.numpy()).max() for name, value in start.state_dict().items()) > 0.004


@pytest.mark.parametrize("mask", ["keep", "ref_mask"])
@pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
def test_the_factored_form_gives_the_published_values(
    arrays: Arrays, network: FusionNetwork, side: str, mask: str
) -> None:
    with torch.no_grad():
        vectors = network(**packed(padded(arrays, side, mask))).numpy()
    np.testing.assert_allclose(vectors, arrays[f"out.{mask}.{side}"], atol=CLOSE)


@pytest.mark.parametrize("mask", ["keep", "ref_mask"])
def test_losses_are_the_published_ones(arrays: Arrays, network: FusionNetwork, mask: str) -> None:
    losses = total_loss(network, arrays, mask)
    for name, value in (
        ("me", losses.mention_to_entity), ("mm", losses.between_mentions),
        ("ee", losses.between_entities), ("total", losses.total),
    ):  # fmt: skip
        assert value.item() == pytest.approx(float(arrays[f"out.{mask}.loss_{name}"]), abs=CLOSE), name


@pytest.mark.parametrize("mask", ["keep", "ref_mask"])
def test_gradients_are_the_published_ones(arrays: Arrays, network: FusionNetwork, mask: str) -> None:
    total_loss(network, arrays, mask).total.backward()
    found = gradients_by_published_name(network)
    assert len(found) == 23
    assert (
        abs(arrays[f"grad.{mask}.reltail_key.bias"]).max() < CLOSE
    )  # the one we do without: it cancels in the softmax
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), arrays[f"grad.{mask}.{name}"], atol=CLOSE, err_msg=name)


def test_five_training_steps_go_the_published_way(arrays: Arrays, network: FusionNetwork) -> None:
    learnt = [value for name, value in network.named_parameters() if not name.startswith("no_")]
    optimiser = torch.optim.AdamW(learnt, lr=1e-3, weight_decay=1e-5)
    for expected in arrays["train.curve"]:
        losses = total_loss(network, arrays, "ref_mask")
        assert losses.total.item() == pytest.approx(expected, abs=CLOSE)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    after = from_published(
        {name[10:]: torch.from_numpy(v) for name, v in arrays.items() if name.startswith("sd_after5.")}
    )
    for (name, value), expected_value in zip(network.named_parameters(), after.parameters(), strict=True):
        np.testing.assert_allclose(value.detach().numpy(), expected_value.detach().numpy(), atol=CLOSE, err_msg=name)


def test_ranks_in_a_small_kb_are_the_published_ones(arrays: Arrays) -> None:
    """60 entities, some without triples or image; padded to the longest row as published."""
    weights = {name[10:]: torch.from_numpy(v) for name, v in arrays.items() if name.startswith("sd_after5.")}
    network = from_published(weights).eval()
    world = json.loads(str(arrays["tiny.json"]))
    tables = {name: torch.from_numpy(arrays[f"tiny.M_{name}"]) for name in ("node", "rel", "img")}

    def side(name: str, keys: list[str]) -> Tensor:
        graph = world["G" if name == "entity" else "Gm"]
        columns = [graph[f"G_{name}_{part}"] for part in ("head", "img", "relation", "tail")]
        longest = max(len(columns[3][key]) for key in keys)
        zero = torch.zeros(WIDTH)
        rows = [[column[key] for column in columns] for key in keys]
        image = [zero if place is None else tables["img"][place] for _, place, _, _ in rows]
        relations = [F.pad(tables["rel"][places], (0, 0, 0, longest - len(places))) for _, _, places, _ in rows]
        tails = [F.pad(tables["node"][places], (0, 0, 0, longest - len(places))) for _, _, _, places in rows]
        batch = PaddedBatch(
            text=tables["node"][[head for head, *_ in rows]],
            image=torch.stack(image),
            relations=torch.stack(relations),
            tails=torch.stack(tails),
            mask=torch.ones(len(keys), longest, dtype=torch.bool),
        )
        with torch.no_grad():
            return F.normalize(network(**packed(batch)), dim=1)

    mentions, entities = side("mention", world["mk"]), side("entity", world["q"])
    scores = mentions @ entities.T
    gold = torch.tensor([world["q"].index(key.split("-")[1]) for key in world["mk"]])
    ranks = 1 + (scores > scores.gather(1, gold[:, None])).sum(dim=1).numpy()
    np.testing.assert_array_equal(ranks, arrays["tiny.ranks"])
    assert (1 / ranks).mean() == pytest.approx(float(arrays["tiny.mrr"]), abs=CLOSE)
    # The candidates were made in batches of which the last held one mention: its padding, so its vector, is another.
    alone = side("mention", world["mk"][24:])
    scores = torch.cat([side("mention", world["mk"][:24]), alone]) @ entities.T
    best = [[world["q"][place] for place in row] for row in scores.topk(16).indices.tolist()]
    assert best == json.loads(str(arrays["tiny.candidates"]))


def test_the_plain_loss_is_the_published_one(arrays: Arrays) -> None:
    mentions, entities = (F.normalize(torch.from_numpy(arrays[f"out.keep.{side}"]), dim=1) for side in SIDES.values())
    assert published_loss(mentions, entities).item() == pytest.approx(float(arrays["out.keep.loss_total"]), abs=CLOSE)
