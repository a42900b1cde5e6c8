"""Requests and responses as lines between two processes.

In: one of our nouns.  Out: JSON on one line, and back.  Paths travel as text, whatever bytes they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localmel.engines.protocol import Message, Request, Response

Json = dict[str, Any]


def line_of(message: Mapping[str, Any]) -> bytes:
    """One message, ended by a line break and free of others."""
    return json.dumps(message, separators=(",", ":"), default=dict).encode("ascii") + b"\n"


def message_of(line: bytes) -> Json:
    """The message of a line.  Raises ValueError for a line that was cut off."""
    message = json.loads(line)
    if not line.endswith(b"\n") or not isinstance(message, dict):
        raise ValueError(f"no whole message: {line[:80]!r}")
    return message


def request_json(request: Request) -> Json:
    """A request as plain values."""
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
    """The request that `request_json` took apart."""
    messages = tuple(
        Message(role=role, parts=tuple(_part_from(part) for part in parts)) for role, parts in values["messages"]
    )
    return Request(**{**values, "messages": messages, "choices": tuple(values["choices"])})


def _part_json(part: str | Path) -> str | Json:
    return part if isinstance(part, str) else {"picture": str(part.absolute())}


def _part_from(part: str | Mapping[str, str]) -> str | Path:
    return part if isinstance(part, str) else Path(part["picture"])


def response_json(response: Response) -> Json:
    """A response as plain values."""
    return asdict(response)


def response_from(values: Mapping[str, Any]) -> Response:
    """The response that `response_json` took apart."""
    return Response(**values)
