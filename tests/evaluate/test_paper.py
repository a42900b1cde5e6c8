"""The paper's own counting: by hand, and against what is known of the published numbers."""

from __future__ import annotations

import math

import pytest

from localmel.errors import BadInput
from localmel.evaluate.paper import (
    LABEL,
    PaperMention,
    lenient_hit,
    paper_counts,
    paper_key,
)


def mention(mention_id: str, gold: str = "Q1", rank: float = 1.0, *, answered: bool | None = None) -> PaperMention:
    return PaperMention(mention_id=mention_id, gold=gold, rank=rank, answered=answered)


def test_the_key_joins_mentions_of_one_sentence_with_one_gold() -> None:
    assert paper_key("wikidiverse/61-0", "Q38076") == paper_key("wikidiverse/61-3", "Q38076") == "wikidiverse/61-Q38076"
    assert paper_key("richpediamel/Q254", "Q254") == "richpediamel/Q254-Q254"
    assert paper_key("a-b-12", "Q1") == "a-b-Q1"


def test_of_two_mentions_with_one_key_the_last_of_the_sentence_counts() -> None:
    mentions = [mention("7-10", rank=4.0), mention("7-9", rank=1.0), mention("7-1", "Q2", rank=2.0), mention("8-9")]
    for order in (mentions, mentions[::-1]):
        found = paper_counts(order)
        assert (found.n_mentions, found.n_keys, found.reranked) == (4, 3, None)
        assert found.retrieval["hits@1"] == pytest.approx(1 / 3)
        assert found.retrieval["mrr"] == pytest.approx((1 / 4 + 1 / 2 + 1) / 3)
        assert list(found.retrieval) == ["hits@1", "hits@3", "hits@5", "hits@10", "hits@16", "hits@100", "mrr"]


def test_reranking_counts_every_mention_and_puts_a_miss_one_place_back() -> None:
    mentions = [
        mention("1-0", rank=1.0, answered=False),  # place 2 now
        mention("1-1", rank=900.0, answered=True),  # place 1, though it was no candidate
        mention("2-0", rank=math.inf, answered=False),
    ]
    found = paper_counts(mentions)
    assert found.n_keys == 2
    assert found.reranked is not None
    assert found.reranked["hits@1"] == pytest.approx(1 / 3)
    assert found.reranked["mrr"] == pytest.approx((1 / 2 + 1) / 3)
    assert found.reranked["hits@1"] > found.retrieval["hits@16"]  # more right answers than candidates held


@pytest.mark.parametrize(
    ("response", "hit"),
    [
        ("The entity is Q42.", True),
        ("Between Q7 and Q42 I choose Q42.", False),  # judged by the first
        ("Q421", False),
        ("It is douglas ADAMS, Q7.", True),  # the label stands in it
        ("Adams", False),
        ("", False),
    ],
)
def test_an_answer_is_right_by_its_first_number_or_by_the_label_anywhere(response: str, hit: bool) -> None:
    assert lenient_hit(response, "Q42", "Douglas Adams") is hit


def test_a_blank_label_stands_in_no_answer() -> None:
    assert not lenient_hit("anything", "Q42")
    assert not lenient_hit("any thing", "Q42", " ")


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(BadInput, match="no mentions"):
        paper_counts([])
    with pytest.raises(BadInput, match="2 mentions, but only 1 ids"):
        paper_counts([mention("1-0"), mention("1-0", "Q2")])
    with pytest.raises(BadInput, match="1 of 2 mentions have an answer"):
        paper_counts([mention("1-0", answered=True), mention("1-1")])
    with pytest.raises(ValueError, match="has rank 0"):
        mention("1-0", rank=0)


def test_the_label_says_that_nothing_is_comparable() -> None:
    assert LABEL == "paper protocol, not comparable"
