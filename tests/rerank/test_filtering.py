"""The triple filter against its definition, triple by triple; and against the published rule that it mends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from localmel.kb.packed import Lists
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.rerank.filtering import EQUAL, filter_triples

Pair = tuple[int, int]
"Number of a tail, number of a relation."


def packed(rows: Sequence[Sequence[Pair]], tails: NDArray[Any], relations: NDArray[Any]) -> TripleArrays:
    pairs = sorted({pair for row in rows for pair in row})
    number = {pair: place for place, pair in enumerate(pairs)}
    return TripleArrays(
        tails=np.asarray(tails, np.float32),
        relations=np.asarray(relations, np.float32),
        pair_tail=np.array([tail for tail, _ in pairs], np.int64),
        pair_relation=np.array([relation for _, relation in pairs], np.int64),
        triples=np.array([number[pair] for row in rows for pair in row], np.int64),
        starts=np.cumsum([0, *(len(row) for row in rows)]),
    )


def lists(values: Sequence[Sequence[int]]) -> Lists:
    flat = [value for row in values for value in row]
    return Lists(starts=np.cumsum([0, *map(len, values)]), values=np.array(flat, np.int64))


def pairs_of(arrays: TripleArrays, row: int) -> list[Pair]:
    own = arrays.triples[arrays.starts[row] : arrays.starts[row + 1]].tolist()
    return [(int(arrays.pair_tail[pair]), int(arrays.pair_relation[pair])) for pair in own]


def filtered_slowly(
    mentions: TripleArrays, entities: TripleArrays, candidates: Lists, n_relations: int, n_tails: int
) -> list[list[Pair]]:
    """The definition, one triple at a time, each product by itself in float64."""

    def n_best(own: NDArray[Any], others: set[int], vectors: NDArray[Any], n: int) -> set[int]:
        alike = {other: float(np.dot(own.astype(np.float64), vectors[other].astype(np.float64))) for other in others}
        best = sorted(alike.values(), reverse=True)[:n]
        return {other for other in others if best and (alike[other] >= best[-1] - EQUAL)}

    left = []
    for mention in range(len(candidates.starts) - 1):
        rows = candidates.values[candidates.starts[mention] : candidates.starts[mention + 1]].tolist()
        triples = {row: pairs_of(entities, row) for row in rows}
        tails = {tail for row in rows for tail, _ in triples[row]}
        relations = {relation for row in rows for _, relation in triples[row]}
        kept_tails: set[int] = set()
        kept_relations: set[int] = set()
        for tail, relation in pairs_of(mentions, mention):
            kept_tails |= n_best(mentions.tails[tail], tails, entities.tails, n_tails)
            kept_relations |= n_best(mentions.relations[relation], relations, entities.relations, n_relations)
        for row in rows:
            left.append([(tail, one) for tail, one in triples[row] if tail in kept_tails and one in kept_relations])
    return left


def filtered(mentions: TripleArrays, entities: TripleArrays, candidates: Lists, *n: int) -> list[list[Pair]]:
    left = filter_triples(mentions, entities, candidates, n_relations=n[0], n_tails=n[1])
    return [
        [(int(entities.pair_tail[pair]), int(entities.pair_relation[pair])) for pair in left.pairs[left.of(number)]]
        for number in range(len(candidates.values))
    ]


small = st.integers(-2, 2)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[TripleArrays, TripleArrays, Lists, int, int]:
    """Vectors of a few small whole numbers: many products are equal, and every one is exact."""
    width = draw(st.integers(1, 4))

    def table(n: int) -> NDArray[Any]:
        return np.array(draw(st.lists(st.lists(small, min_size=width, max_size=width), min_size=n, max_size=n)))

    def rows(n: int, n_tails: int, n_relations: int) -> list[list[Pair]]:
        pair = st.tuples(st.integers(0, n_tails - 1), st.integers(0, n_relations - 1))
        return draw(st.lists(st.lists(pair, max_size=12, unique=True), min_size=n, max_size=n))

    sizes = [draw(st.integers(1, 9)) for _ in range(4)]
    n_mentions, n_entities = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    mentions = packed(rows(n_mentions, *sizes[:2]), table(sizes[0]), table(sizes[1]))
    entities = packed(rows(n_entities, *sizes[2:]), table(sizes[2]), table(sizes[3]))
    chosen = st.lists(st.integers(0, n_entities - 1), max_size=5, unique=True)
    candidates = lists(draw(st.lists(chosen, min_size=n_mentions, max_size=n_mentions)))
    return mentions, entities, candidates, draw(st.integers(0, 4)), draw(st.integers(0, 4))


@given(worlds())
def test_what_is_left_is_what_the_definition_leaves_ties_included(
    world: tuple[TripleArrays, TripleArrays, Lists, int, int],
) -> None:
    assert filtered(*world) == filtered_slowly(*world)


def units(random: np.random.Generator, n: int, width: int = 32) -> NDArray[Any]:
    values = random.standard_normal((n, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_random_unit_vectors_with_tails_that_bear_the_same_words(seed: int) -> None:
    random = np.random.default_rng(seed)
    tails, relations = units(random, 400), units(random, 30)
    tails[200:] = tails[:200]  # two entities called Jordan: their vectors are equal, their numbers are not
    relations[20:] = relations[:10]

    def rows(n: int, most: int) -> list[list[Pair]]:
        sizes = random.integers(0, most, n)
        return [list({(int(random.integers(400)), int(random.integers(30))) for _ in range(size)}) for size in sizes]

    mentions = packed(rows(40, 8), tails, relations)
    entities = packed(rows(60, 120), tails, relations)
    candidates = lists([random.choice(60, size=random.integers(0, 17), replace=False).tolist() for _ in range(40)])
    world = (mentions, entities, candidates, 3, 5)
    assert filtered(*world) == filtered_slowly(*world)


def test_products_that_float32_cannot_tell_apart_are_told_apart() -> None:
    """Added up in float32 the second looks as good as the first, or better, as the library likes."""
    width = 64
    near = np.full((2, width), 0.125, np.float32)
    near[1, 0] -= np.float32(8e-8)
    own = np.full((1, width), 0.125, np.float32)
    own[0, 1:] = np.linspace(0.1, 0.15, width - 1, dtype=np.float32)
    mentions = packed([[(0, 0)]], own, np.ones((1, width)))
    entities = packed([[(0, 0), (1, 0)]], near, np.ones((1, width)))
    world = (mentions, entities, lists([[0]]), 1, 1)
    assert filtered(*world) == filtered_slowly(*world) == [[(0, 0)]]


@pytest.mark.parametrize("n_tails", [20, 50, 51, 100, 400, 5000])
def test_a_tail_equal_to_the_mention_s_is_kept_whatever_their_number(n_tails: int) -> None:
    """The published filter loses it in most cases above 50: it shuffles the table and not the numbers."""
    random = np.random.default_rng(n_tails)
    lost = 0
    for _ in range(20):
        tails, relations = units(random, n_tails), units(random, 5)
        same = int(random.integers(n_tails))
        mentions = packed([[(0, 0)]], tails[same : same + 1], relations[:1])
        share = np.array_split(random.permutation(n_tails), 16)
        entities = packed([[(int(tail), 0) for tail in part] for part in share], tails, relations)
        world = (mentions, entities, lists([list(range(16))]), 5, 10)
        assert [(same, 0)] == [pair for row in filtered(*world) for pair in row if pair[0] == same]
        lost += same not in filtered_as_published(random, mentions.tails[0], tails, 10)
    assert lost == 0 if n_tails <= 50 else lost > 5


def filtered_as_published(random: np.random.Generator, own: NDArray[Any], tails: NDArray[Any], n: int) -> set[int]:
    """What the published code keeps: above 50 rows it compares with 50 of them, drawn at random, and looks their
    places up among the first 50."""
    order = random.permutation(len(tails))[:50] if len(tails) > 50 else np.arange(len(tails))
    return set(np.argsort(-(tails[order] @ own))[:n].tolist())


def test_a_mention_without_triples_keeps_nothing_and_disturbs_nobody() -> None:
    random = np.random.default_rng(0)
    tails, relations = units(random, 10), units(random, 3)
    entities = packed([[(0, 0), (1, 1)], [(2, 2)]], tails, relations)
    mentions = packed([[], [(0, 0)], []], tails, relations)
    left = filter_triples(mentions, entities, lists([[0, 1], [0, 1], []]), n_relations=1, n_tails=1)
    assert np.diff(left.starts).tolist() == [0, 0, 1, 0]
    assert (left.similarity.tolist(), left.nearest.tolist()) == (pytest.approx([1.0]), [0])


def test_a_survivor_knows_the_triple_of_the_mention_that_it_is_most_like() -> None:
    eye = np.eye(4, dtype=np.float32)
    mentions = packed([[(2, 0), (3, 0)]], eye, eye)
    entities = packed([[(0, 0), (2, 0), (3, 0)]], eye, eye)
    left = filter_triples(mentions, entities, lists([[0]]), n_relations=4, n_tails=1)
    found = zip(entities.pair_tail[left.pairs].tolist(), left.nearest.tolist(), left.similarity.tolist(), strict=True)
    assert list(found) == [(2, 0, 1.0), (3, 1, 1.0)]


def test_many_mentions_are_filtered_as_each_by_itself() -> None:
    """More than are compared at a time, so that pieces meet."""
    random = np.random.default_rng(1)
    tails, relations = units(random, 50, 8), units(random, 9, 8)
    rows = [[(int(random.integers(50)), int(random.integers(9))) for _ in range(3)] for _ in range(1100)]
    mentions, entities = packed(rows, tails, relations), packed(rows[:30], tails, relations)
    chosen = [random.choice(30, size=4, replace=False).tolist() for _ in range(1100)]
    together = filtered(mentions, entities, lists(chosen), 2, 2)
    for number in (0, 511, 512, 1023, 1024, 1099):
        alone = packed([rows[number]], tails, relations)
        assert filtered(alone, entities, lists([chosen[number]]), 2, 2) == together[4 * number : 4 * number + 4]
