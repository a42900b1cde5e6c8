"""Generated triples against the gold's own: by hand, word for word and by likeness, and never more than there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from localmel.evaluate.triple_quality import folded, triple_quality
from localmel.records import Source, Triple

LIKE = {frozenset({"born in: Paris", "place of birth: Paris"})}


def similarity(ours: Sequence[str], theirs: Sequence[str]) -> Any:
    """1 for the same phrase, 0.9 for the two that mean the same, else 0.1."""
    return np.array([[1.0 if a == b else 0.9 if frozenset({a, b}) in LIKE else 0.1 for b in theirs] for a in ours])


def triple(relation: str, tail: str, source: Source = "text") -> Triple:
    return Triple(head="x", relation=relation, tail=tail, source=source)


KNOWN = {
    "a": [triple("occupation", "painter", "kb"), triple("place of birth", "Paris", "kb")],
    "b": [triple("occupation", "boxer", "kb")],
    "c": [triple("country", "France", "kb")],
}
CLUSTERS = {"a": "1", "b": "2", "c": "3"}


def test_a_case_counted_by_hand() -> None:
    said = {
        "a": [
            triple("Occupation", " PAINTER ", "image"),  # word for word, but for case and blanks
            triple("occupation", "painter"),  # the same again, counted once
            triple("born in", "Paris"),  # near
            triple("wears", "a hat", "image"),  # the KB does not say
        ],
        "b": [triple("occupation", "painter")],  # not of b
    }
    found = triple_quality(said, KNOWN, CLUSTERS, similarity)
    assert (found.n_mentions, found.n_said, found.n_known) == (3, 4, 4)
    shares = [found.precision, found.recall, found.near_precision, found.near_recall, found.unknown]
    assert [one.value for one in shares if one] == pytest.approx([1 / 4, 1 / 4, 2 / 4, 2 / 4, 2 / 4])
    assert found.by_source == {"image": (2, 0.5), "text": (2, 0.5)}
    assert found.threshold == 0.8


def test_likeness_counts_from_the_threshold_on() -> None:
    said = {"a": [triple("born in", "Paris")]}
    for threshold, near in ((0.9, 1.0), (0.91, 0.0)):
        found = triple_quality(said, KNOWN, CLUSTERS, similarity, threshold=threshold)
        assert found.near_precision is not None
        assert found.near_precision.value == near


def test_what_fits_anyone_is_as_good_by_chance() -> None:
    everyone = {name: [triple("instance of", "human", "kb"), triple("name", name, "kb")] for name in "abcd"}
    said = {name: [triple("instance of", "human")] for name in "abcd"}
    found = triple_quality(said, everyone, {name: name for name in "abcd"}, similarity)
    assert found.near_precision is not None
    assert (found.near_precision.value, found.by_chance) == (1.0, 1.0)
    own = {name: [triple("name", name)] for name in "abcd"}
    assert triple_quality(own, everyone, {name: name for name in "abcd"}, similarity).by_chance == 0.0


def test_where_nothing_was_said_there_is_no_precision_but_a_recall_of_0() -> None:
    found = triple_quality({}, KNOWN, CLUSTERS, similarity)
    assert (found.precision, found.unknown, found.by_chance, found.n_said) == (None, None, None, 0)
    assert found.recall is not None
    assert found.recall.value == 0.0


def test_a_mention_without_a_gold_in_the_kb_does_not_count() -> None:
    said = {"a": KNOWN["a"], "nil": [triple("occupation", "ghost")]}
    found = triple_quality(said, KNOWN, CLUSTERS, similarity)
    assert found.precision is not None
    assert (found.n_said, found.precision.value) == (2, 1.0)


def test_the_interval_draws_whole_sentences() -> None:
    known = {str(n): [triple("r", str(n), "kb")] for n in range(40)}
    said = {str(n): [triple("r", str(n) if n < 20 else "other")] for n in range(40)}
    apart = triple_quality(said, known, {str(n): str(n) for n in range(40)}, similarity).precision
    together = triple_quality(said, known, {str(n): str(n // 20) for n in range(40)}, similarity).precision
    assert apart is not None
    assert together is not None
    assert (together.low, together.high) == (0.0, 1.0)
    assert apart.low is not None
    assert 0.3 < apart.low < 0.5


words = some.sampled_from(["a", "A ", "b", "c"])
triples = some.lists(some.builds(triple, words, words), max_size=4)
tables = some.dictionaries(some.sampled_from("abc"), triples)


@settings(max_examples=50)
@given(tables, tables)
def test_shares_are_shares_and_near_holds_exact(said: dict[str, list[Triple]], known: dict[str, list[Triple]]) -> None:
    found = triple_quality(said, known, CLUSTERS, similarity, samples=20)
    for exact, near in ((found.precision, found.near_precision), (found.recall, found.near_recall)):
        assert (exact is None) == (near is None)
        if exact and near:
            assert 0.0 <= exact.value <= near.value <= 1.0
    if found.unknown and found.near_precision:
        assert found.unknown.value == pytest.approx(1 - found.near_precision.value)


def test_folding_is_of_case_blanks_and_composition() -> None:
    assert folded("  Ｓtraße\u00a0X ") == folded("strasse x")
    assert folded("e\u0301") == folded("é")
