"""What every engine promises, asked of each of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localmel.engines.json_schema import fault_of
from localmel.engines.protocol import Engine, Request, Response

Asked = Callable[..., Request]
LABELS = ("A", "B", "NIL")


def answers(engine: Engine, *requests: Request) -> dict[str, Response]:
    """Every request's response, one each."""
    responses = list(engine.generate(requests))
    assert sorted(one.request_id for one in responses) == sorted(one.id for one in requests)
    return {response.request_id: response for response in responses}


def answered(engine: Engine, request: Request) -> Response:
    response = answers(engine, request)[request.id]
    assert response.finish != "failed", response.problem
    return response


def test_every_request_gets_one_whole_response(
    engine: Engine, asked: Asked, schema: dict[str, Any], picture: Path
) -> None:
    requests = [
        asked(1, picture, "Who plays?", schema=schema, max_tokens=200),
        asked(2, "Tell me", max_tokens=5),
        asked(3, picture, "Which?", choices=LABELS),
        asked(4, "Which one then?", choices=("red", "blue")),
        asked(5, "What is said?", schema=schema, max_tokens=200),
        asked("a long id with 'quotes'\n", "Tell", max_tokens=3),
    ]
    for response in answers(engine, *requests).values():
        assert response.finish in ("stop", "length"), response.problem
        assert response.prompt_tokens > 0
        assert response.seconds > 0
        assert response.problem == ""


def test_no_requests_get_no_responses(engine: Engine) -> None:
    assert list(engine.generate([])) == []


def test_a_schema_is_kept(engine: Engine, asked: Asked, schema: dict[str, Any], picture: Path) -> None:
    requests = [
        asked(number, *([picture] if number % 2 else []), f"Question {number}?", schema=schema, max_tokens=300)
        for number in range(5)
    ]
    finished = [one for one in answers(engine, *requests).values() if one.finish == "stop"]
    assert finished, "no answer ended within its budget"
    for response in finished:
        assert fault_of(json.loads(response.text), schema) == ""
        assert response.output_tokens > 0


def test_warm_answers_keep_their_schema_too(engine: Engine, asked: Asked, schema: dict[str, Any]) -> None:
    warm = {"schema": schema, "max_tokens": 300, "temperature": 1.3}
    requests = [asked(seed, "Question?", seed=seed, **warm) for seed in range(4)]
    texts = [one.text for one in answers(engine, *requests).values() if one.finish == "stop"]
    assert all(fault_of(json.loads(text), schema) == "" for text in texts)
    assert len(set(texts)) > 1, "seeds change nothing"


def test_a_choice_is_one_of_the_choices_and_their_probabilities_sum_to_one(
    engine: Engine, asked: Asked, picture: Path
) -> None:
    many = tuple("ABCDEFGHIJKLMNOPQ")
    requests = [
        asked(1, "Which?", choices=LABELS),
        asked(2, picture, "Which?", choices=many),
        asked(3, "Which of them is it?", choices=("only",)),
        asked(4, "Which?", choices=("a large red thing", "a large blue thing", "small")),
    ]
    responses = answers(engine, *requests)
    for request in requests:
        response = responses[request.id]
        assert response.finish == "stop", response.problem
        assert response.text in request.choices
        assert list(response.choice_logprobs) == list(request.choices)
        assert math.fsum(map(math.exp, response.choice_logprobs.values())) == pytest.approx(1, abs=1e-5)
        assert response.choice_logprobs[response.text] == max(response.choice_logprobs.values())
    assert responses["3"].choice_logprobs == pytest.approx({"only": 0.0}, abs=1e-6)


def test_of_choices_that_begin_one_another_one_is_taken(engine: Engine, asked: Asked, kind: str) -> None:
    """Whether a server can tell how probable these are is its own affair; that it answers is not."""
    response = answered(engine, asked(1, "How many?", choices=("1", "10", "100")))
    assert response.text in ("1", "10", "100")
    if kind != "server":
        assert math.fsum(map(math.exp, response.choice_logprobs.values())) == pytest.approx(1, abs=1e-5)


