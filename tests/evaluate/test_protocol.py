"""The strict protocol: cases counted by hand, every metric against its definition mention by mention, and what must
hold whatever the outcomes are."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.errors import BadInput
from localmel.evaluate.metrics import area_under_roc, expected_calibration_error, f1_of
from localmel.evaluate.protocol import (
    SLICES,
    EvaluationSettings,
    Facts,
    Outcome,
    TieRule,
    counted_rank,
    evaluate,
    metric_names,
    rank_in,
)
from localmel.records import Candidate, Ranking

Make = Callable[..., Outcome]
Draw = Callable[..., list[Outcome]]
Bootstrap = Callable[..., tuple[float, float, float]]
QUICK = EvaluationSettings(samples=50)


def values(outcomes: Sequence[Outcome], name: str = "all") -> dict[str, float]:
    """Metric -> number, of one slice."""
    found = next(one for one in evaluate(outcomes, QUICK).slices if one.name == name)
    return {metric: estimate.value for metric, estimate in found.metrics.items()}


def test_a_case_counted_by_hand(outcome: Make) -> None:
    found = values(
        [
            outcome("a", rank=1.0, probability=0.95),  # right
            outcome("b", rank=1.5, predicted="Q9", probability=0.95),  # tied for the first place, and wrong
            outcome("c", rank=4.0, predicted=None, probability=0.95),  # NIL said, wrongly
            outcome("d", rank=20.0, predicted="Q9", probability=0.95),  # not among the 16
            outcome("e", gold=None, predicted=None, probability=0.95),  # NIL, rightly
        ]
    )
    assert found == pytest.approx(
        {
            "hits@1": 1 / 4,
            "hits@3": 2 / 4,
            "hits@5": 3 / 4,
            "hits@10": 3 / 4,
            "hits@16": 3 / 4,
            "hits@20": 1.0,
            "mrr": (1 + 2 / 3 + 1 / 4 + 1 / 20) / 4,
            "recall@16": 3 / 4,
            "accuracy": 2 / 5,
            "nil_precision": 1 / 2,
            "nil_recall": 1.0,
            "nil_f1": 2 / 3,
            "nil_auroc": (3 + 1 / 2) / 4,  # c was answered NIL as surely as e
            "ece": 0.95 - 2 / 5,
        }
    )


def slow_metrics(outcomes: Sequence[Outcome], k: int) -> dict[str, float]:
    """Every metric from its definition, one mention at a time; no key where it is not defined."""
    inside = [one for one in outcomes if one.gold is not None]
    nil = np.array([one.gold is None for one in outcomes], bool)
    said = np.array([one.predicted is None for one in outcomes], bool)
    right = np.array([one.predicted == one.gold for one in outcomes], bool)
    found: dict[str, float] = {}
    ranks = [one.rank if one.among_candidates else max(one.rank, k + 1) for one in inside]
    if inside:
        for at in (1, 3, 5, 10, 16, 20):
            found[f"hits@{at}"] = sum(rank <= at for rank in ranks) / len(ranks)
        found["mrr"] = sum(0.0 if math.isinf(rank) else 1 / rank for rank in ranks) / len(ranks)
        found[f"recall@{k}"] = sum(one.among_candidates for one in inside) / len(inside)
    if outcomes:
        found["accuracy"] = float(right.mean())
        found["ece"] = expected_calibration_error(np.array([one.probability for one in outcomes]), right)
    if nil.any():
        precision, recall, f1 = f1_of(said, nil)
        found |= {"nil_recall": recall, "nil_f1": f1} | ({"nil_precision": precision} if said.any() else {})
        if not nil.all():
            found["nil_auroc"] = area_under_roc(nil, np.array([one.nil_probability for one in outcomes]))
    return found


@given(
    n=st.integers(0, 40),
    seed=st.integers(0, 10_000),
    share_nil=st.sampled_from([0.0, 0.3, 1.0]),
    k=st.sampled_from([1, 4, 16]),
)
@settings(max_examples=40, deadline=None)
def test_every_metric_of_every_slice_is_its_definition(draw: Draw, n: int, seed: int, share_nil: float, k: int) -> None:
    outcomes = draw(n, seed=seed, share_nil=share_nil)
    evaluation = evaluate(outcomes, EvaluationSettings(k=k, samples=20))
    assert [one.name for one in evaluation.slices] == list(SLICES)
    for one in evaluation.slices:
        members = [outcome for outcome in outcomes if SLICES[one.name](outcome)]
        assert (one.n, one.n_in_kb + one.n_nil) == (len(members), len(members))
        assert one.n_nil == sum(outcome.gold is None for outcome in members)
        assert one.n_sentences == len({outcome.cluster for outcome in members})
        found = {name: estimate.value for name, estimate in one.metrics.items()}
        assert found == pytest.approx(slow_metrics(members, k))


@given(n=st.integers(1, 60), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_what_holds_whatever_the_outcomes_are(draw: Draw, n: int, seed: int) -> None:
    overall = evaluate(draw(n, seed=seed), QUICK).overall
    for estimate in overall.metrics.values():
        assert 0.0 <= estimate.value <= 1.0
        if estimate.low is not None and estimate.high is not None:
            assert 0.0 <= estimate.low <= estimate.high <= 1.0
    if overall.n_in_kb:
        found = {name: estimate.value for name, estimate in overall.metrics.items()}
        rising = [found[f"hits@{k}"] for k in QUICK.hits_at]
        assert all(lower <= higher for lower, higher in pairwise(rising))
        assert found["hits@1"] - 1e-12 <= found["mrr"] <= 1.0
        assert found["hits@16"] <= found["recall@16"]


def test_the_order_of_the_outcomes_does_not_matter(draw: Draw) -> None:
    outcomes = draw(80)
    shuffled = random.Random(1).sample(outcomes, len(outcomes))
    assert evaluate(shuffled, QUICK) == evaluate(outcomes, QUICK)


def test_every_interval_is_that_of_clusters_drawn_one_by_one(draw: Draw, bootstrap: Bootstrap) -> None:
    outcomes = draw(90, share_nil=0.0)
    found = evaluate(outcomes, EvaluationSettings(samples=300, seed=5)).overall.metrics
    clusters = [one.cluster for one in outcomes]
    ranks = [counted_rank(one, EvaluationSettings()) for one in outcomes]
    for name, hits in {
        "hits@1": [float(rank <= 1) for rank in ranks],
        "mrr": [1 / rank for rank in ranks],
        "accuracy": [float(one.predicted == one.gold) for one in outcomes],
    }.items():
        estimate = found[name]
        expected = bootstrap(hits, clusters, samples=300, seed=5)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(expected)
        assert estimate.n == 90


def test_a_slice_without_mentions_has_no_numbers(outcome: Make) -> None:
    for evaluation in (evaluate([], QUICK), evaluate([outcome("a"), outcome("b")], QUICK)):
        nil = next(one for one in evaluation.slices if one.name == "NIL")
        assert (nil.n, nil.n_sentences, dict(nil.metrics)) == (0, 0, {})
    assert evaluate([], QUICK).overall.n == 0


def test_what_is_not_defined_in_a_slice_is_absent(draw: Draw) -> None:
    by_name = {one.name: one for one in evaluate(draw(60), QUICK).slices}
    assert {"nil_precision", "nil_recall", "nil_f1", "nil_auroc"}.isdisjoint(by_name["gold in the KB"].metrics)
    assert {"hits@1", "mrr", "recall@16", "nil_auroc"}.isdisjoint(by_name["NIL"].metrics)
    assert by_name["NIL"].metrics["nil_recall"].value == by_name["NIL"].metrics["accuracy"].value
    assert tuple(by_name["all"].metrics) == metric_names(QUICK)


def test_a_fact_that_is_not_known_puts_a_mention_in_neither_slice(outcome: Make) -> None:
    outcomes = [
        outcome("a", facts=Facts(has_image=True)),
        outcome("b", facts=Facts(has_image=False)),
        outcome("c"),
    ]
    n = {one.name: one.n for one in evaluate(outcomes, QUICK).slices}
    assert (n["all"], n["with image"], n["without image"], n["ambiguous surface"]) == (3, 1, 1, 0)


def test_one_sentence_has_numbers_and_no_interval(outcome: Make) -> None:
    found = evaluate([outcome("a", cluster="s"), outcome("b", cluster="s", rank=2.0)], QUICK).overall.metrics
    assert (found["hits@1"].value, found["hits@1"].low, found["hits@1"].high) == (0.5, None, None)
    assert str(found["hits@1"]) == "0.500"


def test_a_gold_outside_the_candidates_is_a_miss_at_every_k_up_to_their_number(outcome: Make) -> None:
    tied_at_the_edge = outcome("a", rank=14.5, among_candidates=False)
    found = values([tied_at_the_edge])
    assert (found["hits@16"], found["hits@20"], found["mrr"], found["recall@16"]) == (0, 1, pytest.approx(1 / 17), 0)
    assert counted_rank(outcome("b", rank=900.0), QUICK) == 900.0
    nowhere = values([outcome("c", rank=math.inf)])
    assert (nowhere["hits@20"], nowhere["mrr"]) == (0.0, 0.0)


def test_recall_is_apart_from_ranking(outcome: Make) -> None:
    found = values([outcome("a", rank=16.0), outcome("b", rank=16.0)])
    assert (found["recall@16"], found["hits@10"]) == (1.0, 0.0)


def test_nil_is_scored_by_its_own_probability_or_by_what_the_answer_leaves(outcome: Make) -> None:
    said = [
        outcome("a", gold=None, predicted="Q9", probability=0.4, nil_probability=0.1),
        outcome("b", probability=0.7, nil_probability=0.2),
    ]
    assert values(said)["nil_auroc"] == 0.0
    left = [
        outcome("a", gold=None, predicted="Q9", probability=0.4),  # leaves .6
        outcome("b", probability=0.7),  # leaves .3
    ]
    assert values(left)["nil_auroc"] == 1.0
    with pytest.raises(BadInput, match="1 of 2 outcomes have a NIL probability"):
        evaluate([said[0], left[1]], QUICK)


def test_two_outcomes_of_one_mention_are_refused(outcome: Make) -> None:
    with pytest.raises(BadInput, match="1 mentions have more than one outcome, such as 'a'"):
        evaluate([outcome("a"), outcome("b"), outcome("a")], QUICK)


def test_the_fingerprint_tells_whether_the_same_was_asked(outcome: Make) -> None:
    one = evaluate([outcome("a"), outcome("b", rank=3.0)], QUICK)
    answered_otherwise = evaluate([outcome("b"), outcome("a", predicted="Q9")], QUICK)
    assert one.mentions == answered_otherwise.mentions
    assert one.mentions != evaluate([outcome("a"), outcome("b", gold="Q2", predicted="Q2")], QUICK).mentions
    assert one.mentions != evaluate([outcome("a"), outcome("b", cluster="a")], QUICK).mentions


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"rank": 0.0}, "ranks start at 1"),
        ({"rank": math.nan, "among_candidates": True}, "ranks start at 1"),
        ({"probability": math.nan}, "has probability nan"),
        ({"nil_probability": 1.1}, "has probability 1.1"),
        ({"gold": None, "among_candidates": True}, "is NIL, yet its gold has rank"),
        ({"gold": None, "facts": Facts(gold_seen=False)}, "is NIL, yet has facts about its gold"),
        ({"rank": math.inf, "among_candidates": True}, "yet no rank"),
        ({"rank": 900.0, "predicted": "Q1"}, "is right with 'Q1', which is not among its candidates"),
    ],
)
def test_an_outcome_that_contradicts_itself_is_refused(outcome: Make, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        outcome("a", **given)


@pytest.mark.parametrize("given", [{"k": 0}, {"samples": 0}, {"hits_at": ()}, {"hits_at": (0, 1)}, {"hits_at": (3, 1)}])
def test_settings_that_mean_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be 1 or more|ascending order"):
        EvaluationSettings(**given)


# --- the rank of the gold -------------------------------------------------------------------------------------------

TIES: tuple[TieRule, ...] = ("mean", "pessimistic", "optimistic")
few_scores = st.sampled_from([-1.0, 0.0, 0.5, 2.0])


def ranking(scores: Sequence[float]) -> Ranking:
    best_first = sorted(((score, f"Q{place}") for place, score in enumerate(scores)), key=lambda pair: -pair[0])
    candidates = tuple(Candidate(entity_id=name, score=score) for score, name in best_first)
    return Ranking(mention_id="m", candidates=candidates)


@given(st.lists(few_scores, min_size=1, max_size=12), st.data(), st.sampled_from(TIES))
@settings(max_examples=150, deadline=None)
def test_counting_gives_the_places_that_sorting_gives(scores: list[float], data: st.DataObject, ties: TieRule) -> None:
    gold = data.draw(st.integers(0, len(scores) - 1))
    best_first = sorted(scores, reverse=True)
    places = [place for place, score in enumerate(best_first, 1) if score == scores[gold]]
    expected = {"mean": sum(places) / len(places), "pessimistic": max(places), "optimistic": min(places)}[ties]
    assert rank_in(ranking(scores), f"Q{gold}", ties=ties) == expected


def test_the_tie_rules_of_a_case_counted_by_hand() -> None:
    shared = ranking([0.9, 0.5, 0.5, 0.5, 0.1])  # the gold shares places 2, 3 and 4
    assert [rank_in(shared, "Q2", ties=ties) for ties in TIES] == [3.0, 4.0, 2.0]
    with pytest.raises(ValueError, match="'lucky' is none of mean"):
        rank_in(shared, "Q2", ties="lucky")  # type: ignore[arg-type]


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
