"""What an answer of a model becomes: a Response that keeps what the request asked for, or says why there is none.

In: a request and what a model gave.  Out: a Response.  The same for every engine, so that a schema, a closed choice
and a budget mean the same whoever answers.  Knows no model."""

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
"What a terminal may obey; a server's own words can hold it."
_TEXT_OF_JSON = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_CONTROL = re.compile(r"\\.|[\x00-\x1f]", re.DOTALL)
_LEAST = -10_000.0
"Stands for the logarithm of nothing, which JSON cannot say."


def failed(request: Request, problem: str, **costs: Any) -> Response:
    """No answer, and why; `costs` are further fields of Response."""
    shown = _STEERING.sub(lambda found: repr(found[0])[1:-1], problem)
    return Response(request_id=request.id, text="", finish="failed", problem=shown, **costs)


def failure(request: Request, error: LocalmelError) -> Response:
    """An error that concerns this request alone."""
    return failed(request, error.fact)


def too_long(request: Request, prompt_tokens: int, context: int, answer_tokens: int, image_tokens: int = 0) -> Response:
    """The prompt, or the prompt with the room its answer needs, does not fit; the asker may cut and ask again."""
    return failed(
        request,
        f"the prompt has {prompt_tokens:,} tokens ({image_tokens:,} of pictures) and its answer may take "
        f"{answer_tokens:,}; the context holds {context:,}",
        too_long_by=prompt_tokens + answer_tokens - context,
        prompt_tokens=prompt_tokens,
        image_tokens=image_tokens,
    )


def refused(request: Request) -> Response | None:
    """A failed response where no engine could keep what is asked for; None where it can be asked."""
    if request.schema is not None:
        try:
            check_schema(request.schema)
        except BadInput as error:
            return failure(request, error)
    return None


def kept(request: Request, response: Response) -> Response:
    """The response, if what it says is what was asked for; a failed one with the difference otherwise.

    Grammars let a model write control characters into a text of JSON, where they may stand escaped only: that is done
    here.  An answer that its budget cut off (`finish` "length") is passed on as it is: the asker sees that it is a
    part."""
    if response.finish != "stop":
        return response
    text = _escaped(response.text) if request.schema is not None else response.text
    if problem := _broken(request, text):
        return replace(response, text="", finish="failed", problem=problem, choice_logprobs={})
    return response if text == response.text else replace(response, text=text)


def _escaped(text: str) -> str:
    """JSON whose texts hold no raw control character; what says nothing else is the same, letter by letter."""
    return _TEXT_OF_JSON.sub(lambda found: _CONTROL.sub(_as_escape, found[0]), text)


def _as_escape(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("\\") else f"\\u{ord(found[0]):04x}"


def _broken(request: Request, text: str) -> str:
    if request.choices and text not in request.choices:
        return f"the answer {_short(text)} is none of the {len(request.choices)} choices"
    if request.schema is None:
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"the answer is no JSON ({error}): {_short(text)}"
    if fault := fault_of(value, request.schema):
        return f"the answer does not keep its schema: {fault}"
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # half of a pair, escaped: JSON permits it, no file can hold it
        return f"the answer holds {error.object[error.start]!a}, which is half a character"
    return ""


def normalised(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Log probabilities of some answers -> of these answers and no others.  Raises BadInput where none is finite."""
    highest = max(logprobs.values(), default=-math.inf)
    if not math.isfinite(highest):
        raise BadInput(f"none of the {len(logprobs)} choices has a probability the model can tell")
    total = highest + math.log(sum(math.exp(value - highest) for value in logprobs.values()))
    return {choice: max(value - total, _LEAST) for choice, value in logprobs.items()}


def chosen(request: Request, logprobs: Mapping[str, float]) -> str:
    """The likeliest choice, the first of equals; with a temperature, one drawn with the request's seed."""
    if request.temperature <= 0:
        return max(request.choices, key=lambda choice: logprobs[choice])
    highest = max(logprobs.values())
    weights = [math.exp((logprobs[choice] - highest) / request.temperature) for choice in request.choices]
    return Random(request.seed).choices(request.choices, weights)[0]


def choice_response(
    request: Request, logprobs: Mapping[str, float], *, n_tokens: Mapping[str, int] | None = None, **costs: Any
) -> Response:
    """The answer to a closed question.  `logprobs` of every choice, of any common offset; `n_tokens` of each."""
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
    """Hex digest over everything that a model meets: what it may be told by, bytes of pictures excepted."""
    parts = [[message.role, *(str(part) for part in message.parts)] for message in request.messages]
    seed = request.seed if request.temperature > 0 else 0
    told = [parts, request.schema, request.choices, request.max_tokens, request.temperature, seed]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=dict).encode()).hexdigest()


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
