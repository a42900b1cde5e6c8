"""Candidates by fuzzy name against slow truth, and shares counted by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from localmel.evaluate.fuzzy import TOP, FuzzyOutcome, NamePool, fuzzy_counts
from localmel.report.evaluation import fuzzy_json, fuzzy_markdown
from localmel.store.progress import Listener, listening

WORDS = "ada byron byrom jordan michael michel chicago bulls of the new york yorkshire st louis an".split()
NAMES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join), max_size=40)
SURFACES = st.lists(st.lists(st.sampled_from([*WORDS, "jordn", "x"]), max_size=3).map(" ".join), max_size=5)


def slow(surface: str, names: list[str], n: int) -> list[int]:
    """Every name by WRatio, then plain ratio, then the shuffle; as float32 has the ratio."""
    if not surface:
        return []
    keys = [
        (
            -fuzz.WRatio(surface, name),
            -float(np.float32(fuzz.ratio(surface, name))),
            (place * 2654435761) & 0xFFFFFFFF,
            place,
        )
        for place, name in enumerate(names)
    ]
    return [place for *_, place in sorted(keys)[:n]]


@settings(deadline=None)
@given(NAMES, SURFACES, st.integers(1, 12))
def test_where_every_name_is_scored_the_order_is_that_of_the_score(
    names: list[str], surfaces: list[str], n: int
) -> None:
    found = NamePool(names).candidates(surfaces, n=n, workers=1)
    assert [one.places.tolist() for one in found] == [slow(surface, names, n) for surface in surfaces]


def test_threads_pieces_and_repeats_decide_nothing() -> None:
    draw = random.Random(0)
    names = [" ".join(draw.choices(WORDS, k=draw.randint(1, 3))) for _ in range(2000)]
    surfaces = [" ".join(draw.choices([*WORDS, "jordn"], k=2)) for _ in range(150)]
    pool = NamePool(names)
    one = pool.candidates(surfaces, nearest=50, workers=1)
    done: list[int] = []
    with listening(Listener(on_done=done.append)):
        two = NamePool(names).candidates(surfaces[::-1], nearest=50, workers=2)[::-1]
    assert [each.places.tolist() for each in one] == [each.places.tolist() for each in two]
    assert sum(done) == len(surfaces)
    alone = pool.candidates([surfaces[7]], nearest=50)[0]
    assert alone.places.tolist() == one[7].places.tolist()
    assert all((np.diff(each.scores) <= 0).all() for each in one)
    assert all(len(set(each.places.tolist())) == 100 for each in one)


def test_part_of_a_name_and_a_misspelt_name_are_found_in_a_large_pool() -> None:
    draw = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = ["".join(draw.choices(letters, k=8)) for _ in range(3000)]
    names[1234] = "oscar palmer robertson"
    names[77] = "chicago bulls"
    pool = NamePool(names)
    for surface, place in (("robertson", 1234), ("robertsen", 1234), ("chicaco bulls", 77), ("bulls", 77)):
        assert pool.candidates([surface])[0].places[0] == place


def test_what_has_no_letter_has_no_candidates() -> None:
    assert [len(one.places) for one in NamePool(["a", "b"]).candidates(["", "a", ""])] == [0, 2, 0]
    assert len(NamePool([]).candidates(["a"])[0].places) == 0
    assert NamePool(["", "a"]).candidates(["a"])[0].places.tolist() == [1, 0]
    assert NamePool(["a"]).candidates([]) == []


RANKS = [1.0, 1.5, 5.0, 11.0, 100.0, math.inf, 1.0, math.inf]


def outcomes(ranks: list[float]) -> list[FuzzyOutcome]:
    return [FuzzyOutcome(mention_id=str(n), cluster=str(n // 2), rank=rank) for n, rank in enumerate(ranks)]


def test_a_gold_that_is_no_candidate_is_a_miss_for_every_k() -> None:
    counts = fuzzy_counts(outcomes(RANKS))
    assert counts.recall is not None
    assert (counts.n, counts.recall.value) == (8, 6 / 8)
    assert {k: one.value for k, one in counts.top.items()} == {1: 2 / 8, 5: 4 / 8, 10: 4 / 8, 20: 5 / 8}
    assert {k: one.value for k, one in counts.top_given.items()} == {1: 2 / 6, 5: 4 / 6, 10: 4 / 6, 20: 5 / 6}
    assert {one.n for one in counts.top_given.values()} == {6}
    for one in (*counts.top.values(), *counts.top_given.values(), counts.recall):
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high


def test_the_order_of_the_outcomes_does_not_matter() -> None:
    assert fuzzy_counts(outcomes(RANKS)) == fuzzy_counts(outcomes(RANKS)[::-1])


def test_nothing_to_count_is_said_and_not_divided() -> None:
    assert fuzzy_counts([]).recall is None
    counts = fuzzy_counts(outcomes([math.inf, math.inf]))
    assert (counts.recall and counts.recall.value, counts.top[1].value, counts.top_given) == (0.0, 0.0, {})
    text = fuzzy_markdown({"none": fuzzy_counts([]), "no": counts}, left_out=3)
    assert "| none | 0 | – | – |" in text
    assert "| no | 2 | 0.000" in text
    found = fuzzy_json({"none": fuzzy_counts([])}, left_out=3)
    assert found["systems"]["none"] == {"n": 0, "recall@100": None, "top": {}, "top_given": {}}


def test_a_rank_that_is_none_is_refused() -> None:
    for rank in (0.0, math.nan, -1.0):
        with pytest.raises(ValueError, match="ranks start at 1"):
            FuzzyOutcome(mention_id="1", cluster="1", rank=rank)
    assert TOP == (1, 5, 10, 20)
