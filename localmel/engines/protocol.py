"""The interface of every way to run a model: requests in, one response each out.

A request carries messages with pictures, a constraint on the answer, a token budget and a seed.  A response carries
the answer, or why there is none, and what it cost.  Both travel between two processes as lines of JSON; paths travel
as text, whatever bytes they hold.  Knows nothing of mentions, triples or candidates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "failed"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn: texts and pictures in the order in which the model reads them."""

    role: Role
    parts: tuple[str | Path, ...]
    "A Path is a picture; the engine opens it once, upright, in RGB, scaled down to its `longest_side`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question.  `id` comes back with the response and reaches no model."""

    id: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    "JSON schema of the answer, enforced while it is written."
    choices: tuple[str, ...] = ()
    "Closed set of answers; the response then carries the log probability of each.  Excludes a schema."
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError(f"request {self.id!r} has no messages")
        if self.schema is not None and self.choices:
            raise ValueError(f"request {self.id!r} has both a schema and choices")
        if len(set(self.choices)) != len(self.choices) or any(not choice for choice in self.choices):
            raise ValueError(f"request {self.id!r} has an empty choice, or one twice: {self.choices}")
        if self.max_tokens < 1:
            raise ValueError(f"request {self.id!r} allows {self.max_tokens} tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The answer to one request, or, with `finish` "failed", why there is none."""

    request_id: str
    text: str
    finish: Finish
    prompt_tokens: int = 0
    "Tokens that the model read, image tokens included."
    image_tokens: int = 0
    cached_tokens: int = 0
    "Prompt tokens that the engine took from its cache; 0 where it does not report them."
    output_tokens: int = 0
    seconds: float = 0.0
    "From handing the request to the model to the last token; for a batch, the time of the whole batch."
    first_token_seconds: float | None = None
    "None where the engine does not report it."
    choice_logprobs: Mapping[str, float] = field(default_factory=dict)
    "Natural logarithms; the probabilities of all choices sum to 1.  Empty where the engine does not report them."
    problem: str = ""
    'With `finish` "failed": a fact with its value.'
    too_long_by: int = 0
    "Tokens by which prompt and budget together exceed the context, where that is the problem; else 0."


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """The entries for manifests and journals: the same facts, the same answers."""

    engine: str
    model: str
    revision: str
    "Hash over names and bytes of the model's configuration and the sizes of its weights, or the server's own name."
    versions: Mapping[str, str]
    load_seconds: float = 0.0
    peak_memory_bytes: int = 0
    "Memory of the process that ran the model, on its device; 0 where unknown (a server)."


class Engine(Protocol):
    """One model in memory.  A context manager: on leaving, its memory is given back."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Yield one response per request, in the order in which they finish.

        A request that cannot be answered gives a response with `finish` "failed" and does not disturb the others.
        Raises EngineStopped when the model itself is gone; responses yielded before stay valid."""
        ...

    def facts(self) -> EngineFacts: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def line_of(message: Mapping[str, Any]) -> bytes:
    """Return one message as JSON on one line."""
    return json.dumps(message, separators=(",", ":"), default=dict).encode("ascii") + b"\n"


def message_of(line: bytes) -> Json:
    """Return the message of a line.  Raises ValueError for a line that was cut off."""
    message = json.loads(line)
    if not line.endswith(b"\n") or not isinstance(message, dict):
        raise ValueError(f"not a complete message: {line[:80]!r}")
    return message


def request_json(request: Request) -> Json:
    """Return a request as plain values."""
    return {
        "id": request.id,
        "messages": [[message.role, [_part_json(part) for part in message.parts]] for message in request.messages],
        "schema": dict(request.schema) if request.schema is not None else None,
        "choices": list(request.choices),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }


def request_from(values: Mapping[str, Any]) -> Request:
    """Return the request of the values that `request_json` made."""
    messages = tuple(
        Message(role=role, parts=tuple(part if isinstance(part, str) else Path(part["picture"]) for part in parts))
        for role, parts in values["messages"]
    )
    return Request(**{**values, "messages": messages, "choices": tuple(values["choices"])})


def _part_json(part: str | Path) -> str | Json:
    return part if isinstance(part, str) else {"picture": str(part.absolute())}
