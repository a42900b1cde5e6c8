"""Recovery worlds: what they hide is hidden, each part finds its own answer, and without it nobody does.

Trained here: a matcher for each world, and one without the part that looks where the answer lies.  `just worlds` prints
all rows and columns."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator

from bench.world_drawings import N_KINDS
from bench.worlds import (
    CHANCE,
    N_ENTITIES,
    WAYS,
    WIDTH,
    WORLDS,
    M3elLearner,
    hits_at_1,
    recover,
    trained,
)

ROOT = Path(__file__).resolve().parents[2]
NAMED = {world.name: world for world in WORLDS}
FINDS, MISSES = 0.95, CHANCE + 0.05
LOOKS = {
    "whole text": "M3EL without whole texts",
    "one word": "M3EL without words",
    "whole picture": "M3EL without whole pictures",
    "one patch": "M3EL without patches",
    "word and patch": "M3EL without cross-modal",
    "one triple": "KGMEL without triples",
    "word of the named kind": "DWE+ without words",
    "one object": "DWE+ without objects",
    "one face": "DWE+ without faces",
    "an attribute": "DWE+ without attributes",
    "an identity": "DWE+ without identity",
    "written text": "DWE+ without written texts",
}
"By world: the way without the part that looks where its answer lies."
slow = pytest.mark.slow  # several networks are trained for 300 steps each; over 30 seconds together


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- what a drawing holds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_the_same_chance_draws_the_same_and_another_one_draws_otherwise(name: str) -> None:
    drawn = [NAMED[name].draw(Generator().manual_seed(seed), 8, 3)[0].features for seed in (1, 1, 2)]
    assert torch.equal(drawn[0].text, drawn[1].text)
    assert not torch.equal(drawn[0].text, drawn[2].text)


def test_one_word_of_a_mention_is_its_entitys_and_its_whole_text_is_nobodys() -> None:
    mentions, entities = (side.features for side in NAMED["one word"].draw(Generator().manual_seed(0), N_ENTITIES, 8))
    likeness = torch.einsum("mwd,ed->mew", mentions.words, entities.text).amax(dim=2)
    assert torch.equal(likeness.argmax(dim=1), torch.arange(N_ENTITIES))
    whole = (mentions.text @ entities.text.T).argmax(dim=1) == torch.arange(N_ENTITIES)
    assert whole.double().mean() < 0.3
    assert not mentions.is_patch.any()  # type: ignore[union-attr]


def sets(name: str, seed: int) -> list[torch.Tensor]:
    """Words of mentions, patches of mentions, words of entities, patches of entities: (n, concepts) bool."""
    sides = NAMED[name].draw(Generator().manual_seed(seed), N_ENTITIES, 5)
    found = []
    for side in sides:
        for tokens in (side.features.words, side.features.patches):
            marks = torch.zeros(N_ENTITIES, WIDTH, dtype=torch.bool)
            found.append(marks.scatter(1, tokens.argmax(dim=2), True))  # type: ignore[union-attr]
    return found


def test_exactly_one_concept_of_a_row_is_both_named_and_shown_and_it_is_its_entitys() -> None:
    for seed in range(5):
        words, patches, own_words, own_patches = sets("word and patch", seed)
        assert torch.equal(words & patches, own_words & own_patches)
        assert torch.equal((words & patches).sum(dim=1), torch.ones(N_ENTITIES, dtype=torch.int64))
        assert {int(n) for side in (words, patches) for n in side.sum(dim=1)} == {6}


def test_neither_words_nor_patches_alone_tell_whose_mention_it_is() -> None:
    """As many are shared with the own entity as with others, and whoever goes by them is right by chance."""
    own, others, right = [], [], []
    for seed in range(60):
        words, patches, own_words, own_patches = sets("word and patch", seed)
        shared = words.double() @ own_words.double().T, patches.double() @ own_patches.double().T
        diagonal = torch.eye(N_ENTITIES, dtype=torch.bool)
        own.append(torch.stack([one[diagonal].mean() for one in shared]))
        others.append(torch.stack([one[~diagonal].mean() for one in shared]))
        guess = (sum(shared) + 1e-3 * torch.rand(N_ENTITIES, N_ENTITIES)).argmax(dim=1)
        right.append(guess == torch.arange(N_ENTITIES))
    difference = (torch.stack(own).mean(dim=0) - torch.stack(others).mean(dim=0)).abs()
    assert (difference < 0.2).all()  # of 1.5 in common
    assert torch.cat(right).double().mean() < MISSES


@pytest.mark.parametrize(
    ("world", "part"), [("one object", "objects"), ("one face", "faces"), ("an identity", "identity")]
)
def test_exactly_one_is_of_the_kind_that_is_named_and_shows_what_the_entity_shows(world: str, part: str) -> None:
    mentions, entities = NAMED[world].draw(Generator().manual_seed(0), N_ENTITIES, 8)
    vectors, names = mentions.more[part].values, mentions.more["name"].values[:, 0]
    kinds = vectors[:, :, :N_KINDS].argmax(dim=2)
    named = kinds == names.argmax(dim=1)[:, None]
    assert torch.equal(named.sum(dim=1), torch.ones(N_ENTITIES, dtype=torch.int64))
    shown = entities.features.text if world == "an identity" else entities.features.pictures()[0]
    likeness = vectors[named] @ shown.T
    assert torch.equal(likeness.argmax(dim=1), torch.arange(N_ENTITIES))
    assert not shown[:, :N_KINDS].any()  # the entity tells nothing of its kind


def test_the_attribute_that_counts_is_the_same_for_every_mention() -> None:
    mentions, entities = NAMED["an attribute"].draw(Generator().manual_seed(0), N_ENTITIES, 8)
    vectors = mentions.more["attributes"].values
    first = vectors[:, :, :N_KINDS].argmax(dim=2) == 0
    assert torch.equal(first.sum(dim=1), torch.ones(N_ENTITIES, dtype=torch.int64))
    assert torch.equal((vectors[first] @ entities.features.text.T).argmax(dim=1), torch.arange(N_ENTITIES))


def test_whoever_asks_all_objects_alike_is_rarely_right() -> None:
    right = []
    for seed in range(20):
        mentions, entities = NAMED["one object"].draw(Generator().manual_seed(seed), N_ENTITIES, 8)
        guess = (mentions.more["objects"].values.mean(dim=1) @ entities.features.pictures()[0].T).argmax(dim=1)
        right.append(guess == torch.arange(N_ENTITIES))
    assert torch.cat(right).double().mean() < 0.5


# --- what is found in it ----------------------------------------------------------------------------------------


def test_a_matcher_that_was_not_trained_finds_by_chance() -> None:
    assert hits_at_1(M3elLearner(), NAMED["word and patch"]) < MISSES


def test_m3els_words_find_the_one_word() -> None:
    """The quickest one of those below, as a part of every run."""
    assert recover(NAMED["one word"], "M3EL", steps=120).hits_at_1 >= 0.9


def test_dwes_objects_find_the_one_that_is_named() -> None:
    assert recover(NAMED["one object"], "DWE+", steps=60).hits_at_1 >= 0.9


def test_a_recovery_is_the_same_every_time_and_leaves_the_callers_chance_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    found = [recover(NAMED["one triple"], "KGMEL", steps=5).hits_at_1 for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(torch.random.get_rng_state(), before)


@slow
@pytest.mark.parametrize("name", NAMED)
def test_the_part_that_looks_finds_the_answer_and_without_it_nobody_does(name: str) -> None:
    blind = LOOKS[name]
    assert recover(NAMED[name], blind.split(" ")[0]).hits_at_1 >= FINDS
    assert recover(NAMED[name], blind).hits_at_1 <= MISSES


@slow
@pytest.mark.parametrize("way", ["KGMEL", "M3EL"])
@pytest.mark.parametrize("name", ["one object", "an attribute"])
def test_who_does_not_look_there_finds_by_chance(name: str, way: str) -> None:
    assert recover(NAMED[name], way).hits_at_1 <= MISSES


@slow
def test_the_published_form_does_not_find_what_a_word_and_a_patch_say_together() -> None:
    assert recover(NAMED["word and patch"], "M3EL as published").hits_at_1 <= MISSES


@slow
def test_with_the_patches_of_another_mention_the_agreement_is_gone() -> None:
    """Counted are the mentions to whose words the other one's patches say something else."""
    learner, chance = trained(NAMED["word and patch"], "M3EL"), Generator().manual_seed(7)
    learner.network.eval()
    right = []
    for _ in range(60):
        mentions, entities = NAMED["word and patch"].draw(chance, N_ENTITIES, 5)
        image, patches, _ = mentions.features.pictures()
        moved = replace(mentions.features, image=image.roll(1, 0), patches=patches.roll(1, 0))
        others = replace(mentions, features=moved)
        own = (mentions.features.words.argmax(dim=2)[:, :, None] == patches.argmax(dim=2)[:, None, :]).any(dim=2)
        concept = mentions.features.words.argmax(dim=2)[own]
        shown = (patches.roll(1, 0).argmax(dim=2) == concept[:, None]).any(dim=1)
        with torch.no_grad():
            found = learner.scores(*learner.sides(others, entities)).argmax(dim=1) == torch.arange(N_ENTITIES)
        right.append(found[~shown])
    assert torch.cat(right).double().mean() <= MISSES


def test_the_table_has_a_cell_for_each_world(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["worlds.py", "--steps", "2", "--way", "KGMEL", "--json"])
    runpy.run_path(str(ROOT / "scripts" / "worlds.py"), run_name="__main__")
    cells = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [cell["world"] for cell in cells] == list(NAMED)
    assert {cell["way"] for cell in cells} == {"KGMEL"} <= set(WAYS)


def test_a_table_of_some_worlds_has_their_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["worlds.py", "--steps", "1", "--way", "DWE+", "--world", "one object"])
    runpy.run_path(str(ROOT / "scripts" / "worlds.py"), run_name="__main__")
    table = capsys.readouterr().out
    assert "| | one object |" in table
    assert "| DWE+ | 0." in table
