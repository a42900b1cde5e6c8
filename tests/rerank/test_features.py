"""Each number that speaks for a candidate equals its obvious definition, spelled out here from the KB's own rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rapidfuzz import fuzz

from localmel.kb.words import fold, fold_mention, stems
from localmel.rerank.features import FEATURE_NAMES, FEATURES, MOST_PHRASES, Support, context_of, features_of, support_of
from localmel.retrieve.candidates import Candidates

SEEDS = range(12)
NewWorld = Callable[..., Any]


def cosines(positions: Any) -> Any:
    """What a fusion network might say of these entities: often the same."""
    return (np.asarray(positions) % 5).astype(np.float32) / 5 - 0.3


class Plain:
    """The KB as Python lists and sets, and what follows from them without an index."""

    def __init__(self, world: Any) -> None:
        self.entities = list(world.kb.all_entities())
        self.facts = [
            list(dict.fromkeys((fact.relation, fact.tail) for fact in world.kb.kb_triples(entity.id)))
            for entity in self.entities
        ]
        self.vector = {
            text: row.astype(np.float64) for text, row in zip(world.phrase_texts(), world.vectors.phrases, strict=True)
        }
        standing = [
            set(stems(entity.label))
            | set(stems(entity.description))
            | {word for _, tail in facts for word in stems(tail)}
            for entity, facts in zip(self.entities, self.facts, strict=True)
        ]
        self._entities_with = {word: sum(word in words for words in standing) for words in standing for word in words}

    def weight(self, word: int) -> float:
        return 1 - math.log(max(self._entities_with.get(word, 0), 1)) / math.log(max(len(self.entities), 2))

    def shared(self, text: str, words: set[int]) -> float:
        return sum(self.weight(word) for word in set(stems(text)) & words)


def a_mention(world: Any, seed: int) -> tuple[str, list[str], Any, Any, Any]:
    surface = " ".join(world.some_words(1, 2)) + world.chance.choice(["", "", "'s"])
    said = world.some_words(0, 9)
    vectors = world.units(1 + seed % 3)
    positions, matches = world.candidates(surface)
    return surface, said, vectors, positions, matches


@pytest.mark.parametrize("seed", SEEDS)
def test_support_equals_a_loop_over_candidates_and_phrases(new_world: NewWorld, seed: int) -> None:
    world = new_world(seed)
    plain = Plain(world)
    surface, said, vectors, positions, _ = a_mention(world, seed)
    context = context_of(surface, [word for text in said for word in fold(text).split()], vectors, world.packed)
    own = set(stems(fold_mention(surface)))
    words = set(stems(" ".join(said))) - own
    assert set(context.words.tolist()) == words
    support = support_of(context, positions, world.packed, world.vectors)
    found: list[tuple[int, str, list[float], float, float]] = [
        (
            int(owner),
            world.phrase_texts()[phrase],
            support.similarity[:, place].tolist(),
            support.overlap[place],
            support.share[place],
        )
        for place, (phrase, owner) in enumerate(zip(support.phrases, support.owner, strict=True))
    ]
    expected = []
    for index, position in enumerate(positions):
        for relation, tail in plain.facts[position]:
            text = f"{relation}: {tail}"
            overlap = plain.shared(tail, words)
            total = sum(plain.weight(word) for word in set(stems(tail)))
            expected.append((index, text, (vectors @ plain.vector[text]).tolist(), overlap, overlap / max(total, 1e-6)))
    assert [row[:2] for row in sorted(found)] == [row[:2] for row in sorted(expected)]
    for one, other in zip(sorted(found), sorted(expected), strict=True):
        assert one[2] == pytest.approx(other[2], abs=1e-5)
        assert one[3:] == pytest.approx(other[3:], abs=1e-5)


def expected_columns(
    world: Any, surface: str, said: list[str], vectors: Any, positions: Any, matches: Any
) -> dict[str, list[float]]:
    plain = Plain(world)
    folded = fold_mention(surface)
    own = set(stems(folded))
    words = set(stems(" ".join(said))) - own
    scale = max(sum(plain.weight(word) for word in words), 1.0)
    chosen = [plain.entities[position] for position in positions]
    facts = [plain.facts[position] for position in positions]
    cosine = [max(vectors @ world.vectors.entities[position].astype(np.float64)) for position in positions]
    strongest = [
        sorted((max(vectors @ plain.vector[f"{relation}: {tail}"]) for relation, tail in phrases), reverse=True)
        for phrases in facts
    ]
    phrase = [values[0] if values else 0.0 for values in strongest]
    top3 = [sum(values[:3]) / len(values[:3]) if values else 0.0 for values in strongest]
    described = [plain.shared(entity.description, words) / scale for entity in chosen]
    tails = [plain.shared(" ".join(tail for _, tail in phrases), words) / scale for phrases in facts]
    share = []
    for phrases in facts:
        values = [0.0]
        for _, tail in phrases:
            overlap, total = plain.shared(tail, words), sum(plain.weight(word) for word in set(stems(tail)))
            values.append(overlap / max(total, 1e-6) * min(overlap, 1.0))
        share.append(max(values))
    beyond = [set(stems(entity.label)) - own for entity in chosen]
    rest = [sum(plain.weight(word) for word in label & words) for label in beyond]
    missing = [sum(plain.weight(word) for word in label - words) for label in beyond]
    popularity = [entity.popularity for entity in chosen]
    known = [value for value in popularity if value is not None]
    n = len(chosen)

    labels = [fold(entity.label) for entity in chosen]
    fused = [float(value) for value in cosines(positions)]

    def below(values: list[float], initial: float) -> list[float]:
        return [value - max([initial, *values]) for value in values]

    def name(give: Callable[[Any], float]) -> list[float]:
        return [float(give(match)) if match else 0.0 for match in matches]

    def likest(like: Callable[[str], float]) -> list[float]:
        return [
            max(like(label), like(match.folded) if match else 0.0) for label, match in zip(labels, matches, strict=True)
        ]

    phrases_known = [math.log1p(len(phrases)) for phrases in facts]
    n_described = [len(set(stems(entity.description))) for entity in chosen]
    return {
        "name exact": name(lambda match: match.kind == "exact"),
        "name demonym": name(lambda match: match.kind == "demonym"),
        "name part": name(lambda match: match.kind == "part"),
        "name some words": name(lambda match: match.kind == "some words"),
        "name fuzzy": name(lambda match: match.kind == "fuzzy"),
        "name similarity": name(
            lambda match: fuzz.ratio(folded, match.folded) / 100 if match.kind == "part" else match.similarity
        ),
        "name is label": name(lambda match: match.is_label),
        "name ends with surface": name(lambda match: match.folded.endswith(folded)),
        "name begins with surface": name(lambda match: match.folded.startswith(folded)),
        "name words": name(lambda match: len(match.folded.split())),
        "surface words": [float(len(folded.split()))] * n,
        "exact names in list": [math.log1p(sum(match is not None and match.kind == "exact" for match in matches))] * n,
        "found by vector only": [float(match is None) for match in matches],
        "surface has no capital": [float(not any(char.isupper() for char in surface))] * len(matches),
        "likest name": likest(lambda known: fuzz.ratio(folded, known) / 100),
        "likest name by words": likest(lambda known: fuzz.token_set_ratio(folded, known) / 100),
        "likest name by beginning": likest(
            lambda known: max(k for k in range(len(folded) + 1) if known[:k] == folded[:k]) / max(len(folded), 1)
        ),
        "fused cosine": fused,
        "fused cosine below best": below(fused, -1.0),
        "fused rank": [math.log1p(sum(other > own for other in fused)) for own in fused],
        "text cosine": cosine,
        "text cosine below best": below(cosine, -1.0),
        "phrase cosine": phrase,
        "phrase cosine below best": below(phrase, -1.0),
        "phrase cosine top 3": top3,
        "phrase cosine top 3 below best": below(top3, -1.0),
        "description overlap": described,
        "description overlap below best": below(described, -1.0),
        "tail overlap": tails,
        "tail overlap below best": below(tails, -1.0),
        "best tail share": share,
        "rest of name in context": rest,
        "rest of name in context below best": below(rest, 0.0),
        "rest of name missing": missing,
        "named elsewhere in context": [
            float(match is None and bool(label) and label <= words and not label & own)
            for label, match in zip((set(stems(entity.label)) for entity in chosen), matches, strict=True)
        ],
        "stated triples": [math.log1p(len(vectors) - 1)] * n,
        "phrases": phrases_known,
        "phrases below most": below(phrases_known, 0.0),
        "popularity share": [(value or 0.0) / max(sum(known), 1e-12) for value in popularity],
        "popularity rank": [
            math.log1p(n if value is None else sum(other > value for other in known)) for value in popularity
        ],
        "has popularity": [float(value is not None) for value in popularity],
        "has description": [float(count > 0) for count in n_described],
        "description words": [math.log1p(count) for count in n_described],
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_every_column_equals_its_definition(new_world: NewWorld, seed: int) -> None:
    world = new_world(seed)
    for _ in range(4):
        surface, said, vectors, positions, matches = a_mention(world, seed)
        if not len(positions):
            continue
        context = context_of(surface, [word for text in said for word in fold(text).split()], vectors, world.packed)
        support = support_of(context, positions, world.packed, world.vectors)
        asked = Candidates(positions=positions, matches=tuple(matches), cosine=cosines(positions))
        features = features_of(context, asked, support, world.packed, world.vectors)
        assert features.shape == (len(positions), len(FEATURES))
        assert features.dtype == np.float32
        expected = expected_columns(world, surface, said, vectors, positions, matches)
        assert tuple(expected) == FEATURE_NAMES
        for place, column in enumerate(FEATURE_NAMES):
            assert features[:, place].tolist() == pytest.approx(expected[column], abs=2e-5), column


def test_no_candidate_gives_no_row(new_world: NewWorld) -> None:
    world = new_world(0)
    nobody = np.zeros(0, np.int64)
    context = context_of("zzz", [], world.units(1), world.packed)
    support = support_of(context, nobody, world.packed, world.vectors)
    assert len(support.phrases) == 0
    asked = Candidates(positions=nobody, matches=(), cosine=np.zeros(0, np.float32))
    assert features_of(context, asked, support, world.packed, world.vectors).shape == (0, len(FEATURES))


def test_of_an_entity_with_very_many_phrases_every_kth_is_looked_at(new_world: NewWorld) -> None:
    world = new_world(5, phrases_of_first=2 * MOST_PHRASES + 10)
    positions = np.array([1, 0, 2], np.int64)
    context = context_of("town", ["77", "78"], world.units(2), world.packed)
    support: Support = support_of(context, positions, world.packed, world.vectors)
    every, owner = world.packed.phrases.of(positions)
    thirds = every[owner == 1][::3].tolist()
    texts = world.phrase_texts()
    said = [phrase for phrase in every[owner == 1].tolist() if texts[phrase].split()[-1] in ("77", "78")]
    assert said  # what the context names is looked at whatever its place
    assert support.phrases[support.owner == 1].tolist() == sorted({*thirds, *said})
    for index in (0, 2):
        assert support.phrases[support.owner == index].tolist() == every[owner == index].tolist()
    asked = Candidates(positions=positions, matches=(None,) * 3, cosine=cosines(positions))
    features = features_of(context, asked, support, world.packed, world.vectors)
    assert np.isfinite(features).all()


def test_features_do_not_depend_on_the_order_of_the_candidates(new_world: NewWorld) -> None:
    world = new_world(3)
    surface, said, vectors, positions, matches = a_mention(world, 3)
    context = context_of(surface, said, vectors, world.packed)
    order = list(range(len(positions)))
    world.chance.shuffle(order)

    def rows(chosen: list[int]) -> Any:
        places = positions[chosen]
        support = support_of(context, places, world.packed, world.vectors)
        picked = tuple(matches[place] for place in chosen)
        asked = Candidates(positions=places, matches=picked, cosine=cosines(places))
        return features_of(context, asked, support, world.packed, world.vectors)

    assert np.allclose(rows(order), rows(list(range(len(positions))))[order], atol=1e-6)
