"""Ranks are counted as they are defined, in whatever pieces and by however many processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.errors import BadInput
from localmel.matchers.kgmel import ranking
from localmel.matchers.kgmel.inputs import NoTriples, fusion_inputs, packed_triples, rows_of
from localmel.matchers.kgmel.network import FusionNetwork
from localmel.matchers.kgmel.ranking import (
    embed_entities,
    embed_mentions,
    gold_ranks,
    nearest_entities,
    unit_rows,
)
from localmel.matchers.train.learner import Ranks
from tests.matchers.planted import FUSION, WIDTH, World, planted


@pytest.fixture(scope="module")
def world() -> World:
    return planted("triple", n_train=40, n_validation=40)


@pytest.fixture(scope="module")
def network() -> FusionNetwork:
    torch.manual_seed(0)
    return FusionNetwork(FUSION)


class OneOf:
    """A process of several whose sums are made afterwards, by the test."""

    def __init__(self, number: int, of: int) -> None:
        self.number, self.of = number, of

    def sum(self, values: Tensor) -> Tensor:
        return values


def by_definition(network: FusionNetwork, world: World) -> tuple[Tensor, list[float]]:
    """Every entity and mention alone through `forward`, every rank by comparing with every entity."""
    device, none = torch.device("cpu"), np.zeros(1, bool)
    network.eval()
    with torch.no_grad():
        entities = []
        for position in range(len(world.entities.text)):
            row = np.array([position])
            entities.append(network(**fusion_inputs(world.entities, row, world.entities.triples.of(row), none, device)))
        vectors = F.normalize(torch.cat(entities), dim=1)
        ranks = []
        for number, gold in enumerate(world.mentions.gold.tolist()):
            row = np.array([number])
            inputs = fusion_inputs(world.mentions, row, rows_of(world.mentions.triples, row), none, device)
            scores = (vectors @ F.normalize(network(**inputs), dim=1)[0]).tolist()
            above = sum(score > scores[gold] + 1e-6 for score in scores)
            level = sum(abs(score - scores[gold]) <= 1e-6 for score in scores) - 1
            ranks.append(1 + above + level / 2)
    return vectors, ranks


def test_vectors_and_ranks_are_those_of_the_definition(world: World, network: FusionNetwork) -> None:
    vectors, ranks = by_definition(network, world)
    made = embed_entities(network, world.entities)
    assert torch.allclose(made, vectors, atol=1e-5)
    assert gold_ranks(network, world.mentions, made).tolist() == pytest.approx(ranks)


def test_pieces_and_processes_change_nothing(
    world: World, network: FusionNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    entities = embed_entities(network, world.entities)
    ranks = gold_ranks(network, world.mentions, entities)
    near = nearest_entities(network, world.mentions, entities, 5)
    monkeypatch.setattr("localmel.matchers.kgmel.kb_triples._ROWS_AT_ONCE", 7)
    monkeypatch.setattr(ranking, "_ROWS_AT_ONCE", 6)
    monkeypatch.setattr(ranking, "_MENTIONS_AT_ONCE", 4)
    shares = [OneOf(number, 3) for number in range(3)]
    shared: Any = sum(embed_entities(network, world.entities, share) for share in shares)
    assert torch.allclose(shared, entities, atol=1e-6)
    counted: Any = sum(gold_ranks(network, world.mentions, entities, share) for share in shares)
    assert torch.equal(counted, ranks)
    found = sum(nearest_entities(network, world.mentions, entities, 5, share) for share in shares)
    np.testing.assert_array_equal(found, near)


def test_ties_count_half_and_a_mention_without_gold_has_no_rank(world: World, network: FusionNetwork) -> None:
    entities = embed_entities(network, world.entities)
    entities = entities[:1].repeat(5, 1)
    gold = np.array([0, 4, -1, *[-1] * 37])
    assert gold_ranks(network, replace(world.mentions, gold=gold), entities).tolist() == [3.0, 3.0, *[0.0] * 38]


def test_ranks_are_summed_up() -> None:
    ranks = Ranks.of(torch.tensor([1.0, 2.0, 16.0, 17.0], dtype=torch.float64))
    assert ranks == Ranks(n=4, hits_at_1=0.25, hits_at_16=0.75, mrr=(1 + 1 / 2 + 1 / 16 + 1 / 17) / 4)
    assert Ranks.of(torch.zeros(0)) is None


def test_a_row_that_is_not_finite_or_zero_is_named() -> None:
    for wrong in (0.0, float("nan"), float("inf")):
        vectors = torch.ones(3, 2)
        vectors[1] = wrong
        with pytest.raises(BadInput, match="entity 12 is zero or not finite"):
            unit_rows(vectors, "entity", np.array([11, 12, 13]))


def test_no_mentions_have_no_vectors(world: World, network: FusionNetwork) -> None:
    assert embed_mentions(network, world.mentions, np.zeros(0, np.int64)).shape == (0, FUSION.width)


def test_rows_of_triples_are_the_triples_of_these_rows(world: World) -> None:
    triples = world.mentions.triples
    rows = np.array([5, 5, 0])
    chosen = rows_of(triples, rows)
    assert np.diff(chosen.starts).tolist() == [1, 1, 1]
    tails = chosen.tails[chosen.pair_tail[chosen.triples]]
    np.testing.assert_array_equal(tails, triples.tails[rows])


def test_arrays_that_may_not_be_written_become_tensors_without_a_warning(world: World) -> None:
    triples = rows_of(world.mentions.triples, np.arange(3))
    triples.tails.flags.writeable = False
    assert packed_triples(triples).tails.shape == (3, WIDTH)


def test_withheld_triples_are_withheld_everywhere(world: World) -> None:
    kept = world.entities.triples
    withheld = NoTriples(kept._packed, kept._vectors)
    assert withheld.counts().tolist() == [0] * len(world.entities.text)
    assert withheld.of(np.arange(4)).starts.tolist() == [0] * 5
