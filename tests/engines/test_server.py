"""A server may be down, slow, busy, confused or another one altogether; each has its own answer, and none is lost.

The server here misbehaves on purpose; what a well-behaved one gives is in the contract, over a real vLLM."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httpx2")

from localmel.engines.openai_protocol import Stream, event_of, reported_logprobs
from localmel.engines.protocol import Request, Response
from localmel.engines.server import ServerEngine
from localmel.errors import BadInput, EngineStopped, MissingWeights
from localmel.settings import EngineSettings

Asked = Callable[..., Request]
Json = dict[str, Any]
USAGE = {"prompt_tokens": 11, "completion_tokens": 3}


def event(text: str = "", finish: str | None = None, **more: Any) -> Json:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}


class Misbehaving(ThreadingHTTPServer):
    """Answers `POST /v1/chat/completions` with what a function of the test does; knows one model."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: Callable[[_Handler, Json], None] = lambda handler, body: handler.stream(event("fine", "stop"))
        self.models: Any = {"data": [{"id": "a-model", "owned_by": "llamacpp"}]}
        self.bodies: list[Json] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Misbehaving
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self.whole(self.server.models)
        else:
            self.whole({"version": "1.2.3"} if self.path == "/version" else {}, 200 if self.path == "/version" else 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append({"path": self.path, "host": self.headers["host"], **body})
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            self.server.reply(self, body)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def whole(self, value: Any, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        for name, said in {"content-type": kind, "content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), said)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *events: Json, done: bool = True, broken: bool = False) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for one in events:
            self.chunk(f": a comment\n\ndata: {json.dumps(one)}\n\n")
        if broken:
            self.close_connection = True
            self.connection.shutdown(1)
            return
        if done:
            self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    running = Misbehaving()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localmel.engines.server._PAUSE", 0.01)


def engine_of(server: Misbehaving, **changes: Any) -> ServerEngine:
    settings = {"weights": "a-model", "url": server.url, "timeout": 5.0, "at_once": 4, **changes}
    return ServerEngine(EngineSettings(engine="server", **settings))


def answered(server: Misbehaving, *requests: Request, **changes: Any) -> list[Response]:
    with engine_of(server, **changes) as engine:
        responses = {one.request_id: one for one in engine.generate(requests)}
    return [responses[request.id] for request in requests]


def test_a_stream_is_put_together(server: Misbehaving, asked: Asked) -> None:
    server.reply = lambda handler, body: handler.stream(
        event("Hel"), event("lo"), event("", "stop"), {"choices": [], "usage": USAGE}
    )
    (response,) = answered(server, asked(1, "Hi", max_tokens=7, temperature=0.5, seed=3))
    assert (response.text, response.finish) == ("Hello", "stop")
    assert (response.prompt_tokens, response.output_tokens) == (11, 3)
    assert 0 < (response.first_token_seconds or 0) <= response.seconds
    (body,) = server.bodies
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (7, 0.5, 3)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert body["chat_template_kwargs"]["enable_thinking"] is False


def test_a_server_that_does_not_stream_is_understood(server: Misbehaving, asked: Asked) -> None:
    whole = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "length"}], "usage": USAGE}
    server.reply = lambda handler, body: handler.whole(whole)
    (response,) = answered(server, asked(1, "Hi"))
    assert (response.text, response.finish, response.output_tokens) == ("Hello", "length", 3)


