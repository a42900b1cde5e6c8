"""The nouns refuse, when they are made, what would fail later somewhere else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from localmel.records import Candidate, Entity, Evidence, Link, Mention, Ranking, Span, Split, Triple

RANKING = Ranking(
    mention_id="m", candidates=(Candidate(entity_id="Q1", score=0.5), Candidate(entity_id="Q2", score=0.5))
)
MENTION = Mention(id="m", surface="Jordan", context="Air Jordan", span=Span(start=4, end=10))


def link(**changes: Any) -> Link:
    facts: dict[str, Any] = {
        "mention_id": "m",
        "entity_id": "Q2",
        "probability": 0.5,
        "decided_by": "test",
        "evidence": (),
        "ranking": RANKING,
    }
    return Link(**(facts | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "web"}, "'web' is not one of"),
        ({"relation": ""}, "empty relation or tail"),
        ({"tail": " "}, "empty relation or tail"),
    ],
)
def test_a_triple_needs_a_relation_a_tail_and_a_known_source(changes: dict[str, Any], said: str) -> None:
    facts = {"head": "Jordan", "relation": "sport", "tail": "basketball", "source": "kb"}
    assert Triple(**facts).phrase == "sport: basketball"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=said):
        Triple(**(facts | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": ""}, "empty or has blanks"),
        ({"id": " Q1"}, "empty or has blanks"),
        ({"id": "Q1\n"}, "empty or has blanks"),
        ({"id": "Q\t1"}, "a tab or a line break"),
        ({"label": " "}, "no label"),
        ({"popularity": float("nan")}, "not a number"),
        ({"popularity": float("inf")}, "not a number"),
    ],
)
def test_an_entity_needs_an_id_a_label_and_a_finite_popularity(changes: dict[str, Any], said: str) -> None:
    facts: dict[str, Any] = {"id": "Q1", "label": "Jordan", "popularity": 0.0}
    assert Entity(**facts).aliases == ()
    with pytest.raises(ValueError, match=said):
        Entity(**(facts | changes))


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 3), (-1, 2)])
def test_a_span_is_never_empty_reversed_or_before_the_text(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="empty or reversed"):
        Span(start=start, end=end)


@pytest.mark.parametrize(("start", "end"), [(3, 9), (4, 9), (4, 11), (40, 46)])
def test_a_mention_is_what_its_span_holds_and_no_more(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="not 'Jordan'"):
        Mention(id="m", surface="Jordan", context="Air Jordan", span=Span(start=start, end=end))


def test_a_candidate_without_a_score_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Candidate(entity_id="Q1", score=float("nan"))


def test_a_ranking_is_best_first_and_names_no_entity_twice() -> None:
    best, rest = Candidate(entity_id="Q1", score=2.0), Candidate(entity_id="Q2", score=1.0)
    assert Ranking(mention_id="m", candidates=(best, rest)).candidates[0] is best
    with pytest.raises(ValueError, match="not best first"):
        Ranking(mention_id="m", candidates=(rest, best))
    with pytest.raises(ValueError, match="repeats"):
        Ranking(mention_id="m", candidates=(best, best))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"probability": 1.1}, "probability 1.1"),
        ({"probability": float("nan")}, "probability nan"),
        ({"entity_id": "Q3"}, "not one of its candidates"),
        ({"mention_id": "other"}, "carries the ranking of 'm'"),
    ],
)
def test_a_link_is_a_candidate_with_a_probability(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        link(**changes)


def test_a_link_may_say_that_the_entity_is_not_in_the_kb() -> None:
    assert link(entity_id=None).entity_id is None


@pytest.mark.parametrize("gold", [{}, {"other": "Q1"}, {"m": None, "other": None}])
def test_a_split_has_gold_for_each_mention_and_for_nothing_else(gold: dict[str, str | None]) -> None:
    with pytest.raises(ValueError, match="without gold"):
        Split(name="val", mentions=(MENTION,), gold=gold)


def test_a_split_names_no_mention_twice_and_hides_its_gold_when_printed() -> None:
    with pytest.raises(ValueError, match="repeats"):
        Split(name="val", mentions=(MENTION, MENTION), gold={"m": "Q1"})
    assert "Q4711" not in repr(Split(name="val", mentions=(MENTION,), gold={"m": "Q4711"}))


def test_the_nouns_cannot_be_changed() -> None:
    fact = Triple(head="a", relation="b", tail="c", source="kb")
    for noun in (fact, MENTION, RANKING, link(), Evidence(mention_triple=fact, entity_triple=fact, similarity=1.0)):
        field = dataclasses.fields(noun)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(noun, field, "other")
        assert not hasattr(noun, "__dict__")
