"""From rankings to questions: each candidate with the facts that the filter leaves it, in words, and nobody without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.encode.space import Space
from localmel.errors import BadInput
from localmel.kb.packed import relation_texts
from localmel.records import Candidate, Description, Mention, Ranking, Span, Triple
from localmel.rerank.questions import MOST_FACTS, QuestionWriter, Retrieved
from localmel.settings import RerankSettings
from tests.rerank.conftest import WIDTH, World

SETTINGS = RerankSettings(backend="llm", most_candidates=5, most_relations=2, most_tails=3)


class Hashed:
    """A text is a random vector of its own."""

    space = Space(name="random", width=WIDTH, weights_sha256="")

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        vectors = np.array([np.random.default_rng(list(text.encode())).standard_normal(WIDTH) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def retrieved(world: World, number: int, triples: Sequence[tuple[str, str]], n: int = 8) -> Retrieved:
    surface = "jordan"
    ids = [entity.id for entity in world.kb.all_entities()]
    chosen = world.chance.sample(ids, min(n, len(ids)))
    return Retrieved(
        mention=Mention(id=f"m{number}", surface=surface, context=f"jordan {number}", span=Span(start=0, end=6)),
        description=Description(
            mention_id=f"m{number}",
            triples=tuple(Triple(head=surface, relation=r, tail=t, source="text") for r, t in triples),
        ),
        ranking=Ranking(
            mention_id=f"m{number}",
            candidates=tuple(Candidate(entity_id=one, score=1 / (place + 1)) for place, one in enumerate(chosen)),
        ),
        nil=0.25,
    )


def writer(world: World, **given: Any) -> QuestionWriter:
    return QuestionWriter(world.kb, world.packed, world.vectors, Hashed(), replace(SETTINGS, **given))


def expected(world: World, about: Retrieved, settings: RerankSettings) -> list[list[str]]:
    """The phrases of each candidate that the definition leaves, most alike first; by words, not by numbers."""
    encode, texts = Hashed().encode, world.phrase_texts()
    phrases = dict(zip(texts, world.vectors.phrases.astype(np.float32), strict=True))
    names = list(relation_texts(world.kb))
    relations = dict(zip(names, world.vectors.relations.astype(np.float32), strict=False))  # a world may lack one
    ids = [one.entity_id for one in about.ranking.candidates[: settings.most_candidates]]
    of = {one: list(dict.fromkeys(triple.phrase for triple in world.kb.triples(one))) for one in ids}
    every = sorted({phrase for own in of.values() for phrase in own})
    said = about.description.triples
    tails = encode([one.tail for one in said]) if said else encode([f"jordan: {about.mention.context}"])

    def best(own: NDArray[Any], table: dict[str, NDArray[Any]], among: Sequence[str], n: int) -> set[str]:
        alike = {one: float(own.astype(float) @ table[one].astype(float)) for one in among}
        nth = sorted(alike.values(), reverse=True)[:n][-1] if among else 0.0
        return {one for one, value in alike.items() if value >= nth - 1e-9}

    kept = {one for own in tails for one in best(own, phrases, every, settings.most_tails)}
    used = sorted({phrase.partition(": ")[0] for phrase in every})
    kept_relations = set(used) if not said else set()
    for one in said:
        kept_relations |= best(encode([one.relation])[0], relations, used, settings.most_relations)
    left = []
    for one in ids:
        own = [phrase for phrase in of[one] if phrase in kept and phrase.partition(": ")[0] in kept_relations]
        left.append(sorted(own, key=lambda phrase: -max(float(tail @ phrases[phrase]) for tail in tails))[:MOST_FACTS])
    return left


@pytest.mark.parametrize("seed", range(6))
def test_each_candidate_is_shown_with_what_the_filter_leaves_it(new_world: Callable[..., World], seed: int) -> None:
    world = new_world(seed)
    said = [("sport", "basketball"), ("country", "sea")]
    asked = [retrieved(world, number, said[: number % 3]) for number in range(9)]
    questions = list(writer(world).questions(asked))
    assert [question.mention for question in questions] == [about.mention for about in asked]
    for about, question in zip(asked, questions, strict=True):
        assert question.nil == 0.25
        assert question.ranking == about.ranking
        shown = [[fact.triple.phrase for fact in option.facts] for option in question.options]
        assert shown == expected(world, about, SETTINGS)
        for option in question.options:
            assert all(fact.triple.head == option.entity.label for fact in option.facts)
            assert all(fact.triple.source == "kb" for fact in option.facts)


def test_a_mention_without_triples_is_still_asked_with_facts_near_its_sentence(new_world: Callable[..., World]) -> None:
    world = new_world(3)
    (question,) = writer(world, most_tails=1000).questions([retrieved(world, 0, [], n=25)])
    facts = [fact for option in question.options for fact in option.facts]
    assert facts
    assert all(fact.said == replace(fact.triple, head="jordan", source="text") for fact in facts)


def test_an_entity_with_thousands_of_triples_is_filtered_whole(new_world: Callable[..., World]) -> None:
    """The town that is most like what was said is found wherever it stands among 1,500."""
    world = new_world(1, phrases_of_first=1500)
    texts = world.phrase_texts()
    wanted = "numbered: town 1404"
    vector = world.vectors.phrases[texts.index(wanted)].astype(np.float32)

    class Told(Hashed):
        def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
            vectors = super().encode(texts)
            vectors[[text == "the town" for text in texts]] = vector / np.linalg.norm(vector)
            return vectors

    about = retrieved(world, 0, [("numbered", "the town")], n=25)
    first = about.ranking.candidates[0]
    others = [one for one in about.ranking.candidates if one.entity_id != "Q0"]
    candidates = (replace(first, entity_id="Q0", score=2.0), *others)
    about = replace(about, ranking=Ranking(mention_id="m0", candidates=candidates))
    told = QuestionWriter(world.kb, world.packed, world.vectors, Told(), replace(SETTINGS, most_tails=1))
    (question,) = told.questions([about])
    assert [fact.triple.phrase for fact in question.options[0].facts] == [wanted]
    assert question.options[0].facts[0].similarity == pytest.approx(1.0, abs=1e-3)


def test_a_mention_without_candidates_is_a_question_without_options(new_world: Callable[..., World]) -> None:
    world = new_world(0)
    empty = replace(retrieved(world, 0, []), ranking=Ranking(mention_id="m0", candidates=()))
    (question,) = writer(world).questions([empty])
    assert question.options == ()


def test_a_candidate_that_the_kb_lacks_is_named(new_world: Callable[..., World]) -> None:
    world = new_world(0)
    about = retrieved(world, 0, [])
    strange = (Candidate(entity_id="Q999", score=9.0), *about.ranking.candidates)
    with pytest.raises(BadInput, match="for example 'Q999'"):
        list(writer(world).questions([replace(about, ranking=Ranking(mention_id="m0", candidates=strange))]))