def test_a_picture_travels_as_its_pixels(server: Misbehaving, asked: Asked, picture: Path) -> None:
    from PIL import Image, ImageChops

    answered(server, asked(1, "look", picture, "who?"), longest_side=110)
    first, shown, last = server.bodies[0]["messages"][0]["content"]
    assert (first, last) == ({"type": "text", "text": "look"}, {"type": "text", "text": "who?"})
    kind, _, data = shown["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    expected = Image.open(picture)
    expected.thumbnail((110, 110))
    assert sent.size == (110, 65)
    assert ImageChops.difference(sent, expected).getbbox() is None


def test_several_are_under_way_and_no_more_than_asked(server: Misbehaving, asked: Asked) -> None:
    def slow(handler: _Handler, _: Json) -> None:
        time.sleep(0.1)
        handler.stream(event("x", "stop"))

    server.reply = slow
    started = time.monotonic()
    assert len(answered(server, *(asked(number, "Hi") for number in range(12)), at_once=3)) == 12
    assert server.most_at_once == 3
    assert time.monotonic() - started < 12 * 0.1


def failing(times: int, fail: Callable[[_Handler], None]) -> Callable[[_Handler, Json], None]:
    """Fails so many times, then answers."""
    left = [times]

    def reply(handler: _Handler, _: Json) -> None:
        if left[0]:
            left[0] -= 1
            fail(handler)
        else:
            handler.stream(event("at last", "stop"))

    return reply


FAILURES: dict[str, Callable[[_Handler], None]] = {
    "429": lambda handler: handler.whole({"error": {"message": "too many"}}, 429, retry_after="0"),
    "500": lambda handler: handler.whole("broken", 500, "text/plain"),
    "503": lambda handler: handler.whole({"detail": "loading"}, 503),
    "a stream that breaks off": lambda handler: handler.stream(event("half of"), broken=True),
    "a stream without an end": lambda handler: handler.stream(event("half of"), done=False),
    "no answer at all": lambda handler: setattr(handler, "close_connection", True),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_may_pass_is_asked_again(failure: str, server: Misbehaving, asked: Asked) -> None:
    server.reply = failing(2, FAILURES[failure])
    (response,) = answered(server, asked(1, "Hi"))
    assert (response.text, response.problem) == ("at last", "")
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        ("429", "the server answers with status 429: too many (asked 5 times)"),
        ("503", "the server answers with status 503: loading (asked 5 times)"),
        ("a stream without an end", "the answer broke off after 7 characters (asked 5 times)"),
    ],
)
def test_what_does_not_pass_fails_with_what_was_said(
    failure: str, problem: str, server: Misbehaving, asked: Asked
) -> None:
    server.reply = failing(99, FAILURES[failure])
    (response,) = answered(server, asked(1, "Hi"))
    assert (response.finish, response.text, response.problem) == ("failed", "", problem)


def test_a_busy_server_is_left_alone_as_long_as_it_asks_for(
    server: Misbehaving, asked: Asked, in_proportion: Callable[[float], float]
) -> None:
    server.reply = failing(1, lambda handler: handler.whole({}, 429, retry_after="0.4"))
    started = time.monotonic()
    assert answered(server, asked(1, "Hi"))[0].text == "at last"
    assert time.monotonic() - started >= 0.4
    server.reply = failing(1, lambda handler: handler.whole({}, 429, retry_after="3600"))
    started = time.monotonic()
    assert "status 429" in answered(server, asked(1, "Hi"))[0].problem
    assert time.monotonic() - started < in_proportion(3)


def test_a_slow_answer_fails_alone(server: Misbehaving, asked: Asked) -> None:
    def reply(handler: _Handler, body: Json) -> None:
        if "slow" in body["messages"][0]["content"]:
            time.sleep(2)
        handler.stream(event("x", "stop"))

    server.reply = reply
    slow, quick = answered(server, asked(1, "slow"), asked(2, "quick"), timeout=0.5)
    assert slow.problem == "no complete answer within 0.5 s"
    assert quick.text == "x"