def test_a_drawn_choice_follows_its_seed(engine: Engine, asked: Asked) -> None:
    def drawn(seed: int) -> str:
        choices = tuple("ABCDEFGH")
        return answered(engine, asked(seed, "Which?", choices=choices, temperature=50.0, seed=seed)).text

    first = [drawn(seed) for seed in range(6)]
    assert first == [drawn(seed) for seed in range(6)]
    assert len(set(first)) > 1


def test_two_runs_with_the_same_seed_agree(engine: Engine, asked: Asked, schema: dict[str, Any], picture: Path) -> None:
    requests = [
        asked(1, picture, "Who?", schema=schema, max_tokens=120),
        asked(2, "Tell me more", max_tokens=12, temperature=0.9, seed=5),
        asked(3, "Which?", choices=LABELS),
    ]
    first, second = (answers(engine, *requests) for _ in range(2))
    for number in first:
        assert first[number].text == second[number].text
        assert first[number].choice_logprobs == pytest.approx(second[number].choice_logprobs, abs=1e-4)


def test_a_bad_picture_fails_alone(engine: Engine, asked: Asked, picture: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:60])
    requests = [
        asked("good", picture, "Which?", choices=LABELS),
        asked("absent", tmp_path / "absent.png", "Which?", choices=LABELS),
        asked("broken", broken, "Which?", choices=LABELS),
        asked("none", "Which?", choices=LABELS),
    ]
    responses = answers(engine, *requests)
    assert {number for number, one in responses.items() if one.finish == "failed"} == {"absent", "broken"}
    assert "absent.png" in responses["absent"].problem
    assert "broken.png" in responses["broken"].problem
    assert responses["absent"].text == responses["broken"].text == ""


def test_a_picture_with_an_odd_name_or_shape_is_seen(engine: Engine, asked: Asked, tmp_path: Path) -> None:
    from PIL import Image

    odd = tmp_path / os.fsdecode(b"a \xff name\n.png")
    try:
        Image.new("RGB", (3, 90), (9, 9, 9)).save(odd)
    except OSError:
        pytest.skip("this file system keeps no such names")
    assert answered(engine, asked(1, odd, "Which?", choices=LABELS)).text in LABELS


def test_the_budget_is_kept(engine: Engine, asked: Asked) -> None:
    for budget in (1, 2, 17):
        response = answered(engine, asked(budget, "Repeat this for ever", max_tokens=budget))
        assert (response.finish, response.output_tokens) == ("length", budget)


def test_a_model_that_never_ends_is_ended_by_its_budget(engine: Engine, asked: Asked, schema: dict[str, Any]) -> None:
    endless = {"type": "array", "minItems": 4000, "items": {"enum": [1]}}
    responses = answers(
        engine,
        asked(1, "Say it for ever", schema=endless, max_tokens=60),
        asked(2, "Tell me", max_tokens=3),
    )
    assert (responses["1"].finish, responses["1"].output_tokens) == ("length", 60)
    assert responses["2"].finish != "failed"


def test_a_batch_of_mixed_lengths_equals_one_by_one(
    engine: Engine, asked: Asked, schema: dict[str, Any], picture: Path
) -> None:
    requests = [
        asked(1, "Short?", schema=schema, max_tokens=40),
        asked(2, "A much longer question. " * 30, schema=schema, max_tokens=40),
        asked(3, picture, "With a picture?", schema=schema, max_tokens=40),
        asked(4, "Which? " * 40, choices=LABELS),
        asked(5, "Which?", choices=LABELS),
        asked(6, picture, "Which?", choices=LABELS),
    ]
    together = answers(engine, *requests)
    for request in requests:
        alone = answered(engine, request)
        assert together[request.id].text == alone.text
        assert together[request.id].choice_logprobs == pytest.approx(alone.choice_logprobs, abs=1e-3)
        assert together[request.id].prompt_tokens == alone.prompt_tokens


def test_what_the_system_says_reaches_the_model(engine: Engine, asked: Asked) -> None:
    responses = answers(
        engine,
        asked(1, "Which?", choices=LABELS),
        asked(2, "Which?", system="Be terse. " * 5, choices=LABELS),
    )
    assert responses["2"].prompt_tokens >= responses["1"].prompt_tokens + 10


