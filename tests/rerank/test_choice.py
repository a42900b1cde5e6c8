"""From letters to a link: nothing is lost on the way, and the choice moves to the front and nobody else moves past."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.evaluate.protocol import rank_in
from localmel.records import Candidate, Ranking
from localmel.rerank.calibration import decide, probabilities_of
from localmel.rerank.choice import (
    Choice,
    Vote,
    averaged,
    in_front,
    link_of,
    scorer_answer,
    vote_of,
)
from tests.rerank.known_models import question_about

LETTERS = ("A", "B", "C")


def vote(*shares: float, order: tuple[int, ...] = (0, 1)) -> Vote:
    made = vote_of(order, LETTERS, {letter: math.log(one) for letter, one in zip(LETTERS, shares, strict=True)}, "")
    assert isinstance(made, Vote)
    return made


def test_letters_lead_back_to_the_candidates_that_stood_there() -> None:
    made = vote(0.7, 0.2, 0.1, order=(1, 0))
    assert (made.place, made.option) == (0, 1)
    assert vote(0.1, 0.2, 0.7).option is None
    assert probabilities_of(averaged([made])) == pytest.approx((0.2, 0.7, 0.1))


def test_an_answer_without_probabilities_has_all_of_it_and_one_that_says_nothing_is_a_problem() -> None:
    made = vote_of((0, 1), LETTERS, {}, "B")
    assert isinstance(made, Vote)
    assert probabilities_of(averaged([made])) == pytest.approx((0.0, 1.0, 0.0), abs=1e-9)
    assert "not a letter from A to C" in str(vote_of((0, 1), LETTERS, {}, "Z, I think"))
    for broken in ({"A": math.nan}, {"A": -math.inf}, {"A": math.inf}, {"Z": 0.0}):
        assert "are not finite" in str(vote_of((0, 1), LETTERS, broken, "A"))


def test_probabilities_that_do_not_sum_to_one_are_made_to() -> None:
    made = vote_of((0, 1), LETTERS, {"A": -1.0, "B": -1.0}, "A")
    assert isinstance(made, Vote)
    assert [math.exp(log) for log in made.logs] == pytest.approx([0.5, 0.5, 0.0])


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_a_liking_for_places_cancels_out_when_each_candidate_stands_in_each(
    knows: list[float], liking: list[float]
) -> None:
    """The logits are a quality of the candidate plus a bias of the place; NIL always stands at the end."""
    votes = []
    for turn in range(4):
        order = tuple((place + turn) % 4 for place in range(4))
        logits = [*(knows[option] + liking[place] for place, option in enumerate(order)), 0.5]
        letters = tuple("ABCDE")
        made = vote_of(order, letters, dict(zip(letters, logits, strict=True)), "A")
        assert isinstance(made, Vote)
        votes.append(made)
    bias = sum(liking) / 4
    assert probabilities_of(averaged(votes)) == pytest.approx(probabilities_of([*(one + bias for one in knows), 0.5]))


def test_equal_candidates_keep_the_order_of_retrieval() -> None:
    logs = averaged([vote(0.8, 0.1, 0.1), vote(0.8, 0.1, 0.1, order=(1, 0))])
    assert decide(logs, 0.5)[0] == 0


def test_nil_is_answered_from_the_threshold_on() -> None:
    logs = [math.log(0.35), math.log(0.25), math.log(0.4)]
    assert decide(logs, 0.5)[:2] == (0, pytest.approx(0.35))
    assert decide(logs, 0.4 - 1e-9)[:2] == (None, pytest.approx(0.4))
    assert decide([0.0], 0.5) == (None, 1.0, 1.0)


scores = st.lists(st.sampled_from([0.0, 0.1, 0.1, 0.5, 0.9, 1.0]), min_size=1, max_size=8).map(
    lambda values: sorted(values, reverse=True)
)


@given(scores, st.data())
def test_the_choice_moves_to_the_front_and_whoever_stood_at_r_is_at_r_or_one_behind(
    values: list[float], data: st.DataObject
) -> None:
    ids = [f"Q{n}" for n in range(len(values))]
    ranking = Ranking(
        mention_id="m",
        candidates=tuple(Candidate(entity_id=one, score=score) for one, score in zip(ids, values, strict=True)),
    )
    chosen = data.draw(st.sampled_from(ids))
    after = in_front(ranking, chosen)
    assert [one.entity_id for one in after.candidates] == [chosen, *(one for one in ids if one != chosen)]
    assert rank_in(after, chosen) == 1.0
    for place, one in enumerate(ids, 1):
        if one != chosen:
            new = [candidate.entity_id for candidate in after.candidates].index(one) + 1
            assert new in (place, place + 1)
            assert (new == place + 1) == (place < ids.index(chosen) + 1)
            assert rank_in(after, one) >= rank_in(ranking, one)
            assert rank_in(after, one) <= rank_in(ranking, one) + 1


def test_the_scorer_answers_by_its_first_candidate_or_nil() -> None:
    question = question_about(2, scores=[0.3, 0.1], nil=0.6)
    assert scorer_answer(question.ranking, 0.6, 0.5) == (None, 0.6)
    assert scorer_answer(question.ranking, 0.6, 0.7) == (0, 0.3)
    assert scorer_answer(question.ranking, 0.2, 0.1) == (0, 0.3)
    assert scorer_answer(Ranking(mention_id="m", candidates=()), 0.0, 0.5) == (None, 1.0)


def test_a_link_carries_the_cited_facts_first_and_the_whole_ranking() -> None:
    question = question_about(3, n_facts=3, beyond=2)
    choice = Choice(
        mention_id="m", option=1, probability=0.7, nil=0.1, decided_by="language model", cited=((1, 2), (0, 0))
    )
    link = link_of(question, choice, most_evidence=2)
    assert link.entity_id == "Q1"
    assert [pair.entity_triple.tail for pair in link.evidence] == ["fact 2 of Q1", "fact 0 of Q1"]
    assert [pair.similarity for pair in link.evidence] == [0.7, 0.9]
    assert [one.entity_id for one in link.ranking.candidates] == ["Q1", "Q0", "Q2", "X0", "X1"]
    nil = link_of(
        question, Choice(mention_id="m", option=None, probability=0.8, nil=0.8, decided_by="x"), most_evidence=2
    )
    assert (nil.entity_id, nil.evidence, nil.ranking) == (None, (), question.ranking)
