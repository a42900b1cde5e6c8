"""A matcher is trained as the fusion network is: it learns, goes on to the same bytes, and is ranked by its search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.crowds import SETTINGS, Crowd, crowd
from localmel.errors import BadInput
from localmel.index import NO_ID
from localmel.matchers.kind import Found
from localmel.matchers.learner import MatcherLearner
from localmel.matchers.m3el.kind import M3elKind
from localmel.matchers.m3el.network import M3el
from localmel.matchers.search_quality import BEST, appraised, gold_ranks, ranks_in, searched
from localmel.matchers.train.learner import Ranks, TrainingInputs
from localmel.matchers.train.loop import Epoch, Trained, train_learner
from localmel.matchers.train.settings import TrainingSettings

QUICK = TrainingSettings(epochs=2, batch=32, rate=5e-3, hard_negatives=1, without_image=0.2)
N_ENTITIES, N_TRAIN = 240, 200


@pytest.fixture(scope="module")
def drawn() -> Crowd:
    return crowd(N_ENTITIES, N_ENTITIES, clustered=False)


@pytest.fixture(scope="module")
def inputs(drawn: Crowd) -> TrainingInputs:
    """The last mentions are for validation; one of train and one of validation have no gold."""
    train = np.where(np.arange(N_ENTITIES) < N_TRAIN, drawn.gold, -1)
    train[3] = -1
    validation = np.where(np.arange(N_ENTITIES) < N_TRAIN, -1, drawn.gold)
    names = np.stack([drawn.gold, (drawn.gold + 1) % N_ENTITIES], axis=1)
    return TrainingInputs(
        mentions=drawn.mentions,
        validation=drawn.mentions,
        entities=drawn.entities,
        gold=train,
        validation_gold=validation,
        candidates=names,
    )


def trained_on(
    inputs: TrainingInputs,
    settings: TrainingSettings,
    folder: Path,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Trained:
    def new(chosen: TrainingSettings) -> MatcherLearner:
        return MatcherLearner(M3elKind(), lambda: M3el(SETTINGS), chosen, inputs)

    return train_learner(new, settings, folder, made_from={"drawn": 0}, on_epoch=on_epoch)


def same(one: Trained, other: Trained) -> bool:
    pairs = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow(reason="trains a network for some epochs")
def test_mentions_find_their_entities_after_training(inputs: TrainingInputs, tmp_path: Path) -> None:
    trained = trained_on(inputs, replace(QUICK, epochs=8), tmp_path / "run")
    assert trained.history[-1].loss < trained.history[0].loss
    assert trained.best.ranks
    assert trained.best.ranks.n == N_ENTITIES - N_TRAIN
    assert trained.best.ranks.hits_at_1 > 0.25  # by chance 0.004
    assert trained.best.ranks.hits_at_16 > 0.6
    ranks, quality = appraised(trained.network, inputs)
    assert Ranks.of(ranks[ranks > 0]) == trained.best.ranks
    assert quality.same_best == 1.0
    assert quality.compared == 16
    assert quality.first > quality.last
    assert 0 < quality.scored <= N_ENTITIES


@pytest.mark.slow(reason="trains a network for some epochs")
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(inputs: TrainingInputs, tmp_path: Path) -> None:
    for hard_from in ("names", "index"):
        settings = replace(QUICK, hard_from=hard_from)
        whole = trained_on(inputs, settings, tmp_path / f"{hard_from}-whole")

        def interrupt(_: Epoch) -> None:
            raise KeyboardInterrupt

        stopped = tmp_path / f"{hard_from}-stopped"
        with pytest.raises(KeyboardInterrupt):
            trained_on(inputs, settings, stopped, interrupt)
        assert same(trained_on(inputs, settings, stopped), whole)
        files = [(tmp_path / f"{hard_from}-{name}" / "state.safetensors").read_bytes() for name in ("whole", "stopped")]
        assert files[0] == files[1]


def test_another_loss_or_shape_of_the_network_is_another_run(inputs: TrainingInputs, tmp_path: Path) -> None:
    trained_on(inputs, replace(QUICK, epochs=1), tmp_path / "run")

    def other(chosen: TrainingSettings) -> MatcherLearner:
        return MatcherLearner(M3elKind(), lambda: M3el(replace(SETTINGS, width=8)), chosen, inputs)

    with pytest.raises(BadInput, match=r"m3el\.width 20 there, 8 now"):
        train_learner(other, replace(QUICK, epochs=1), tmp_path / "run", made_from={"drawn": 0})


def test_rows_that_are_shown_without_picture_have_none(drawn: Crowd) -> None:
    seen = drawn.entities.of(np.arange(8))
    blind = torch.arange(8) % 2 == 0
    given = M3elKind().without_pictures(seen, blind)
    assert given.is_patch is not None
    assert not given.is_patch[blind].any()
    assert seen.is_patch is not None
    assert torch.equal(given.is_patch[~blind], seen.is_patch[~blind])
    torch.manual_seed(0)
    network = M3el(SETTINGS).eval()
    assert not network.whole_vectors(given)["image"][1][blind].any()


def test_ranks_are_those_of_counting_all_scores_as_far_as_they_are_looked_for(inputs: TrainingInputs) -> None:
    torch.manual_seed(0)
    network = M3el(SETTINGS).eval()
    search, sides = searched(network, inputs.entities)
    found = gold_ranks(search, inputs.validation, inputs.validation_gold).numpy()
    with torch.no_grad():
        rows = np.arange(N_ENTITIES)
        scores = network.scores(network.mentions(inputs.validation.of(rows)), sides.of(rows)).numpy()
    for mention, gold in enumerate(inputs.validation_gold):
        above = int((scores[mention] > scores[mention, gold]).sum())
        expected = 0.0 if gold < 0 else 1.0 + above if above < BEST else np.inf
        assert found[mention] == expected


def test_level_scores_share_their_places_and_a_gold_that_was_not_found_has_none() -> None:
    def ranks(scores: list[float], entities: list[int], gold: int) -> NDArray[np.float64]:
        found = Found(scores=np.array([scores], np.float32), entities=np.array([entities]), n_scored=0)
        return ranks_in(found, np.array([gold]))

    assert ranks([3, 2, 2, 1], [7, 4, 5, 6], 5) == [2.5]
    assert ranks([3, 2, 2, 1], [7, 4, 5, 6], 8) == [np.inf]
    assert ranks([3, -np.inf], [7, NO_ID], -1) == [np.inf]
