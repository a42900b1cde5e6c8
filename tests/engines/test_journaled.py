"""A model is asked what the journal does not answer, once, and nothing that was answered is lost."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from localmel.engines.journaled import Keys, ask
from localmel.engines.protocol import EngineFacts, Message, Request, Response
from localmel.engines.scripted import ScriptedEngine
from localmel.errors import EngineStopped
from localmel.settings import EngineSettings
from localmel.store.journal import Journal


class Listening(ScriptedEngine):
    """A scripted engine that notes what is sent, and takes requests in batches as the real ones do."""

    def __init__(self, answer: Any = lambda request: f"to {request.messages[0].parts[0]}", at_once: int = 1) -> None:
        super().__init__(EngineSettings(engine="scripted"), answer)
        self.sent: list[str] = []
        self.at_once = at_once

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        remaining = iter(requests)
        while batch := list(islice(remaining, self.at_once)):
            self.sent += [request.id for request in batch]
            yield from reversed(list(super().generate(batch)))  # finished in another order


def request(number: object, *, id_: str = "", **given: Any) -> Request:
    text = f"question {number}"
    return Request(id=id_ or str(number), messages=(Message(role="user", parts=(text,)),), **given)


def texts(responses: Iterable[Response]) -> dict[str, str]:
    return {response.request_id: response.text for response in responses}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_a_second_run_sends_nothing_and_does_not_touch_the_engine(path: Path) -> None:
    requests = [request(number) for number in range(7)]
    engine = Listening(at_once=3)
    with Journal(path) as journal:
        first = texts(ask(requests, engine, journal))
    assert sorted(engine.sent) == [str(number) for number in range(7)]

    class Untouched(Listening):
        def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
            raise AssertionError("the engine was asked")

    with Journal(path) as journal:
        assert texts(ask(requests, Untouched(), journal)) == first
    assert first == {str(number): f"to question {number}" for number in range(7)}


def test_only_what_is_missing_is_sent(path: Path) -> None:
    with Journal(path) as journal:
        list(ask([request(number) for number in (1, 2, 5)], Listening(), journal))
    engine = Listening(at_once=2)
    with Journal(path) as journal:
        found = texts(ask([request(number) for number in range(7)], engine, journal))
    assert engine.sent == ["0", "3", "4", "6"]
    assert set(found) == {str(number) for number in range(7)}


def test_the_same_content_twice_is_sent_once_and_answers_both(path: Path) -> None:
    engine = Listening(at_once=4)
    with Journal(path) as journal:
        found = texts(ask([request(1, id_=name) for name in ("a", "b", "c")], engine, journal))
        assert found == dict.fromkeys("abc", "to question 1")
        assert len(journal) == 1
    assert engine.sent == ["a"]


def test_without_a_journal_everything_is_sent() -> None:
    engine = Listening()
    assert len(list(ask([request(1), request(1, id_="again")], engine, None))) == 2
    assert engine.sent == ["1", "again"]


def test_an_answer_is_in_the_journal_before_it_is_handed_on(path: Path) -> None:
    with Journal(path) as journal:
        responses = ask([request(number) for number in range(5)], Listening(at_once=2), journal)
        for n_read, _ in enumerate(responses, 1):
            assert len(journal) == n_read


def test_failures_are_kept_apart_and_asked_again_by_the_next_run(path: Path) -> None:
    down = Listening(lambda one: Response(request_id=one.id, text="", finish="failed", problem="429"))
    with Journal(path) as journal:
        (response,) = ask([request(1)], down, journal)
        assert response.problem == "429"
        assert (len(journal), journal.failures) == (0, 1)
    engine = Listening()
    with Journal(path) as journal:
        assert texts(ask([request(1)], engine, journal)) == {"1": "to question 1"}
    assert engine.sent == ["1"]


def test_an_engine_that_stops_loses_no_finished_answer(path: Path) -> None:
    class Dying(Listening):
        def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
            for number, response in enumerate(super().generate(requests)):
                if number == 3:
                    raise EngineStopped("out of memory")
                yield response

    with Journal(path) as journal, pytest.raises(EngineStopped):
        list(ask([request(number) for number in range(9)], Dying(), journal))
    engine = Listening()
    with Journal(path) as journal:
        assert len(texts(ask([request(number) for number in range(9)], engine, journal))) == 9
    assert engine.sent == [str(number) for number in range(3, 9)]


def test_an_engine_that_leaves_requests_out_is_found_out(path: Path) -> None:
    class Forgetful(Listening):
        def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
            yield from list(super().generate(requests))[1:]

    with Journal(path) as journal, pytest.raises(EngineStopped, match="1 requests unanswered"):
        list(ask([request(1), request(2)], Forgetful(at_once=9), journal))


def test_requests_may_come_from_answers(path: Path) -> None:
    """What is asked because of an answer is asked in the same breath, from the journal and from the engine."""

    def chain(engine: Listening) -> list[str]:
        open_ = [request("0")]

        def requests() -> Iterator[Request]:
            while open_:
                yield open_.pop()

        with Journal(path) as journal:
            found = []
            for response in ask(requests(), engine, journal):
                found.append(response.text)
                if len(found) < 4:
                    open_.append(request(response.request_id + "x"))
            return found

    first = Listening()
    assert len(chain(first)) == len(first.sent) == 4
    assert chain(second := Listening()) == [f"to question 0{'x' * n}" for n in range(4)]
    assert second.sent == []


def test_a_response_comes_back_as_it_was(path: Path) -> None:
    full = Response(
        request_id="1", text="A\ud800", finish="stop", prompt_tokens=9, image_tokens=4, output_tokens=2, seconds=0.125,
        first_token_seconds=0.5, choice_logprobs={"A": -0.25, "B": -math.inf},
    )  # fmt: skip
    bare = Response(request_id="2", text="", finish="length")
    with Journal(path) as journal:
        made = list(ask([request(1), request(2)], Listening(lambda one: {"1": full, "2": bare}[one.id]), journal))
    assert [replace(one, seconds=0.125) for one in made] == [full, replace(bare, seconds=0.125)]
    with Journal(path) as journal:
        assert list(ask([request(1), request(2)], Listening(), journal)) == made


# --- keys --------------------------------------------------------------------------------------------------------

FACTS = EngineFacts(engine="vllm", model="llava", revision="abc", versions={"vllm": "0.33"})


def test_whatever_changes_an_answer_changes_its_key(tmp_path: Path) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(b"one")
    asked = replace(request(1), messages=(Message(role="user", parts=("a", picture)),), schema={"a": 1, "b": 2})
    key = Keys(FACTS, EngineSettings())(asked)
    others = [
        Keys(replace(FACTS, revision="abd"), EngineSettings())(asked),
        Keys(replace(FACTS, engine="transformers"), EngineSettings())(asked),
        Keys(replace(FACTS, versions={"vllm": "0.34"}), EngineSettings())(asked),
        Keys(FACTS, EngineSettings(quantization="4bit"))(asked),
        Keys(FACTS, EngineSettings(longest_side=336))(asked),
        Keys(FACTS, EngineSettings())(replace(asked, schema={"b": 2, "a": 1})),
        Keys(FACTS, EngineSettings())(replace(asked, schema=None)),
        Keys(FACTS, EngineSettings())(replace(asked, schema=None, choices=("A",))),
        Keys(FACTS, EngineSettings())(replace(asked, max_tokens=7)),
        Keys(FACTS, EngineSettings())(replace(asked, temperature=0.7)),
        Keys(FACTS, EngineSettings())(replace(asked, temperature=0.7, seed=1)),
        Keys(FACTS, EngineSettings())(replace(asked, messages=(Message(role="user", parts=(picture, "a")),))),
        Keys(FACTS, EngineSettings())(replace(asked, messages=(Message(role="system", parts=("a", picture)),))),
        Keys(FACTS, EngineSettings())(replace(asked, messages=(Message(role="user", parts=("a", str(picture))),))),
    ]
    picture.write_bytes(b"two")
    os.utime(picture, ns=(1, 1))
    others.append(Keys(FACTS, EngineSettings())(asked))
    picture.unlink()
    others.append(Keys(FACTS, EngineSettings())(asked))
    assert len({key, *others}) == len(others) + 1


def test_what_does_not_change_an_answer_does_not_change_its_key(tmp_path: Path) -> None:
    for name in ("p.jpg", "q.jpg"):
        (tmp_path / name).write_bytes(b"one")
    asked = replace(request(1), messages=(Message(role="user", parts=(tmp_path / "p.jpg",)),))
    key = Keys(FACTS, EngineSettings())(asked)
    others = [
        Keys(replace(FACTS, load_seconds=3.0, peak_memory_bytes=5, model="elsewhere"), EngineSettings())(asked),
        Keys(FACTS, EngineSettings(at_once=4, memory_share=0.5, timeout=1.0))(asked),
        Keys(FACTS, EngineSettings())(replace(asked, id="other")),
        Keys(FACTS, EngineSettings())(replace(asked, seed=3)),
        Keys(FACTS, EngineSettings())(replace(asked, messages=(Message(role="user", parts=(tmp_path / "q.jpg",)),))),
    ]
    assert set(others) == {key}
