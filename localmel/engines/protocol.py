"""What every way to run a model has in common: requests in, one response each out.

A request carries messages with pictures, what constrains the answer, a token budget and a seed.  A response carries
the answer, or why there is none, with what it cost.  Knows nothing of mentions, triples or candidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn: texts and pictures in the order in which the model is to meet them."""

    role: Role
    parts: tuple[str | Path, ...]
    "A Path is a picture; the engine opens it once, upright, in RGB, scaled down to its `longest_side`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question.  `id` comes back with the response and reaches no model."""

    id: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    "JSON schema that the answer must fulfil; enforced while it is written."
    choices: tuple[str, ...] = ()
    "Closed set of answers; the response then carries the log probability of each.  At most one of the two is given."
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
    "As the model met them, image tokens included."
    image_tokens: int = 0
    cached_tokens: int = 0
    "Of the prompt, those the engine had read before and did not read again; 0 where it does not tell."
    output_tokens: int = 0
    seconds: float = 0.0
    "From the moment the request was handed to the model to the last token; of a batch, the whole batch's."
    first_token_seconds: float | None = None
    "None where the engine does not tell."
    choice_logprobs: Mapping[str, float] = field(default_factory=dict)
    "Natural logarithms, normalised: over all choices the probabilities sum to 1.  Empty where the engine cannot tell."
    problem: str = ""
    'With `finish` "failed": a fact with its value.'
    too_long_by: int = 0
    "By how many tokens prompt and budget together exceed the context, where that is the problem; else 0."


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What goes into manifests and journals: the same facts, the same answers."""

    engine: str
    model: str
    revision: str
    "Hash over names and bytes of the model's configuration and the sizes of its weights, or the server's own name."
    versions: Mapping[str, str]
    load_seconds: float = 0.0
    peak_memory_bytes: int = 0
    "Of the process that ran the model, on the device it ran on; 0 where nobody can tell (a server)."


class Engine(Protocol):
    """One model in memory.  A context manager: on leaving, its memory is given back."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """One response per request, in the order in which they are finished.

        A request that cannot be answered gives a response with `finish` "failed"; the others are answered all the
        same.  Raises EngineStopped when the model itself is gone; what was yielded before is whole."""
        ...

    def facts(self) -> EngineFacts: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