def test_an_answer_that_drips_for_ever_is_ended(server: Misbehaving, asked: Asked) -> None:
    def drip(handler: _Handler, _: Json) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for _turn in range(100):
            handler.chunk(f"data: {json.dumps(event('x'))}\n\n")
            time.sleep(0.05)

    server.reply = drip
    started = time.monotonic()
    (response,) = answered(server, asked(1, "Hi"), timeout=0.6)
    assert response.problem == "no complete answer within 0.6 s"
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (
            lambda handler, body: handler.whole("<html>It works!</html>", 200, "text/html"),
            "the server answered with text/html: '<html>It works!</html>'",
        ),
        (lambda handler, body: handler.whole("{", 200), "the server answered '{', which is not a JSON object"),
        (
            lambda handler, body: handler.whole({"choices": [3]}),
            "it has an unexpected form ('int' object has no attribute 'get')",
        ),
        (
            lambda handler, body: handler.stream({"error": {"message": "the GPU is on fire"}}),
            "the server ended its answer: the GPU is on fire",
        ),
        (
            lambda handler, body: handler.stream(
                {"choices": [{"delta": {"reasoning_content": "Hm."}, "finish_reason": "stop"}]}
            ),
            "the model only reasoned",
        ),
        (lambda handler, body: handler.whole({"message": "no such field"}, 422), "with status 422: no such field"),
    ],
)
def test_what_is_no_answer_fails_with_what_it_was(
    reply: Callable[[_Handler, Json], None], problem: str, server: Misbehaving, asked: Asked
) -> None:
    server.reply = reply
    (response,) = answered(server, asked(1, "Hi"))
    assert response.finish == "failed"
    assert problem in response.problem


@pytest.mark.parametrize(
    ("said", "by"),
    [
        (
            "This model's maximum context length is 4096 tokens. However, your prompt contains 5000 input tokens, "
            "which exceeds this limit",
            5000 + 50 - 4096,
        ),
        ("request (9001 tokens) exceeds the available context size (8192 tokens), try increasing it", 9001 + 50 - 8192),
    ],
)
def test_what_is_too_long_for_the_server_says_by_how_much(
    said: str, by: int, server: Misbehaving, asked: Asked
) -> None:
    server.reply = lambda handler, body: handler.whole({"error": {"message": said, "code": 400}}, 400)
    (response,) = answered(server, asked(1, "Hi", max_tokens=50))
    assert (response.finish, response.too_long_by) == ("failed", by)
    assert said[:40] in response.problem


@pytest.mark.parametrize("status", [401, 403, 404, 307])
def test_a_server_that_shuts_the_door_stops_everything_and_what_was_answered_stays(
    status: int, server: Misbehaving, asked: Asked
) -> None:
    def reply(handler: _Handler, body: Json) -> None:
        if len(server.bodies) > 3:
            handler.whole({"error": "no entry"}, status, location="http://192.0.2.1/v1/chat/completions")
        else:
            handler.stream(event("x", "stop"))

    server.reply = reply
    seen = []
    with engine_of(server, at_once=1) as engine, pytest.raises(EngineStopped, match=f"status {status}: no entry"):  # noqa: PT012
        for response in engine.generate(asked(number, "Hi") for number in range(20)):
            seen.append(response.text)
    assert seen == ["x", "x", "x"]


def test_a_server_that_goes_down_stops_everything(server: Misbehaving, asked: Asked) -> None:
    def reply(handler: _Handler, body: Json) -> None:
        handler.stream(event("x", "stop"))
        handler.close_connection = True

    server.reply = reply
    with engine_of(server, at_once=1) as engine:
        generating = engine.generate(asked(number, "Hi") for number in range(50))
        assert next(generating).text == "x"
        server.shutdown()
        server.server_close()
        with pytest.raises(EngineStopped, match="no server answers at http://127") as stop:
            list(generating)
    assert stop.value.hint.startswith("curl http://127.0.0.1:")


def test_where_no_server_is_nothing_is_asked(asked: Asked) -> None:
    settings = EngineSettings(engine="server", weights="x", url="http://127.0.0.1:9/v1", timeout=5)
    with ServerEngine(settings) as engine, pytest.raises(EngineStopped, match="no server answers"):
        list(engine.generate([asked(1, "Hi")]))


