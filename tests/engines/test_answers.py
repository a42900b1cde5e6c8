"""An answer is what was asked for, or says why it is not; nothing in between is handed on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from localmel.engines.answers import choice_response, failed, fingerprint, kept, refused, too_long
from localmel.engines.protocol import Message, Request, Response

Asked = Callable[..., Request]
TEXTS = {"type": "array", "items": {"type": "string"}}


def response(text: str, finish: str = "stop") -> Response:
    return Response(request_id="1", text=text, finish=finish, prompt_tokens=5, output_tokens=9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('["a"', "the answer is not JSON"),
        ("", "the answer is not JSON"),
        ("[" * 100_000, "the answer is not JSON"),
        ("[3]", "the answer does not fulfil its schema: $[0]: 3 is not of type 'string'"),
        ('["\\ud800"]', "the answer holds '\\ud800', which is half a character"),
    ],
)
def test_an_answer_that_breaks_its_schema_fails_and_keeps_its_costs(text: str, problem: str, asked: Asked) -> None:
    broken = kept(asked(1, "?", schema=TEXTS), response(text))
    assert (broken.finish, broken.text) == ("failed", "")
    assert broken.problem.startswith(problem)
    assert (broken.prompt_tokens, broken.output_tokens) == (5, 9)


def test_an_answer_that_keeps_its_schema_is_handed_on_as_it_is(asked: Asked) -> None:
    for text in ("[]", ' [ "a" ] ', '["\\ud83d\\ude00", "\\u0000"]'):
        assert kept(asked(1, "?", schema=TEXTS), response(text)) == response(text)


@given(texts=st.lists(st.text(max_size=8), max_size=3), blank=st.sampled_from(["", "\n", "\t \r"]))
@example(texts=["\x00\x1b[31m\t", '\\"\n', "\\"], blank="\n")
def test_control_characters_that_a_grammar_let_through_are_escaped(texts: list[str], blank: str) -> None:
    raw = ",".join('"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"')) for text in texts)
    request = Request(id="1", messages=(Message(role="user", parts=("?",)),), schema=TEXTS)
    said = kept(request, response(f"[{blank}{raw}{blank}]"))
    assert (said.finish, json.loads(said.text)) == ("stop", texts)


def test_a_raw_control_character_in_an_answer_is_that_character_escaped(asked: Asked) -> None:
    request = asked(1, "?", schema=TEXTS)
    said = kept(request, response('[\n"a\tb\x1b[31m", "\\\\"]'))
    assert said.text == '[\n"a\\u0009b\\u001b[31m", "\\\\"]'
    assert json.loads(said.text) == ["a\tb\x1b[31m", "\\"]
    broken = kept(request, response('["a\\\nb"]'))
    assert broken.problem.startswith("the answer is not JSON")
    plain = asked(1, "?")
    assert kept(plain, response('"a\tb"')).text == '"a\tb"'


def test_a_problem_in_a_server_s_own_words_cannot_steer_a_terminal(asked: Asked) -> None:
    assert failed(asked(1, "?"), "the server said \x1b[2J\x9b\nno\u202e ä").problem == (
        "the server said \\x1b[2J\\x9b\\nno\\u202e ä"
    )


def test_an_answer_that_was_cut_off_is_a_part_and_says_so(asked: Asked) -> None:
    part = response('["a", "b', "length")
    assert kept(asked(1, "?", schema=TEXTS), part) == part


def test_what_is_no_choice_is_no_answer(asked: Asked) -> None:
    request = asked(1, "?", choices=("A", "B"))
    assert kept(request, response("B")).text == "B"
    assert kept(request, response("b")).problem == "the answer 'b' is not one of the 2 choices"


def test_probabilities_that_nobody_told_are_no_answer(asked: Asked) -> None:
    request = asked(1, "?", choices=("A", "B"))
    nothing = choice_response(request, {"A": -float("inf"), "B": -float("inf")}, prompt_tokens=4)
    assert (nothing.finish, nothing.prompt_tokens) == ("failed", 4)


def test_a_refusal_names_the_numbers(asked: Asked) -> None:
    refusal = too_long(asked(1, "?"), 5000, 4096, 100, 2880)
    assert refusal.too_long_by == 1004
    assert refusal.problem == (
        "the prompt has 5,000 tokens (2,880 of pictures) and its answer may take 100; the context holds 4,096"
    )
    assert refused(asked(1, "?")) is None


def test_a_fingerprint_is_of_what_the_model_meets(asked: Asked) -> None:
    one = asked(1, "?", choices=("A", "B"))
    assert fingerprint(one) == fingerprint(replace(one, id="2")) == fingerprint(replace(one, seed=4))
    others = [replace(one, choices=("B", "A")), replace(one, temperature=0.5), asked(1, "??", choices=("A", "B"))]
    warm = [replace(one, temperature=0.5, seed=seed) for seed in (1, 2)]
    assert len({fingerprint(other) for other in (one, *others, *warm)}) == 6
