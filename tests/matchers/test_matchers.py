"""What every matcher must hold, whichever it is: one test over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.crowds import SETTINGS, crowd, given
from bench.fusion_matcher import FusionFeatures, FusionMatcher
from localmel.errors import BadInput
from localmel.index import ExactSettings, build_index
from localmel.matchers.dwe.features import DweTable, several
from localmel.matchers.dwe.network import Dwe
from localmel.matchers.kgmel.inputs import fusion_inputs, rows_of
from localmel.matchers.kgmel.network import FusionNetwork
from localmel.matchers.m3el.network import M3el
from localmel.matchers.prepared import lifted_entities
from localmel.matchers.protocol import EntityFeatures, Matcher
from localmel.matchers.two_step import HeldSides, TwoStepSearch, search_all
from tests.matchers.dwe.test_network import ENTITY, MENTION
from tests.matchers.dwe.test_network import SETTINGS as DWE
from tests.matchers.planted import FUSION, planted

N_MENTIONS, N_ENTITIES = 7, 30


@dataclass(frozen=True, kw_only=True)
class Case:
    """A matcher, and what it is to match."""

    matcher: Matcher[Any]
    mentions: Any
    entities: EntityFeatures[Any]
    poisoned: Callable[[], Any]
    "Mentions of which the third holds a value that is no number."


def m3el() -> Case:
    torch.manual_seed(0)
    drawn = crowd(N_ENTITIES, N_MENTIONS, clustered=False)
    mentions = given(drawn.mentions)

    def poisoned() -> Any:
        words = mentions.words.clone()
        words[2] = torch.inf
        return replace(mentions, words=words)

    return Case(matcher=M3el(SETTINGS).eval(), mentions=mentions, entities=drawn.entities, poisoned=poisoned)


def kgmel() -> Case:
    torch.manual_seed(0)
    world = planted("triple")
    rows = np.arange(N_MENTIONS)
    triples = rows_of(world.mentions.triples, rows)
    mentions = fusion_inputs(world.mentions, rows, triples, np.zeros(N_MENTIONS, bool), torch.device("cpu"))

    def poisoned() -> Any:
        text = mentions["text"].clone()
        text[2] = torch.nan
        return {**mentions, "text": text}

    return Case(
        matcher=FusionMatcher(FusionNetwork(FUSION).eval()),
        mentions=mentions,
        entities=FusionFeatures(world.entities),
        poisoned=poisoned,
    )


def dwe() -> Case:
    torch.manual_seed(0)
    chance = np.random.default_rng(0)

    def table(n: int, parts: tuple[str, ...]) -> DweTable:
        lengths = {name: chance.integers(0, 4, n) for name in parts}
        widths = {name: DWE.width_of(name) for name in parts}
        rows = {name: [chance.normal(size=(length, widths[name])) for length in lengths[name]] for name in parts}
        return DweTable(n=n, parts={name: several(rows[name], widths[name]) for name in parts})

    mentions = table(N_MENTIONS, MENTION).of(np.arange(N_MENTIONS))

    def poisoned() -> Any:
        text = mentions.parts["text"]
        values = text.values.clone()
        values[2] = torch.nan
        return replace(mentions, parts={**mentions.parts, "text": replace(text, values=values)})

    return Case(matcher=Dwe(DWE).eval(), mentions=mentions, entities=table(N_ENTITIES, ENTITY), poisoned=poisoned)


@pytest.fixture(params=[m3el, kgmel, dwe], ids=["m3el", "kgmel", "dwe"])
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param()
    return made


def test_a_side_has_a_vector_of_the_matchers_width_for_each_row(case: Case) -> None:
    entities = case.matcher.entities(case.entities.of(np.arange(5)))
    assert entities.vectors.shape == (5, case.matcher.width)
    assert case.matcher.mentions(case.mentions).vectors.shape == (N_MENTIONS, case.matcher.width)
    assert len(entities) == 5


@torch.no_grad()
def test_an_entity_is_the_same_in_any_company(case: Case) -> None:
    together = case.matcher.entities(case.entities.of(np.arange(9)))
    alone = case.matcher.entities(case.entities.of(np.array([4])))
    torch.testing.assert_close(together.vectors[4], alone.vectors[0], atol=1e-5, rtol=1e-5)
    mentions = case.matcher.mentions(case.mentions)
    torch.testing.assert_close(
        case.matcher.scores(mentions, together)[:, 4], case.matcher.scores(mentions, alone)[:, 0], atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_a_candidate_gets_the_score_it_has_among_all(case: Case) -> None:
    mentions = case.matcher.mentions(case.mentions)
    entities = case.matcher.entities(case.entities.of(np.arange(len(case.entities))))
    whole = case.matcher.scores(mentions, entities)
    places = torch.randint(len(entities), (N_MENTIONS, 6), generator=torch.Generator().manual_seed(0))
    found = case.matcher.scores(mentions, entities.rows(places))
    torch.testing.assert_close(found, whole.gather(1, places), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_vectors_that_say_all_have_the_score_as_their_inner_product(case: Case) -> None:
    mentions = case.matcher.mentions(case.mentions)
    entities = case.matcher.entities(case.entities.of(np.arange(12)))
    inner, scores = mentions.vectors @ entities.vectors.T, case.matcher.scores(mentions, entities)
    assert (float((inner - scores).abs().max()) < 1e-5) is case.matcher.vectors_say_all


def test_scores_carry_gradients_to_the_weights(case: Case) -> None:
    network = getattr(case.matcher, "network", case.matcher)
    network.train()
    mentions, entities = case.matcher.mentions(case.mentions), case.matcher.entities(case.entities.of(np.arange(4)))
    case.matcher.scores(mentions, entities).logsumexp(dim=1).sum().backward()
    moved = [value.grad is not None and bool(value.grad.any()) for value in network.parameters()]
    assert sum(moved) > len(moved) / 2


def test_a_value_that_is_no_number_is_refused_with_its_row(case: Case) -> None:
    with pytest.raises(BadInput, match=r"\b2\b"):
        case.matcher.mentions(case.poisoned())


@torch.no_grad()
def test_a_search_in_two_steps_finds_what_scoring_everything_finds(case: Case) -> None:
    held = HeldSides(case.matcher.entities(case.entities.of(np.arange(len(case.entities)))))
    lifted, longest = lifted_entities(held.of(np.arange(len(held))).vectors.numpy())
    search = TwoStepSearch(case.matcher, held, build_index(lifted, ExactSettings()), longest)
    found, expected = search.search(case.mentions, 5), search_all(case.matcher, held, case.mentions, 5)
    np.testing.assert_array_equal(found.entities, expected.entities)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert (found.n_scored == 0) is case.matcher.vectors_say_all