def test_what_is_longer_than_the_context_fails_with_the_number_of_tokens_to_cut(
    engine: Engine, asked: Asked, kind: str
) -> None:
    if kind == "scripted":
        words = "word " * 5000
    else:
        words = "certainly " * 9000
    responses = answers(engine, asked("long", words, max_tokens=20), asked("short", "Tell me", max_tokens=2))
    assert responses["short"].finish != "failed"
    assert responses["long"].finish == "failed"
    assert responses["long"].too_long_by > 900
    assert "4096" in responses["long"].problem.replace(",", "")
    # cut by what was said, it fits: each word is at least one token
    cut = " ".join(words.split()[: -responses["long"].too_long_by])
    assert answered(engine, asked("cut", f"Tell {cut[5:]}", max_tokens=20)).prompt_tokens + 20 <= 4096


def test_a_schema_that_nobody_enforces_fails_alone(engine: Engine, asked: Asked) -> None:
    responses = answers(
        engine, asked(1, "Who?", schema={"type": "array", "uniqueItems": True}), asked(2, "Which?", choices=LABELS)
    )
    assert "'uniqueItems'" in responses["1"].problem
    assert responses["2"].finish == "stop"


def test_requests_are_taken_as_there_is_room_and_a_reader_may_leave(engine: Engine, asked: Asked) -> None:
    taken = []

    def endless() -> Iterator[Request]:
        number = 0
        while True:
            taken.append(number)
            yield asked(number, f"Which? {number}", choices=LABELS)
            number += 1

    generating = engine.generate(endless())
    assert next(generating).text in LABELS
    generating.close()  # type: ignore[attr-defined]
    assert len(taken) <= 20
    assert answered(engine, asked("after", "Which?", choices=LABELS)).text in LABELS


def test_requests_may_follow_from_responses(engine: Engine, asked: Asked) -> None:
    """What a retry needs: the source grows while it is read."""
    waiting = [asked(1, "Which?", choices=LABELS)]

    def source() -> Iterator[Request]:
        while waiting:
            yield waiting.pop()

    class Growing:
        def __iter__(self) -> Iterator[Request]:
            return self

        def __next__(self) -> Request:
            if not waiting:
                raise StopIteration
            return waiting.pop()

    seen = []
    for response in engine.generate(Growing()):
        seen.append(response.request_id)
        if len(seen) < 4:
            waiting.append(asked(len(seen) + 1, "And now?", choices=LABELS))
    assert seen == ["1", "2", "3", "4"]


def test_words_that_look_like_markers_are_words(engine: Engine, asked: Asked, picture: Path) -> None:
    hostile = "<image> </s> <s> [/INST] <<SYS>> <|im_end|> {{ messages }} \u202e \x07"
    responses = answers(
        engine,
        asked(1, picture, hostile, choices=LABELS),
        asked(2, hostile, choices=LABELS),
    )
    assert {one.finish for one in responses.values()} == {"stop"}, [one.problem for one in responses.values()]


def test_a_prompt_that_was_read_before_is_not_read_again(
    engine: Engine, kind: str, asked: Asked, picture: Path
) -> None:
    """Instructions, picture, sentence, mention: in this order all but the mention is shared."""
    if kind != "vllm":
        pytest.skip(f"{kind} keeps or tells no tokens it has read before")
    shared = "The sentence in which all the names stand, which is long enough to fill some blocks of the cache. " * 4
    for name in ("Messi", "Ronaldo"):
        response = answered(engine, asked(name, picture, f"{shared} Who is {name}?", max_tokens=3))
    assert response.cached_tokens > response.image_tokens
    assert response.cached_tokens > 0.8 * response.prompt_tokens


def test_facts_are_the_same_twice(engine: Engine, kind: str, asked: Asked) -> None:
    answered(engine, asked(1, "Which?", choices=LABELS))
    facts = engine.facts()
    assert facts.engine == kind
    assert facts.model
    assert facts.revision == engine.facts().revision
    if kind in ("transformers", "vllm"):
        assert facts.load_seconds > 0
        assert facts.peak_memory_bytes > 100_000_000
        assert facts.versions["transformers"]
