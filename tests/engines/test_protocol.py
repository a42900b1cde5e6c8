"""What goes through a pipe comes out as it went in, and a line that was cut off is no message."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.engines.protocol import Message, Request, Response, line_of, message_of, request_from, request_json

TEXTS = st.text(max_size=20)
PATHS = (
    st.binary(min_size=1, max_size=12)
    .filter(lambda name: b"\0" not in name)
    .map(lambda name: Path("/pictures") / Path(os.fsdecode(name)).name)
)
MESSAGES = st.builds(
    Message, role=st.sampled_from(["system", "user", "assistant"]), parts=st.lists(TEXTS | PATHS, max_size=4).map(tuple)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
REQUESTS = st.builds(
    Request,
    id=TEXTS,
    messages=st.lists(MESSAGES, min_size=1, max_size=3).map(tuple),
    schema=st.none() | st.dictionaries(TEXTS, VALUES, max_size=3),
    max_tokens=st.integers(1, 5000),
    temperature=st.floats(0, 2),
    seed=st.integers(0, 2**63),
)
RESPONSES = st.builds(
    Response,
    request_id=TEXTS,
    text=TEXTS,
    finish=st.sampled_from(["stop", "length", "failed"]),
    prompt_tokens=st.integers(0, 99999),
    seconds=st.floats(0, 1e6),
    first_token_seconds=st.none() | st.floats(0, 1e6),
    choice_logprobs=st.dictionaries(TEXTS, st.floats(-1e4, 0), max_size=4),
    problem=TEXTS,
    too_long_by=st.integers(0, 9999),
)


@given(REQUESTS)
def test_a_request_survives_the_pipe(request: Request) -> None:
    line = line_of({"ask": 1, "request": request_json(request)})
    assert line.count(b"\n") == 1
    assert request_from(message_of(line)["request"]) == request


@given(RESPONSES)
def test_a_response_survives_the_pipe(response: Response) -> None:
    assert Response(**message_of(line_of({"response": asdict(response)}))["response"]) == response


@given(st.dictionaries(TEXTS, TEXTS, min_size=1), st.data())
def test_a_line_that_was_cut_off_is_no_message(message: dict[str, Any], data: st.DataObject) -> None:
    line = line_of(message)
    with pytest.raises(ValueError):  # noqa: PT011 - of json or of ours, both are one
        message_of(line[: data.draw(st.integers(0, len(line) - 1))])


def test_choices_and_relative_pictures_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = Request(id="1", messages=(Message(role="user", parts=(Path("a.png"), "what?")),), choices=("yes", "no"))
    arrived = request_from(message_of(line_of(request_json(request))))
    assert arrived.choices == ("yes", "no")
    assert arrived.messages[0].parts == (tmp_path / "a.png", "what?")
