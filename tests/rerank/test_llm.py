"""Asking a model: what it knows comes through, what it likes about places does not, and no mention is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localmel.engines.protocol import Request, Response
from localmel.errors import EngineStopped
from localmel.evaluate.position_bias import place_preference
from localmel.rerank.choice import BY_MODEL, BY_SCORER_FAILED, BY_SCORER_SURE, NO_CANDIDATE, Choice
from localmel.rerank.llm import choose
from localmel.settings import EngineSettings, RerankSettings
from localmel.store.journal import Journal
from tests.rerank.known_models import (
    KnownModel,
    likes_places,
    many_questions,
    prompt_of,
    question_about,
    right_with,
    without_logprobs,
)

SETTINGS = RerankSettings(backend="llm", model=EngineSettings(engine="scripted", weights="known"))


def hits(choices: list[Choice], n_options: int = 8) -> float:
    return sum(choice.option == number % n_options for number, choice in enumerate(choices)) / len(choices)


def test_a_model_that_knows_is_right_wherever_the_right_candidate_stands() -> None:
    questions, right = many_questions(200, nil_every=10)
    for orders in (1, 3):
        choices = list(choose(questions, KnownModel(right, right_with(1.0)), replace(SETTINGS, orders=orders)))
        assert [choice.mention_id for choice in choices] == [question.mention.id for question in questions]
        for number, choice in enumerate(choices):
            assert choice.option == (None if number % 10 == 0 else number % 8)
            assert choice.probability == pytest.approx(0.9)
            assert (choice.decided_by, choice.requests, len(choice.votes)) == (BY_MODEL, orders, orders)


def test_a_model_that_is_right_in_seven_of_ten_is_right_in_seven_of_ten() -> None:
    questions, right = many_questions(600)
    share = hits(list(choose(questions, KnownModel(right, right_with(0.7)), SETTINGS)))
    assert share == pytest.approx(0.7, abs=0.05)


def test_a_model_that_loves_the_first_place_is_found_out_and_cured_by_averaging() -> None:
    """One order: it always says A.  As many as candidates: the liking cancels out, and it knows after all."""
    questions, right = many_questions(240)
    loves_a = likes_places([6.0], knows=3.0)
    one = list(choose(questions, KnownModel(right, loves_a), SETTINGS))
    assert hits(one) == pytest.approx(1 / 8, abs=0.07)
    found = place_preference([choice.votes for choice in one])
    assert found is not None
    assert found.places[0].chosen == 1.0
    assert (found.moved, found.agreement) == (pytest.approx(7 / 8), None)
    assert found.p < 1e-9
    many = list(choose(questions, KnownModel(right, loves_a), replace(SETTINGS, orders=8)))
    assert hits(many) == 1.0
    found = place_preference([choice.votes for choice in many])
    assert found is not None
    assert found.agreement == 0.0
    few = list(choose(questions, KnownModel(right, loves_a), replace(SETTINGS, orders=3)))
    assert hits(few) > 0.9


def test_a_model_that_looks_at_no_place_is_not_accused() -> None:
    questions, right = many_questions(400)
    choices = list(choose(questions, KnownModel(right, right_with(0.6)), replace(SETTINGS, orders=2)))
    found = place_preference([choice.votes for choice in choices])
    assert found is not None
    assert found.p > 0.01
    assert found.moved < 0.15
    assert found.agreement == 1.0


def test_mentions_that_the_scorer_is_sure_of_skip_the_model() -> None:
    questions = [
        question_about(2, mention_id="sure", scores=[0.9, 0.1]),
        question_about(2, mention_id="doubtful", scores=[0.4, 0.3]),
        question_about(2, mention_id="surely nil", scores=[0.05, 0.01], nil=0.94),
        question_about(0, mention_id="nothing found", nil=1.0),
    ]
    model = KnownModel({"doubtful": '"Jordan 1"'}, right_with(1.0))
    choices = list(choose(questions, model, replace(SETTINGS, route_from=0.9)))
    assert [request.id for request in model.sent] == ["doubtful#0"]
    assert [choice.decided_by for choice in choices] == [BY_SCORER_SURE, BY_MODEL, BY_SCORER_SURE, NO_CANDIDATE]
    assert [choice.option for choice in choices] == [0, 1, None, None]
    assert [choice.requests for choice in choices] == [0, 1, 0, 0]
    assert [choice.probability for choice in choices] == pytest.approx([0.9, 0.9, 0.94, 1.0])


class Failing(KnownModel):
    """Fails, or says nothing, for mentions with these words in their id."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        for request, response in zip(asked := list(requests), super().generate(asked), strict=True):
            if "silent" in request.id:
                continue
            if "failing" in request.id or request.id == "half#0":
                yield Response(request_id=request.id, text="", finish="failed", problem="out of luck")
            elif "babbling" in request.id:
                yield Response(request_id=request.id, text="I think B, or", finish="length")
            elif "plain" in request.id:
                yield without_logprobs(response)
            else:
                yield response


