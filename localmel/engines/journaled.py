"""Ask a model only what the journal cannot answer.

In: requests, an engine, a journal.  Out: one response per request; those from the journal come first.  A new answer is
in the journal before it is handed on; a failure is noted there and asked again by the next run.  Two requests with the
same content are sent once.  Where the journal answers everything, the engine is never touched."""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from localmel.engines.protocol import Engine, EngineFacts, Request, Response
from localmel.errors import EngineStopped
from localmel.settings import EngineSettings
from localmel.store.artifacts import sha256_of
from localmel.store.journal import Journal

Q = TypeVar("Q")
T = TypeVar("T")
_DECIDING = ("quantization", "dtype", "device", "context", "longest_side")
_KEPT = {field.name for field in fields(Response)} - {"request_id"}


def ask(
    requests: Iterable[Request], engine: Engine, journal: Journal | None, *, settings: EngineSettings | None = None
) -> Iterator[Response]:
    """Yield one response per request, as they finish.  Without a journal everything is sent.

    `requests` is read as the engine asks for more, so responses may add to it.  `settings` are those of the engine:
    answers of a model in 4 bit do not count for the one in 16.  Raises EngineStopped; yielded responses are kept."""
    if journal is None:
        yield from engine.generate(requests)
        return
    key_of = Keys(engine.facts(), settings)
    remaining = iter(requests)
    for request in remaining:
        if (kept := journal.get(key_of(request))) is None:
            yield from _sent(chain([request], remaining), engine, journal, key_of)
            return
        yield _response(request.id, kept)


def ask_again(
    questions: Iterable[Q],
    request: Callable[[Q, str], Request],
    outcome: Callable[[Q, Response], tuple[Iterable[T], Iterable[Q]]],
    engine: Engine,
    journal: Journal | None,
    *,
    settings: EngineSettings | None = None,
    on_response: Callable[[Response], None] = lambda _: None,
) -> Iterator[T]:
    """Ask every question, and every further question that an answer leads to; yield the results as they come.

    `request` makes the request of a question under an id; `outcome` turns its response into results and into questions
    to ask next.  `on_response` receives every response.  Raises EngineStopped; what was yielded before is whole."""
    fresh, again = iter(questions), deque[Q]()
    waiting: dict[str, Q] = {}
    numbers = count(1)

    def requests() -> Iterator[Request]:
        while question := again.popleft() if again else next(fresh, None):
            request_id = str(next(numbers))
            waiting[request_id] = question
            yield request(question, request_id)

    while True:
        for response in ask(requests(), engine, journal, settings=settings):
            on_response(response)
            results, more = outcome(waiting.pop(response.request_id), response)
            again.extend(more)
            yield from results
        if not again:  # questions may come up after the engine has taken the last one
            return


def _sent(requests: Iterator[Request], engine: Engine, journal: Journal, key_of: Keys) -> Iterator[Response]:
    answered: deque[tuple[str, str]] = deque()  # (request, key) that the journal answers
    waiting: dict[str, list[str]] = {}  # key that was sent -> every request with this content
    sent: dict[str, str] = {}  # request that was sent -> its key

    def unanswered() -> Iterator[Request]:
        for request in requests:
            key = key_of(request)
            if key in waiting:
                waiting[key].append(request.id)
            elif key in journal:
                answered.append((request.id, key))
            else:
                waiting[key] = [request.id]
                sent[request.id] = key
                yield request

    def from_journal() -> Iterator[Response]:
        while answered:
            request_id, key = answered.popleft()
            yield _response(request_id, journal.get(key) or {})

    for response in engine.generate(unanswered()):
        key = sent.pop(response.request_id)
        keep = journal.keep_failure if response.finish == "failed" else journal.keep
        keep(key, _to_json(response))
        yield from from_journal()
        for request_id in waiting.pop(key):
            yield replace(response, request_id=request_id)
    yield from from_journal()
    if sent:
        raise EngineStopped(f"the engine ended with {len(sent):,} requests unanswered", hint="run the same again")


class Keys:
    """Makes the key of an answer from everything that decides it: the model, words, bytes of pictures, sampling."""

    def __init__(self, facts: EngineFacts, settings: EngineSettings | None = None) -> None:
        how = {name: getattr(settings, name) for name in _DECIDING} if settings else {}
        self._model = [facts.engine, facts.revision, dict(facts.versions), how]

    def __call__(self, request: Request) -> str:
        """Return 64 hexadecimal digits.  The order of keys in a schema counts: models answer in that order."""
        messages = [
            [message.role, [_picture(part) if isinstance(part, Path) else part for part in message.parts]]
            for message in request.messages
        ]
        seed = request.seed if request.temperature > 0 else 0  # without sampling a seed decides nothing
        sampling = [request.max_tokens, request.temperature, seed]
        asked = [self._model, messages, request.schema, request.choices, sampling]
        return hashlib.sha256(json.dumps(asked).encode("ascii")).hexdigest()


def _picture(path: Path) -> dict[str, str]:
    try:
        found = path.stat()
        return {"picture": _hashed(path, found.st_size, found.st_mtime_ns)}
    except OSError as error:  # the engine reports what is wrong with it
        return {"picture": f"unreadable: {error.strerror}"}


@lru_cache(maxsize=4096)
def _hashed(path: Path, _size: int, _changed: int) -> str:
    """Hash a picture once, however many sentences share it."""
    return sha256_of(path)


def _to_json(response: Response) -> dict[str, Any]:
    row = {name: getattr(response, name) for name in _KEPT}
    row["choice_logprobs"] = {
        choice: value if math.isfinite(value) else None for choice, value in response.choice_logprobs.items()
    }
    return {name: row[name] for name in sorted(row) if name in ("text", "finish") or row[name] not in (None, "", 0, {})}


def _response(request_id: str, kept: Mapping[str, Any]) -> Response:
    given = {name: value for name, value in kept.items() if name in _KEPT}
    logprobs = given.pop("choice_logprobs", {})
    shares = {choice: -math.inf if value is None else value for choice, value in logprobs.items()}
    return Response(request_id=request_id, choice_logprobs=shares, **given)
