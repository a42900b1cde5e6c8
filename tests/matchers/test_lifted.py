"""Vectors of any length become unit vectors, and an index over them ranks as the vectors do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from localmel.errors import BadInput
from localmel.index import ExactSettings, build_index
from localmel.matchers.prepared import lifted_entities, lifted_mentions

VALUES = st.floats(-100, 100, width=32, allow_subnormal=False)


@given(
    entities=arrays(np.float32, st.tuples(st.integers(1, 12), st.just(5)), elements=VALUES),
    mentions=arrays(np.float32, st.tuples(st.integers(1, 4), st.just(5)), elements=VALUES),
)
def test_unit_vectors_carry_the_inner_products(entities: np.ndarray, mentions: np.ndarray) -> None:
    unit, longest = lifted_entities(entities)
    asking, lengths = lifted_mentions(mentions)
    for rows in (unit, asking):
        np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-5)
    found = (asking @ unit.T) * (lengths * longest)[:, None]
    expected = mentions.astype(np.float64) @ entities.T
    scale = max(1e-6, longest * float(lengths.max()))
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-6)


def test_an_index_over_them_answers_with_the_highest_inner_products_whatever_their_lengths() -> None:
    chance = np.random.default_rng(0)
    entities = chance.normal(size=(500, 12)) * chance.uniform(0.1, 8, size=(500, 1))
    mentions = chance.normal(size=(20, 12)) * chance.uniform(0.1, 8, size=(20, 1))
    unit, _ = lifted_entities(entities.astype(np.float32))
    _, places = build_index(unit, ExactSettings()).search(lifted_mentions(mentions.astype(np.float32))[0], 10)
    np.testing.assert_array_equal(places, np.argsort(-(mentions @ entities.T), axis=1)[:, :10])


def test_a_mention_of_which_nothing_is_known_finds_nothing_better_than_anything_else() -> None:
    unit, lengths = lifted_mentions(np.zeros((1, 3), np.float32))
    assert lengths[0] == 0
    np.testing.assert_array_equal(unit, [[0, 0, 0, 1]])
    assert lifted_entities(np.zeros((2, 3), np.float32))[1] == 1.0


def test_a_vector_that_is_not_finite_is_refused_with_its_row() -> None:
    vectors = np.ones((3, 2), np.float32)
    vectors[1] = np.nan
    with pytest.raises(BadInput, match="entity 1"):
        lifted_entities(vectors)
    with pytest.raises(BadInput, match="mention 1"):
        lifted_mentions(vectors)
