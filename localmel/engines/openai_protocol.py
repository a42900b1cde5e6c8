"""Speak the protocol of OpenAI-compatible servers, without a connection.

In: a request.  Out: the body to send.  In: lines that came back.  Out: a response, or what is wrong with them.
Servers differ in how to ask for a schema and a closed choice: the body follows what the server says it is, never a
guess."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localmel.engines.answers import choice_response, failed
from localmel.engines.pictures import open_picture
from localmel.engines.protocol import Request, Response
from localmel.errors import BadInput

Json = dict[str, Any]

VLLM = "vllm"
"vLLM's name for itself in its list of models; all others get only what they have in common."
_TOP = 20
"Likely tokens asked for at each place; the most that the protocol permits."
_TOO_LONG = (
    re.compile(r"maximum context length is (?P<limit>\d+) tokens.*?(?P<prompt>\d+) input tokens", re.DOTALL),
    re.compile(r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<limit>\d+) tokens\)"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server that answers."""

    model: str
    kind: str = ""
    "Its name for itself: `vllm`, `llamacpp`, `library` (ollama), ..."
    name: str = ""
    "The model it says it runs, for the revision."

    @property
    def is_vllm(self) -> bool:
        return self.kind == VLLM


def body_of(request: Request, server: Server, *, longest_side: int) -> Json:
    """Return the body of a chat completion.  Raises BadPicture."""
    body: Json = {
        "model": server.model,
        "messages": [
            {"role": message.role, "content": _content(message.parts, longest_side)} for message in request.messages
        ],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
    }
    if request.schema is not None:
        body |= _constraint(request.schema, server)
    if request.choices:
        if server.is_vllm:
            body["structured_outputs"] = {"choice": list(request.choices)}
        else:
            body |= _constraint(_choice_schema(request.choices), server)
        body |= {"logprobs": True, "top_logprobs": _TOP}
    return body


def reading_body(body: Mapping[str, Any], beginning: str, tokens: Sequence[int]) -> Json:
    """Return the body that asks vLLM how probable these tokens are after the prompt and the beginning of an answer."""
    kept = {key: body[key] for key in ("model", "chat_template_kwargs")}
    asked: Json = {
        **kept,
        "messages": list(body["messages"]),
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": True,
        "logprob_token_ids": list(tokens),
        "return_tokens_as_token_ids": True,
    }
    if beginning:
        asked["messages"].append({"role": "assistant", "content": beginning})
        asked |= {"add_generation_prompt": False, "continue_final_message": True}
    return asked


def _content(parts: Sequence[str | Path], longest_side: int) -> str | list[Json]:
    if all(isinstance(part, str) for part in parts):
        return "".join(str(part) for part in parts)
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": open_picture(part, longest_side=longest_side).data_url()}}
        for part in parts
    ]


def _constraint(schema: Mapping[str, Any], server: Server) -> Json:
    if server.is_vllm:
        return {"structured_outputs": {"json": dict(schema), "disable_any_whitespace": True}}
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": dict(schema), "strict": True},
        }
    }


def _choice_schema(choices: Sequence[str]) -> Json:
    """Return a closed choice as a schema; an object, because some servers accept no other type."""
    properties = {"answer": {"type": "string", "enum": list(choices)}}
    return {"type": "object", "properties": properties, "required": ["answer"], "additionalProperties": False}


# --- answers ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Stream:
    """An answer while it comes in, event by event."""

    text: str = ""
    finish: str = ""
    usage: Json = field(default_factory=dict)
    tokens: list[Json] = field(default_factory=list)
    "Each written token with the likeliest alternatives, where they were asked for."
    thought: bool = False
    problem: str = ""

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one chunk, or all of an answer that is not streamed.  Raises BadInput for anything else."""
        try:
            if error := event.get("error"):
                self.problem = message_of(error)
                return
            if isinstance(usage := event.get("usage"), dict):
                self.usage = usage
            for choice in event.get("choices") or ():
                part = choice.get("delta") or choice.get("message") or {}
                self.text += part.get("content") or ""
                self.thought |= bool(part.get("reasoning_content") or part.get("reasoning"))
                self.finish = choice.get("finish_reason") or self.finish
                self.tokens += (choice.get("logprobs") or {}).get("content") or ()
        except (AttributeError, TypeError, KeyError) as error:
            raise BadInput(f"cannot read the server's answer: it has an unexpected form ({error})") from None


def event_of(line: str) -> Json | None:
    """Return the event of one line of a stream; None for a line without one, and for the mark of the end.

    Raises BadInput for an event that is not JSON."""
    if not line.startswith("data:") or (data := line.removeprefix("data:").strip()) == "[DONE]":
        return None
    return parsed(data)


def parsed(text: str) -> Json:
    """Parse a JSON object.  Raises BadInput with the beginning of any other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadInput(f"the server answered {text[:80]!r}, which is not a JSON object")
    return value


