"""Ranks by counting, against a full sort that spreads the places of equal scores by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.evaluate.ranks import TieRule, rank_in, ranks_of_gold
from localmel.records import Candidate, Ranking

TIES: tuple[TieRule, ...] = ("mean", "pessimistic", "optimistic")
few_scores = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, math.inf])
rows = st.lists(few_scores, min_size=1, max_size=12)


def places_by_sorting(scores: list[float], gold: int) -> list[int]:
    """Every place, from 1, that a full sort could give the gold."""
    best_first = sorted(scores, reverse=True)
    return [place for place, score in enumerate(best_first, 1) if score == scores[gold]]


def rank_by_sorting(scores: list[float], gold: int, ties: TieRule) -> float:
    places = places_by_sorting(scores, gold)
    return {"mean": sum(places) / len(places), "pessimistic": max(places), "optimistic": min(places)}[ties]


def ranking(scores: list[float]) -> Ranking:
    best_first = sorted(((score, f"Q{place}") for place, score in enumerate(scores)), key=lambda pair: -pair[0])
    return Ranking(
        mention_id="m", candidates=tuple(Candidate(entity_id=name, score=score) for score, name in best_first)
    )


@given(rows, st.data(), st.sampled_from(TIES))
@settings(max_examples=150, deadline=None)
def test_counting_gives_the_places_that_sorting_gives(scores: list[float], data: st.DataObject, ties: TieRule) -> None:
    gold = data.draw(st.integers(0, len(scores) - 1))
    expected = rank_by_sorting(scores, gold, ties)
    assert ranks_of_gold(np.array([scores]), [gold], ["m"], ties=ties).tolist() == [expected]
    assert rank_in(ranking(scores), f"Q{gold}", ties=ties) == expected


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32])
def test_a_chunk_of_mentions_is_ranked_row_by_row(kind: type[Any]) -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 9, (40, 30)).astype(kind)
    gold = random.integers(-1, 30, 40)
    names = [str(number) for number in range(40)]
    for ties in TIES:
        expected = [
            math.inf if column < 0 else rank_by_sorting(row.tolist(), int(column), ties)
            for row, column in zip(scores, gold, strict=True)
        ]
        assert ranks_of_gold(scores, gold, names, ties=ties).tolist() == expected


def test_the_tie_rules_of_a_case_counted_by_hand() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.5, 0.1]])  # the gold shares places 2, 3 and 4
    assert ranks_of_gold(scores, [2], ["m"])[0] == 3.0
    assert ranks_of_gold(scores, [2], ["m"], ties="pessimistic")[0] == 4.0
    assert ranks_of_gold(scores, [2], ["m"], ties="optimistic")[0] == 2.0


def test_the_rank_does_not_depend_on_where_the_gold_is_stored() -> None:
    same = np.zeros((5, 5), np.float32)
    assert ranks_of_gold(same, range(5), list("abcde")).tolist() == [3.0] * 5


def test_a_gold_that_no_entity_is_has_no_rank() -> None:
    assert ranks_of_gold(np.ones((2, 3)), [-1, 0], ["a", "b"]).tolist() == [math.inf, 2.0]
    assert ranks_of_gold(np.ones((1, 0)), [-1], ["a"]).tolist() == [math.inf]
    assert ranks_of_gold(np.ones((0, 4)), [], []).tolist() == []


def test_a_score_that_is_no_number_is_refused_with_its_mention() -> None:
    scores = np.ones((3, 4), np.float32)
    scores[1, 2] = math.nan
    with pytest.raises(BadInput, match=r"'beta' has a score that is no number \(NaN\), for the entity in column 2; 1 "):
        ranks_of_gold(scores, [0, 0, 0], ["alpha", "beta", "gamma"])


@pytest.mark.parametrize(
    ("scores", "gold", "ids"),
    [
        (np.ones((2, 3)), [0], ["a", "b"]),
        (np.ones((2, 3)), [0, 0], ["a"]),
        (np.ones(3), [0], ["a"]),
        (np.ones((1, 3)), [3], ["a"]),
        (np.ones((1, 3)), [-2], ["a"]),
    ],
)
def test_shapes_and_columns_that_do_not_fit_are_refused(scores: NDArray[Any], gold: list[int], ids: list[str]) -> None:
    with pytest.raises(ValueError, match=r"do not fit|is none of"):
        ranks_of_gold(scores, gold, ids)


def test_an_unknown_tie_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="'lucky' is none of mean"):
        ranks_of_gold(np.ones((1, 2)), [0], ["a"], ties="lucky")  # type: ignore[arg-type]


def test_a_gold_outside_the_candidates_is_a_miss_at_the_rank_it_is_given() -> None:
    three = ranking([3.0, 2.0, 1.0])
    assert rank_in(three, "Q77") == math.inf
    assert rank_in(three, "Q77", outside=900) == 900
    assert rank_in(three, "Q77", outside=2.5) == 4.0  # never better than behind the last
    assert rank_in(three, None) == math.inf
    assert rank_in(Ranking(mention_id="m", candidates=()), "Q77") == math.inf
    for no_rank in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="is no rank"):
            rank_in(three, "Q77", outside=no_rank)
