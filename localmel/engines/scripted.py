"""An engine without a model: it answers from a script, and makes up valid answers where the script has none.

In: requests, and a script (a JSON or JSONL file, or a function).  Out: responses that keep schema, choices, budget and
context as the real engines do.  For tests, demonstrations and people who write stages of their own.

A script is a list of objects, one per line in JSONL:

    {"id": "q-7", "answer": "B"}                                    for the request with this id
    {"contains": "Messi", "answer": {"triples": []}, "probability": 0.7}   where a message or choice has this text
    {"answer": "..."}                                               for every other request
    {"contains": "Pele", "problem": "the model gave up"}            a request that fails

The first object that matches answers; `seconds` in it delays the answer.  Tokens are words."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from localmel.engines.answers import choice_response, failed, failure, fingerprint, kept, refused, too_long
from localmel.engines.json_schema import drawn
from localmel.engines.pictures import open_picture
from localmel.engines.protocol import EngineFacts, Request, Response
from localmel.errors import BadInput, shell_line
from localmel.settings import EngineSettings
from localmel.store.artifacts import sha256_of
from localmel.store.codec import from_json

Script = Path | Callable[[Request], "str | Response | None"]
_TOKEN = re.compile(r"\s*\S+|\s+$")
_PROBABILITY = 0.9
"The probability of a choice that a script names without one."
MADE_UP = "made up"
"The revision of a model without a script."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One object of a script."""

    id: str | None = None
    contains: str | None = None
    answer: Any = None
    problem: str = ""
    probability: float = _PROBABILITY
    seconds: float = 0.0

    def fits(self, request: Request, text: str) -> bool:
        return self.id in (None, request.id) and (self.contains is None or self.contains in text)


class ScriptedEngine:
    """Answers in the order of the requests, one at a time."""

    def __init__(self, settings: EngineSettings, script: Script | None = None) -> None:
        self._settings = settings
        self._function = script if callable(script) else None
        self._lines = read_script(script) if isinstance(script, Path) else ()
        self._revision = sha256_of(script) if isinstance(script, Path) else MADE_UP

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Yield one response per request, in order."""
        for request in requests:
            started = time.perf_counter()
            try:
                response = self._answered(request)
            except BadInput as error:
                response = failure(request, error)
            yield replace(response, seconds=time.perf_counter() - started)

    def _answered(self, request: Request) -> Response:
        if refusal := refused(request):
            return refusal
        parts = [part for message in request.messages for part in message.parts]
        for part in parts:
            if isinstance(part, Path):
                open_picture(part, longest_side=self._settings.longest_side)
        text = "\n".join([*(part for part in parts if isinstance(part, str)), *request.choices])
        n_prompt = len(_TOKEN.findall(text))
        if 0 < self._settings.context < n_prompt + request.max_tokens:
            return too_long(request, n_prompt, self._settings.context, request.max_tokens)
        said = self._function(request) if self._function else None
        if isinstance(said, Response):
            return said
        line = _Line(answer=said) if said is not None else self._line(request, text)
        return kept(request, self._spoken(request, line, n_prompt))

    def _line(self, request: Request, text: str) -> _Line:
        line = next((line for line in self._lines if line.fits(request, text)), None)
        if line is None:
            return _Line(answer=_made_up(request))
        time.sleep(line.seconds)
        return line

    def _spoken(self, request: Request, line: _Line, n_prompt: int) -> Response:
        if line.problem:
            return failed(request, line.problem, prompt_tokens=n_prompt)
        if isinstance(line.answer, Mapping) and request.choices:
            return choice_response(request, line.answer, prompt_tokens=n_prompt)
        text = line.answer if isinstance(line.answer, str) else json.dumps(line.answer, ensure_ascii=False)
        if text in request.choices:
            shares = _shares(request, text, line.probability)
            sure = replace(request, temperature=0.0)
            return choice_response(sure, shares, prompt_tokens=n_prompt)
        tokens = _TOKEN.findall(text)
        cut_off = len(tokens) > request.max_tokens
        return Response(
            request_id=request.id,
            text="".join(tokens[: request.max_tokens]) if cut_off else text,
            finish="length" if cut_off else "stop",
            prompt_tokens=n_prompt,
            output_tokens=min(len(tokens), request.max_tokens),
        )

    def facts(self) -> EngineFacts:
        """Return the facts, with the name of the script as the model's."""
        name = self._settings.weights or "scripted"
        return EngineFacts(engine="scripted", model=name, revision=self._revision, versions={})

    def close(self) -> None:
        """Do nothing: no model is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _shares(request: Request, answer: str, probability: float) -> dict[str, float]:
    """Return log probabilities: the given one for the answer, the rest divided equally among the other choices."""
    others = len(request.choices) - 1
    if not others:
        return {answer: 0.0}
    rest = math.log(max(1 - probability, 1e-12) / others)
    return {choice: math.log(probability) if choice == answer else rest for choice in request.choices}


def _made_up(request: Request) -> Any:
    """Return a valid answer that depends only on the request.  Raises BadInput where any answer would be valid."""
    random = Random(fingerprint(request))
    if request.choices:
        return {choice: random.uniform(-8, 0) for choice in request.choices}
    if request.schema is not None:
        return drawn(request.schema, random)
    raise BadInput(f"the script has no answer for request {request.id!r}", hint='add {"answer": "..."} to it')


def read_script(path: Path) -> tuple[_Line, ...]:
    """Read the objects of a script.  Raises BadInput with the number of the line that is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the script {path}: {error}", hint=shell_line("ls -l", path)) from None
    if text.lstrip().startswith("["):
        entries = list(enumerate(_parsed(path, 1, text), 1))
    else:
        rows = enumerate(text.split("\n"), 1)
        entries = [(number, _parsed(path, number, row)) for number, row in rows if row.strip()]
    return tuple(_checked(path, number, entry) for number, entry in entries)


def _parsed(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"cannot read {path}:{number}: it is not JSON ({error})") from None


def _checked(path: Path, number: int, entry: Any) -> _Line:
    line = from_json(_Line, entry, where=f"{path}: answer {number}", error=BadInput)
    if entry.keys().isdisjoint({"answer", "problem"}):
        raise BadInput(f"{path}: answer {number} has neither an answer nor a problem")
    if not 0 < line.probability <= 1:
        raise BadInput(f"{path}: answer {number} has probability {line.probability}")
    return line


def made_up_note(weights: str) -> str:
    """Return the note that a model has no script, so that its answers mean nothing."""
    return f"{weights} answers are {MADE_UP}: no such script"