def test_whatever_fails_keeps_the_order_of_retrieval_and_is_said() -> None:
    names = ("fine", "silent", "failing", "babbling", "plain", "half")
    questions = [question_about(3, mention_id=name) for name in names]
    model = Failing(dict.fromkeys(names, '"Jordan 2"'), right_with(1.0))
    choices = {choice.mention_id: choice for choice in choose(questions, model, replace(SETTINGS, orders=2))}
    assert [choice.option for choice in choices.values()] == [2, 0, 0, 0, 2, 2]
    decided = [choice.decided_by for choice in choices.values()]
    assert decided == [BY_MODEL, *[BY_SCORER_FAILED] * 3, BY_MODEL, BY_MODEL]
    assert choices["silent"].problems == ("the engine gave no response",) * 2
    assert choices["failing"].problems == ("out of luck",) * 2
    assert "not a letter from A to D" in choices["babbling"].problems[0]
    assert choices["half"].problems == ("out of luck",)
    assert (len(choices["half"].votes), choices["half"].requests) == (1, 2)
    assert choices["failing"].probability == pytest.approx(0.8)
    assert choices["plain"].probability == pytest.approx(1.0)


def test_what_does_not_fit_into_the_context_is_asked_with_shorter_lines() -> None:
    """The scripted engine counts words: long descriptions make long prompts."""
    long = question_about(4, mention_id="long", n_facts=8)
    entities = [replace(option.entity, description="word " * 60) for option in long.options]
    long = replace(long, options=tuple(replace(o, entity=e) for o, e in zip(long.options, entities, strict=True)))

    class Small(KnownModel):
        def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
            for request, response in zip(asked := list(requests), super().generate(asked), strict=True):
                n = len(prompt_of(request))
                if n <= 1900:
                    yield response
                else:
                    problem = f"the prompt has {n} signs"
                    yield Response(
                        request_id=request.id, text="", finish="failed", problem=problem, too_long_by=n - 1900
                    )

    model = Small({"long": '"Jordan 3"'}, right_with(1.0))
    (choice,) = choose([long], model, replace(SETTINGS, orders=2))
    assert choice.option == 3
    assert choice.decided_by == BY_MODEL
    lengths = [len(prompt_of(request)) for request in model.sent]
    assert lengths[0] == lengths[1] > 1900
    assert sorted(lengths, reverse=True) == lengths
    assert lengths[-1] <= 1900
    assert choice.problems[0].startswith("the prompt has ")
    assert len(choice.problems) == choice.requests - 2


class Citing(KnownModel):
    """Names the first fact of the right candidate, and one that nobody has shown it."""

    def _answer(self, request: Request) -> Response:
        if request.schema is None:
            return super()._answer(request)
        numbers = request.schema["properties"]["evidence"]["items"]["enum"]
        return Response(request_id=request.id, text=json.dumps({"evidence": [numbers[2], numbers[2]]}), finish="stop")