@pytest.mark.parametrize("models", ["<html>a router</html>", {"detail": "Not Found"}, {"data": "x"}, {"data": [3]}])
def test_what_is_no_such_server_is_said(models: Any, server: Misbehaving, asked: Asked) -> None:
    server.models = models
    with engine_of(server) as engine, pytest.raises(EngineStopped, match="is not an OpenAI-compatible server"):
        list(engine.generate([asked(1, "Hi")]))


def test_another_model_is_not_asked(server: Misbehaving, asked: Asked) -> None:
    server.models = {"data": [{"id": "llama"}, {"id": "qwen"}]}
    with engine_of(server) as engine, pytest.raises(MissingWeights, match="has no model 'a-model'; it has llama, qwen"):
        list(engine.generate([asked(1, "Hi")]))
    assert server.bodies == []


def test_facts_are_the_servers_own(server: Misbehaving) -> None:
    server.models = {"data": [{"id": "a-model", "owned_by": "vllm", "root": "/weights/a-model"}]}
    with engine_of(server) as engine:
        facts = engine.facts()
    assert (facts.engine, facts.model, facts.revision) == ("server", "a-model", "a-model /weights/a-model")
    assert facts.versions == {"vllm": "1.2.3"}
    assert facts.peak_memory_bytes == 0


