"""The pairs of triples shown with a link belong to the entity, agree, and stand in order of agreement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from localmel.kb.words import fold, stems
from localmel.records import Triple
from localmel.rerank.features import context_of, support_of
from localmel.rerank.weighing import evidence_for, induced_triples

NewWorld = Callable[..., Any]


def weighed(world: Any) -> tuple[str, list[Triple], Any, Any]:
    surface = " ".join(world.some_words(1, 1))
    stated = [
        Triple(head=surface, relation="visible text", tail=" ".join(world.some_words(1, 4)), source="ocr")
        for _ in range(2)
    ]
    positions, _ = world.candidates(surface)
    words = [word for triple in stated for word in fold(triple.tail).split()]
    context = context_of(surface, words, world.units(3), world.packed)
    return surface, stated, positions, support_of(context, positions, world.packed, world.vectors)


def says_more(surface: str, text: str) -> bool:
    """Whether the tail is more than the surface again."""
    words = set(stems(text.partition(": ")[2]))
    return not words or bool(words - set(stems(surface)))


@pytest.mark.parametrize("seed", range(12))
def test_evidence_is_of_the_entity_strongest_first_and_never_twice(new_world: NewWorld, seed: int) -> None:
    world = new_world(seed)
    surface, stated, positions, support = weighed(world)
    for index, position in enumerate(positions):
        entity = world.kb.entities_at([int(world.packed.rows[position])])[0]
        facts = {(fact.relation, fact.tail) for fact in world.kb.kb_triples(entity.id)}
        pairs = evidence_for(
            index, entity.label, surface, surface, stated, support, world.packed, world.kb, most=3, least_similarity=0.2
        )
        assert len(pairs) <= 3
        assert all((pair.entity_triple.relation, pair.entity_triple.tail) in facts for pair in pairs)
        assert all(pair.entity_triple.head == entity.label and pair.entity_triple.source == "kb" for pair in pairs)
        assert all(pair.mention_triple.head == surface for pair in pairs)
        assert all(0.2 <= pair.similarity <= 1 for pair in pairs)
        tails = [pair.entity_triple.tail for pair in pairs]
        assert len(set(tails)) == len(tails)


@pytest.mark.parametrize("seed", range(12))
def test_the_strongest_pair_is_the_highest_cosine_or_word_share(new_world: NewWorld, seed: int) -> None:
    world = new_world(seed)
    surface, stated, positions, support = weighed(world)
    texts = world.phrase_texts()
    sentence = f"{surface} and {texts[0].partition(': ')[2]}"
    weight = {int(word): float(world.packed.weights(np.array([word], np.uint32))[0]) for word in world.packed.stems}
    for index in range(len(positions)):
        best = shown = 0.0
        for place in np.flatnonzero(support.owner == index):
            if not says_more(surface, texts[support.phrases[place]]):
                continue
            words = set(stems(texts[support.phrases[place]].partition(": ")[2]))
            total = max(sum(weight[word] for word in words), 1e-6)
            texts_said = [sentence, *(triple.tail for triple in stated)]
            said = [sum(weight[word] for word in words & set(stems(text))) for text in texts_said]
            for cosine, shared in zip(support.similarity[:, place].tolist(), said, strict=True):
                strength, alike = max(cosine, min(shared, 1.0) * shared / total), max(cosine, shared / total)
                best, shown = max((best, shown), (strength, alike))
        pairs = evidence_for(
            index, "x", surface, sentence, stated, support, world.packed, world.kb, most=4, least_similarity=0.3
        )
        if best < 0.3 - 1e-6:
            assert pairs == ()
        elif best > 0.3 + 1e-6:
            assert pairs[0].similarity == pytest.approx(min(shown, 1.0), abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_induced_triples_are_the_phrases_of_namesakes_nearest_to_the_sentence(new_world: NewWorld, seed: int) -> None:
    world = new_world(seed)
    surface, _, positions, support = weighed(world)
    by_name = len(positions) * 2 // 3
    texts = world.phrase_texts()
    nearest: dict[str, float] = {}
    for place, phrase in enumerate(support.phrases):
        if support.similarity[0, place] >= 0.1 and support.owner[place] < by_name and says_more(surface, texts[phrase]):
            nearest[texts[phrase]] = float(support.similarity[0, place])
    expected = sorted(nearest, key=lambda text: -nearest[text])[:4]
    found = induced_triples(surface, by_name, support, world.packed, world.kb, most=4, least_similarity=0.1)
    assert [triple.phrase for triple in found] == expected
    assert all(triple.head == surface and triple.source == "text" for triple in found)


def test_nothing_known_gives_no_evidence(new_world: NewWorld) -> None:
    world = new_world(0)
    context = context_of("zzz", [], world.units(1), world.packed)
    support = support_of(context, np.zeros(0, np.int64), world.packed, world.vectors)
    assert induced_triples("zzz", 0, support, world.packed, world.kb, most=4, least_similarity=0.1) == ()
    assert evidence_for(0, "x", "zzz", "zzz", [], support, world.packed, world.kb, most=4, least_similarity=0.1) == ()
