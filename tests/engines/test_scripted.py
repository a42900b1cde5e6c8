"""Answers that were written down come as written, if they are what was asked for; the rest is made up, and valid."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.engines.json_schema import fault_of
from localmel.engines.open import open_engine
from localmel.engines.protocol import Request, Response
from localmel.engines.scripted import Script, ScriptedEngine
from localmel.errors import BadInput
from localmel.settings import EngineSettings

Asked = Callable[..., Request]
SETTINGS = EngineSettings(engine="scripted", weights="demo")


def answered(request: Request, script: Script | None = None, settings: EngineSettings = SETTINGS) -> Response:
    with open_engine(settings, script=script) as engine:
        (response,) = engine.generate([request])
    return response


def written(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def test_the_first_line_that_fits_answers(tmp_path: Path, asked: Asked) -> None:
    script = written(
        tmp_path / "script.jsonl",
        {"id": "7", "answer": "by its id"},
        {"contains": "Messi", "answer": {"said": "by its text"}},
        {"answer": "by default"},
    )
    assert answered(asked(7, "Messi?"), script).text == "by its id"
    assert answered(asked(8, "Who is Messi?"), script).text == '{"said": "by its text"}'
    assert answered(asked(9, "Who is Pele?"), script).text == "by default"
    script.write_text('[{"contains": "Pele", "answer": "a list, too"}]', encoding="utf-8")
    assert answered(asked(9, "Who is Pele?"), script).text == "a list, too"


def test_a_choice_may_say_how_probable_it_is(tmp_path: Path, asked: Asked) -> None:
    script = written(
        tmp_path / "script.jsonl",
        {"contains": "sure", "answer": "B", "probability": 0.97},
        {"contains": "all", "answer": {"A": math.log(2), "B": 0.0, "NIL": math.log(5)}},
        {"answer": "B"},
    )
    choices = ("A", "B", "NIL")
    sure = answered(asked(1, "sure", choices=choices), script)
    assert {one: math.exp(value) for one, value in sure.choice_logprobs.items()} == pytest.approx(
        {"A": 0.015, "B": 0.97, "NIL": 0.015}
    )
    every = answered(asked(1, "all", choices=choices), script)
    assert every.text == "NIL"
    assert math.exp(every.choice_logprobs["A"]) == pytest.approx(0.25)
    assert math.exp(answered(asked(1, "?", choices=choices), script).choice_logprobs["B"]) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("constraint", "answer", "problem"),
    [
        ({"choices": ("A", "B")}, "C", "the answer 'C' is not one of the 2 choices"),
        ({"schema": {"type": "object"}}, "{", "the answer is not JSON"),
        ({"schema": {"type": "array"}}, {}, "does not fulfil its schema: [$]: {} is not of type 'array'"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_fails(
    constraint: dict[str, Any], answer: object, problem: str, tmp_path: Path, asked: Asked
) -> None:
    response = answered(asked(1, "?", **constraint), written(tmp_path / "script.jsonl", {"answer": answer}))
    assert (response.finish, response.text) == ("failed", "")
    with pytest.raises(BadInput, match=problem):
        raise BadInput(response.problem)


def test_a_script_may_fail(tmp_path: Path, asked: Asked) -> None:
    script = written(tmp_path / "script.jsonl", {"contains": "Pele", "problem": "the model gave up"}, {"answer": "x"})
    response = answered(asked(1, "Pele"), script)
    assert (response.finish, response.problem, response.prompt_tokens) == ("failed", "the model gave up", 1)


def test_a_function_answers_or_leaves_it_to_the_engine(asked: Asked) -> None:
    def script(request: Request) -> str | Response | None:
        if request.id == "1":
            return "by a function"
        if request.id == "2":
            return Response(request_id="2", text="as it is", finish="length", output_tokens=3)
        return None

    assert answered(asked(1, "?"), script).text == "by a function"
    assert answered(asked(2, "?"), script).finish == "length"
    assert answered(asked(3, "?", choices=("a", "b")), script).text in ("a", "b")


def test_what_is_made_up_depends_on_the_question_and_not_on_its_id(asked: Asked, schema: dict[str, Any]) -> None:
    texts = [answered(asked(number, f"question {number % 4}", schema=schema)).text for number in range(8)]
    assert texts[:4] == texts[4:]
    assert len(set(texts)) > 1
    assert all(fault_of(json.loads(text), schema) == "" for text in texts)
    seeded = [answered(asked(0, "?", schema=schema, temperature=1.0, seed=seed)).text for seed in range(6)]
    assert len(set(seeded)) > 1
    assert len({answered(asked(0, "?", schema=schema, seed=seed)).text for seed in range(6)}) == 1


def test_where_anything_would_do_the_engine_has_nothing_to_say(asked: Asked) -> None:
    assert answered(asked(5, "?")).problem == "the script has no answer for request '5'"


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ('{"answer": 1}\n{"answer"', ":2: it is not JSON"),
        ('{"reply": 1}', "answer 1: Object contains unknown field `reply`"),
        ('{"answer": 1, "colour": 2}', "answer 1: Object contains unknown field `colour`"),
        ("[3]", "answer 1: Expected `object`"),
        ('{"contains": "x"}', "answer 1 has neither an answer nor a problem"),
        ('{"answer": "A", "probability": 0}', "answer 1 has probability 0"),
    ],
)
def test_a_script_that_is_none_is_refused_with_its_line(text: str, fact: str, tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=fact):
        ScriptedEngine(SETTINGS, path)
    with pytest.raises(BadInput, match="cannot read the script"):
        ScriptedEngine(SETTINGS, tmp_path / "absent")


def test_the_revision_moves_with_the_script(tmp_path: Path) -> None:
    path = written(tmp_path / "script.jsonl", {"answer": "x"})
    first = ScriptedEngine(SETTINGS, path).facts()
    assert (first.engine, first.model) == ("scripted", "demo")
    written(path, {"answer": "y"})
    assert ScriptedEngine(SETTINGS, path).facts().revision != first.revision