def message_of(error: Any) -> str:
    """Return the message of a server's error, in any of the usual forms."""
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("detail") or error.get("error") or error
    return str(error)[:500]


def response_of(request: Request, stream: Stream, server: Server, **costs: Any) -> Response:
    """Return the response of a complete stream."""
    usage = stream.usage
    costs |= {"prompt_tokens": count_of(usage, "prompt_tokens"), "output_tokens": count_of(usage, "completion_tokens")}
    costs |= {"cached_tokens": count_of(usage.get("prompt_tokens_details"), "cached_tokens")}
    if stream.problem:
        return failed(request, f"the server ended its answer: {stream.problem}", **costs)
    if not stream.text and stream.thought:
        return failed(
            request, "the model only reasoned and did not answer; start the server with thinking switched off", **costs
        )
    if request.choices:
        return _chosen(request, stream, server, costs)
    finish = "length" if stream.finish == "length" else "stop"
    return Response(request_id=request.id, text=stream.text, finish=finish, **costs)  # type: ignore[arg-type]


def count_of(usage: Any, name: str) -> int:
    """Return a number of tokens as the server reports it; 0 where it does not."""
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) else 0


def _chosen(request: Request, stream: Stream, server: Server, costs: Mapping[str, Any]) -> Response:
    text = stream.text.strip()
    if not server.is_vllm:
        try:
            text = str(parsed(text).get("answer"))
        except BadInput as error:
            return failed(request, error.fact, **costs)
    if text not in request.choices:
        return failed(request, f"the answer {text[:80]!r} is not one of the {len(request.choices)} choices", **costs)
    try:
        logprobs = reported_logprobs(request.choices, text, stream.tokens)
    except (AttributeError, TypeError, KeyError, ValueError):  # reported in an unknown form
        logprobs = None
    if logprobs is None:
        return Response(request_id=request.id, text=text, finish="stop", **costs)
    return choice_response(request, logprobs, **{key: value for key, value in costs.items() if key != "output_tokens"})


def reported_logprobs(
    choices: Sequence[str], written: str, tokens: Iterable[Mapping[str, Any]]
) -> dict[str, float] | None:
    """Return the log probability of every choice at the place where the choice was written.

    Returns None where the server does not report all of them, or writes a choice in several tokens."""
    for token in tokens:
        if _bare(token.get("token")) != written:
            continue
        found: dict[str, float] = {}
        for rival in token.get("top_logprobs") or ():
            choice = _bare(rival.get("token"))
            if choice in choices:
                found[choice] = max(found.get(choice, rival["logprob"]), rival["logprob"])
        return found if len(found) == len(choices) else None
    return None


def _bare(token: Any) -> str:
    """Strip the blank or the quotation marks that a tokenizer joined to a token."""
    return str(token or "").strip().strip('"').strip()


def read_logprobs(answer: Mapping[str, Any]) -> dict[int, float]:
    """Return token -> log probability from vLLM's answer to `reading_body`.  Raises BadInput where it has none."""
    try:
        place = answer["choices"][0]["logprobs"]["content"][0]
        rivals = [*place["top_logprobs"], place]
        return {int(str(rival["token"]).removeprefix("token_id:")): float(rival["logprob"]) for rival in rivals}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadInput(f"the server did not report the probabilities of tokens ({error})") from None


def refusal(request: Request, status: int, said: str) -> Response:
    """Return the response to a request that the server refuses, with the numbers where the prompt was too long."""
    for form in _TOO_LONG:
        if found := form.search(said):
            limit, prompt = int(found["limit"]), int(found["prompt"])
            by = max(prompt + request.max_tokens - limit, 1)
            return failed(request, f"the server refuses it: {said}", too_long_by=by, prompt_tokens=prompt)
    return failed(request, f"the server refuses it with status {status}: {said or 'no reason given'}")
