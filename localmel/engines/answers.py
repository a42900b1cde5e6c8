"""Turn the output of a model into a Response that keeps the request's constraints, or says why there is none.

In: a request and the output of a model.  Out: a Response.  The same for every engine, so that a schema, a closed choice
and a budget mean the same whichever engine answers.  Knows no model."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

from localmel.engines.json_schema import check_schema, fault_of
from localmel.engines.protocol import Request, Response
from localmel.errors import BadInput, LocalmelError

_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"Control characters that a terminal may obey; a server's messages can contain them."
_TEXT_OF_JSON = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_CONTROL = re.compile(r"\\.|[\x00-\x1f]", re.DOTALL)
_LEAST = -10_000.0
"Replaces the logarithm of zero, which JSON cannot express."


def failed(request: Request, problem: str, **costs: Any) -> Response:
    """Return a response without an answer; `costs` are further fields of Response."""
    shown = _STEERING.sub(lambda found: repr(found[0])[1:-1], problem)
    return Response(request_id=request.id, text="", finish="failed", problem=shown, **costs)


def failure(request: Request, error: LocalmelError) -> Response:
    """Return the response for an error that concerns this request alone."""
    return failed(request, error.fact)


def too_long(request: Request, prompt_tokens: int, context: int, answer_tokens: int, image_tokens: int = 0) -> Response:
    """Return the response for a prompt that, with its answer, exceeds the context; the caller may shorten it."""
    return failed(
        request,
        f"the prompt has {prompt_tokens:,} tokens ({image_tokens:,} of pictures) and its answer may take "
        f"{answer_tokens:,}; the context holds {context:,}",
        too_long_by=prompt_tokens + answer_tokens - context,
        prompt_tokens=prompt_tokens,
        image_tokens=image_tokens,
    )


def refused(request: Request) -> Response | None:
    """Return a failed response for a request that no engine could keep; None for any other."""
    if request.schema is not None:
        try:
            check_schema(request.schema)
        except BadInput as error:
            return failure(request, error)
    return None


def kept(request: Request, response: Response) -> Response:
    """Return the response if its answer keeps the request's constraints; else a failed one with the difference.

    Grammars let a model write raw control characters into a text of JSON, which must be escaped: that is done here.
    An answer that its budget cut off (`finish` "length") is passed on unchanged: the caller sees that it is a part."""
    if response.finish != "stop":
        return response
    text = _escaped(response.text) if request.schema is not None else response.text
    if problem := _broken(request, text):
        return replace(response, text="", finish="failed", problem=problem, choice_logprobs={})
    return response if text == response.text else replace(response, text=text)


def _escaped(text: str) -> str:
    """Escape raw control characters in the texts of JSON and change nothing else."""
    return _TEXT_OF_JSON.sub(lambda found: _CONTROL.sub(_as_escape, found[0]), text)


def _as_escape(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("\\") else f"\\u{ord(found[0]):04x}"


def _broken(request: Request, text: str) -> str:
    if request.choices and text not in request.choices:
        return f"the answer {_short(text)} is not one of the {len(request.choices)} choices"
    if request.schema is None:
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"the answer is not JSON ({error}): {_short(text)}"
    if fault := fault_of(value, request.schema):
        return f"the answer does not fulfil its schema: {fault}"
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, escaped: JSON permits it, UTF-8 does not
        return f"the answer holds {error.object[error.start]!a}, which is half a character"
    return ""


def normalised(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Scale log probabilities so that the probabilities sum to 1.  Raises BadInput where none is finite."""
    highest = max(logprobs.values(), default=-math.inf)
    if not math.isfinite(highest):
        raise BadInput(f"the model gives no probability for any of the {len(logprobs)} choices")
    total = highest + math.log(sum(math.exp(value - highest) for value in logprobs.values()))
    return {choice: max(value - total, _LEAST) for choice, value in logprobs.items()}


def chosen(request: Request, logprobs: Mapping[str, float]) -> str:
    """Return the likeliest choice, the first of equals; with a temperature, one drawn with the request's seed."""
    if request.temperature <= 0:
        return max(request.choices, key=lambda choice: logprobs[choice])
    highest = max(logprobs.values())
    weights = [math.exp((logprobs[choice] - highest) / request.temperature) for choice in request.choices]
    return Random(request.seed).choices(request.choices, weights)[0]


def choice_response(
    request: Request, logprobs: Mapping[str, float], *, n_tokens: Mapping[str, int] | None = None, **costs: Any
) -> Response:
    """Return the answer to a closed question from the log probability of every choice, up to a common offset.

    `n_tokens` are the tokens of each choice."""
    try:
        shares = normalised(logprobs)
    except BadInput as error:
        return failed(request, error.fact, **costs)
    text = chosen(request, shares)
    written = n_tokens[text] if n_tokens else 1
    return Response(
        request_id=request.id, text=text, finish="stop", choice_logprobs=shares, output_tokens=written, **costs
    )


def fingerprint(request: Request) -> str:
    """Return a hex digest over everything that decides an answer, except the bytes of pictures."""
    parts = [[message.role, *(str(part) for part in message.parts)] for message in request.messages]
    seed = request.seed if request.temperature > 0 else 0
    asked = [parts, request.schema, request.choices, request.max_tokens, request.temperature, seed]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=dict).encode()).hexdigest()


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