def test_no_proxy_hears_of_it(server: Misbehaving, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert answered(server, asked(1, "Hi"))[0].text == "fine"


# --- constraints ---------------------------------------------------------------------------------------------------


def test_a_schema_is_asked_for_in_the_servers_own_way(
    server: Misbehaving, asked: Asked, schema: dict[str, Any]
) -> None:
    server.reply = lambda handler, body: handler.stream(event('{"type": "person", "triples": []}', "stop"))
    answered(server, asked(1, "Hi", schema=schema))
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == schema
    server.models = {"data": [{"id": "a-model", "owned_by": "vllm"}]}
    answered(server, asked(1, "Hi", schema=schema))
    assert server.bodies[1]["structured_outputs"] == {"json": schema, "disable_any_whitespace": True}


def test_a_server_that_does_not_keep_a_schema_is_found_out(
    server: Misbehaving, asked: Asked, schema: dict[str, Any]
) -> None:
    server.reply = lambda handler, body: handler.stream(event('{"type": "planet", "triples": []}', "stop"))
    (response,) = answered(server, asked(1, "Hi", schema=schema))
    assert response.problem == (
        "the answer does not fulfil its schema: $.type: 'planet' is not one of ['person', 'city', 'event']"
    )
    server.reply = lambda handler, body: handler.stream(event("Sure! Here is", "stop"))
    assert "the answer is not JSON" in answered(server, asked(1, "Hi", schema=schema))[0].problem


def token(written: str, **rivals: float) -> Json:
    top = [{"token": name, "logprob": logprob} for name, logprob in rivals.items()]
    return {"token": written, "logprob": rivals.get(written, 0.0), "top_logprobs": top}


def with_tokens(text: str, *tokens: Json) -> Json:
    return {"choices": [{"delta": {"content": text}, "finish_reason": "stop", "logprobs": {"content": list(tokens)}}]}


def test_a_choice_is_a_schema_to_others_and_its_rivals_are_read_where_it_stands(
    server: Misbehaving, asked: Asked
) -> None:
    tokens = [token('{"'), token("answer"), token('":"'), token("B", A=-2.0, B=-0.5, C=-3.0, D=-9.0), token('"}')]
    server.reply = lambda handler, body: handler.stream(with_tokens('{"answer":"B"}', *tokens))
    (response,) = answered(server, asked(1, "Hi", choices=("A", "B", "C")))
    assert response.text == "B"
    total = math.log(sum(map(math.exp, (-2.0, -0.5, -3.0))))
    assert response.choice_logprobs == pytest.approx({"A": -2 - total, "B": -0.5 - total, "C": -3 - total})
    enum = server.bodies[0]["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"]
    assert enum == ["A", "B", "C"]


def test_where_a_rival_is_not_told_no_probabilities_are(server: Misbehaving, asked: Asked) -> None:
    tokens = [token("B", A=-2.0, B=-0.5)]
    server.reply = lambda handler, body: handler.stream(with_tokens('{"answer":"B"}', *tokens))
    (response,) = answered(server, asked(1, "Hi", choices=("A", "B", "C")))
    assert (response.text, response.finish, response.choice_logprobs) == ("B", "stop", {})


@pytest.mark.parametrize("said", ["B", '{"answer":"Z"}', '{"reply":"B"}', ""])
def test_a_server_that_does_not_keep_to_the_choices_is_found_out(said: str, server: Misbehaving, asked: Asked) -> None:
    server.reply = lambda handler, body: handler.stream(event(said, "stop"))
    (response,) = answered(server, asked(1, "Hi", choices=("A", "B")))
    assert response.finish == "failed"
    assert response.problem


def test_vllm_is_asked_for_the_tokens_themselves(server: Misbehaving, asked: Asked) -> None:
    """Their probabilities are told by number, however improbable."""
    server.models = {"data": [{"id": "a-model", "owned_by": "vllm"}]}

    def reply(handler: _Handler, body: Json) -> None:
        if handler.path == "/tokenize":
            handler.whole({"tokens": [ord(letter) for letter in body["prompt"]]})
        elif handler.path == "/detokenize":
            handler.whole({"prompt": "".join(map(chr, body["tokens"]))})
        else:
            told = {f"token_id:{number}": -float(number % 7) for number in body["logprob_token_ids"]}
            tops = [{"token": name, "logprob": logprob} for name, logprob in told.items()]
            place = {"token": "token_id:3", "logprob": -0.1, "top_logprobs": tops}
            handler.whole({"choices": [{"logprobs": {"content": [place]}}], "usage": USAGE})

    server.reply = reply
    (response,) = answered(server, asked(1, "Hi", choices=("A", "B", "NIL")))
    plain = {word: -sum(float(ord(letter) % 7) for letter in word) for word in ("A", "B", "NIL")}
    total = math.log(sum(map(math.exp, plain.values())))
    assert response.choice_logprobs == pytest.approx({word: value - total for word, value in plain.items()})
    assert (response.prompt_tokens, response.output_tokens) == (11, 1)
    asked_for = [body for body in server.bodies if "logprob_token_ids" in body]
    assert [body["messages"][-1]["content"] for body in asked_for] == ["Hi", "N", "NI"]
    assert [body.get("continue_final_message") for body in asked_for] == [None, True, True]


def test_a_bad_picture_is_not_sent(server: Misbehaving, asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    bad, good = answered(server, asked(1, tmp_path / "empty.png", "Hi"), asked(2, "Hi"))
    assert "empty.png' is empty" in bad.problem
    assert good.text == "fine"
    assert len(server.bodies) == 1


# --- lines ---------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "error", "usage", "logprobs", "finish_reason", "message"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_whatever_a_server_says_is_an_answer_or_an_error_of_ours(value: Any) -> None:
    try:
        if said := event_of(f"data: {json.dumps(value)}"):
            Stream().take(said)
    except BadInput as error:
        assert error.fact  # noqa: PT017 - either way is right


@given(st.text(max_size=30))
def test_any_line_is_an_event_nothing_or_an_error_of_ours(line: str) -> None:
    for text in (line, f"data:{line}"):
        try:
            assert event_of(text) is None or isinstance(event_of(text), dict)
        except BadInput as error:
            assert error.fact  # noqa: PT017 - either way is right


def test_a_rival_with_a_blank_or_a_quotation_mark_is_the_same_choice() -> None:
    tokens = [token(' "B', **{' "A': -1.0, "A": -2.0, "B": -0.2})]
    assert reported_logprobs(("A", "B"), "B", tokens) == {"A": -1.0, "B": -0.2}
    assert reported_logprobs(("A", "B"), "B", [token("x")]) is None
