"""How many tokens the requests of a grid have, before any of them is sent.

In: requests, and the model that would get them.  Out: counts: by the model's own tokenizer and processor where its
folder is here, by words for a script, else estimated from characters and from the catalog, and marked so.  Of many
requests a sample is counted and scaled up.  Loads no weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from localmel.engines.protocol import Request
from localmel.errors import LocalmelError
from localmel.generate.question import TOKENS_PER_NAME
from localmel.settings import EngineSettings
from localmel.weights.catalog import catalog
from localmel.weights.find import find_model

_T = TypeVar("_T")
SAMPLE = 48
"So many requests are counted; of more, every n-th."
_CHARACTERS = 4.0
"Of a token of English, where no tokenizer is here to tell."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Of all requests of one stage."""

    requests: int
    prompt: int
    "Image tokens included."
    image: int
    output: int
    "An estimate whatever the rest is: answers are not known."
    counted: bool
    "By the model's own tokenizer; False: estimated."
    sampled: int
    "How many requests the counts are from."


def evenly(found: Sequence[_T], most: int = SAMPLE) -> list[_T]:
    """At most so many of them, spread over all."""
    n = min(len(found), most)
    return [found[number * len(found) // n] for number in range(n)]


def tokens_of(requests: Sequence[Request], model: EngineSettings, *, in_all: int | None = None) -> Tokens:
    """`in_all`: how many requests these ones stand for, where they are a sample already."""
    in_all = len(requests) if in_all is None else in_all
    sample = evenly(requests)
    count, counted = _counter(model)
    found = [count(request) for request in sample]
    scale = in_all / len(sample) if sample else 0.0
    return Tokens(
        requests=in_all,
        prompt=round(scale * sum(prompt for prompt, _ in found)),
        image=round(scale * sum(image for _, image in found)),
        output=round(scale * sum(_answer(request) for request in sample)),
        counted=counted,
        sampled=len(sample),
    )


def guessed_tokens(requests: int, characters: int) -> Tokens:
    """Of questions of about so many characters, each answered with one token, where none can be written yet."""
    prompt = round(requests * characters / _CHARACTERS)
    return Tokens(requests=requests, prompt=prompt, image=0, output=requests, counted=False, sampled=0)


def _answer(request: Request) -> int:
    """One token for a choice; for each name that is asked about what an answer usually needs."""
    if request.choices:
        return 1
    names = len((request.schema or {}).get("properties", ())) or 1
    return min(request.max_tokens, TOKENS_PER_NAME * names)


def _counter(model: EngineSettings) -> tuple[Callable[[Request], tuple[int, int]], bool]:
    """What counts prompt and image tokens of a request, and whether it is the model's own count."""
    if model.engine == "scripted":
        return _words, True
    if model.engine in ("vllm", "transformers") and importlib.util.find_spec("transformers"):
        try:
            return _own(model), True
        except (LocalmelError, OSError, ValueError):  # not here, or not to be read: an estimate has to do
            pass
    entry = catalog().get(model.weights)
    per_picture = entry.image_tokens if entry else 0
    return lambda request: _by_characters(request, per_picture), False


def _own(model: EngineSettings) -> Callable[[Request], tuple[int, int]]:
    from localmel.engines.prompts import Prompter
    from localmel.engines.protocol import Response

    folder = find_model(model.weights).folder
    prompter = Prompter(folder, longest_side=model.longest_side, context=0)

    def count(request: Request) -> tuple[int, int]:
        try:
            prompt = prompter.prompt(request)
        except LocalmelError:  # a picture that cannot be read is asked about without
            return _by_characters(request, 0)
        if isinstance(prompt, Response):
            return prompt.prompt_tokens, prompt.image_tokens
        return prompt.n_tokens, prompt.n_image_tokens

    return count


def _words(request: Request) -> tuple[int, int]:
    return sum(len(part.split()) for part in (*_texts(request), *request.choices)), 0


def _by_characters(request: Request, per_picture: int) -> tuple[int, int]:
    pictures = sum(isinstance(part, Path) for message in request.messages for part in message.parts)
    text = sum(map(len, _texts(request))) / _CHARACTERS
    return round(text) + pictures * per_picture, pictures * per_picture


def _texts(request: Request) -> list[str]:
    return [part for message in request.messages for part in message.parts if isinstance(part, str)]