def test_with_evidence_first_the_model_chooses_after_what_it_cited() -> None:
    questions = [question_about(3, mention_id="m", n_facts=2), question_about(2, mention_id="without facts")]
    model = Citing({"m": '"Jordan 1"', "without facts": '"Jordan 1"'}, right_with(1.0))
    choices = list(choose(questions, model, replace(SETTINGS, evidence_first=True)))
    first, second, third = model.sent
    assert (first.schema is not None, first.choices, len(first.messages)) == (True, (), 2)
    assert second.choices == ("A", "B", "C", "D")
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "user"]
    assert second.messages[2].parts == ('{"evidence": ["B1"]}',)
    assert second.messages[:2] == first.messages
    assert len(third.messages) == 2
    assert [choice.option for choice in choices] == [1, 1]
    (cited,) = choices[0].cited
    assert cited == (choices[0].votes[0].order[1], 0)
    assert (choices[0].requests, choices[1].requests) == (2, 1)


def test_evidence_that_cannot_be_read_costs_the_evidence_and_not_the_choice() -> None:
    class Broken(KnownModel):
        def _answer(self, request: Request) -> Response:
            if request.schema is None:
                return super()._answer(request)
            return Response(request_id=request.id, text='{"evidence": ["A1", ', finish="length")

    model = Broken({"m": '"Jordan 2"'}, right_with(1.0))
    (choice,) = choose([question_about(3, n_facts=2)], model, replace(SETTINGS, evidence_first=True))
    assert (choice.option, choice.decided_by, choice.cited) == (2, BY_MODEL, ())
    assert "does not match the schema (length)" in choice.problems[0]
    assert len(model.sent[-1].messages) == 2


def test_a_second_run_sends_nothing_and_says_the_same(tmp_path: Path) -> None:
    questions, right = many_questions(60, nil_every=7)
    settings = replace(SETTINGS, orders=2, evidence_first=True)
    with Journal(tmp_path / "journal.jsonl") as journal:
        first = list(choose(questions, KnownModel(right, right_with(0.8)), settings, journal=journal))
    again = KnownModel(right, right_with(0.8))
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert list(choose(questions, again, settings, journal=journal)) == first
    assert again.sent == []


def test_an_engine_that_stops_is_no_failed_answer_and_what_it_said_is_kept(tmp_path: Path) -> None:
    questions, right = many_questions(20)

    class Stopping(KnownModel):
        def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
            for number, response in enumerate(super().generate(requests)):
                if number == 7:
                    raise EngineStopped("the worker was killed")
                yield response

    with Journal(tmp_path / "journal.jsonl") as journal, pytest.raises(EngineStopped):
        list(choose(questions, Stopping(right, right_with(1.0)), SETTINGS, journal=journal))
    rest = KnownModel(right, right_with(1.0))
    with Journal(tmp_path / "journal.jsonl") as journal:
        choices = list(choose(questions, rest, SETTINGS, journal=journal))
    assert len(rest.sent) == 13
    assert hits(choices) == 1.0


def test_the_same_seed_asks_the_same_and_another_asks_in_other_orders() -> None:
    questions, right = many_questions(30)

    def prompts(**given: Any) -> list[str]:
        model = KnownModel(right, right_with(1.0))
        list(choose(questions, model, replace(SETTINGS, **given)))
        return [prompt_of(request) for request in model.sent]

    assert prompts() == prompts() != prompts(seed=1)


def test_questions_are_taken_as_they_are_needed() -> None:
    questions, right = many_questions(1500, n_options=2)
    taken = []

    def noted() -> Iterator[Any]:
        for question in questions:
            taken.append(question)
            yield question

    choices = choose(noted(), KnownModel(right, right_with(1.0)), SETTINGS)
    next(choices)
    assert len(taken) < 1500
    assert math.isclose(sum(1 for _ in choices) + 1, 1500)
