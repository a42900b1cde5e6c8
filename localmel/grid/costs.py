"""Estimate what the models of a grid will cost before any is asked: tokens, minutes and memory.

In: requests, and the settings of the model that would get them.  Out: token counts by the model's own tokenizer and
processor if its folder is here, by words for a script, else estimated from characters and the catalog, and marked so;
minutes by the data sheet of this machine's card; bytes from the model's files or the catalog; None if unknown.  Of many
requests a sample is counted and scaled up.  Loads no weights.  The formula is that of docs/models.md:

    reading   2 x parameters x tokens of the prompts, at 40 % of the card's 16-bit tensor speed
    writing   bytes of the weights once for each token and `at_once` answers, at 60 % of its memory speed"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from localmel.engines.memory import MemoryNeed, device_of, free_memory, memory_need, quantization_kind
from localmel.engines.protocol import Request
from localmel.errors import LocalmelError
from localmel.generate.question import TOKENS_PER_NAME
from localmel.settings import EngineSettings
from localmel.weights.catalog import catalog
from localmel.weights.find import find_model

_T = TypeVar("_T")
SAMPLE = 48
"How many requests are counted; of more, every n-th is."
_CHARACTERS = 4.0
"Characters of an English token, if there is no tokenizer."


READING, WRITING = 0.4, 0.6
"Assumed shares of what a data sheet promises."
CARDS = {
    "H200": (989e12, 4800e9),
    "H100": (989e12, 3350e9),
    "A100": (312e12, 1555e9),
    "L40S": (362e12, 864e9),
    "L4": (121e12, 300e9),
    "A10": (125e12, 600e9),
    "T4": (65e12, 320e9),
    "RTX 4090": (165e12, 1008e9),
    "RTX 3090": (71e12, 936e9),
    "RTX 3060": (25e12, 360e9),
}
"Dense 16-bit tensor operations and bytes of memory per second, from the makers' data sheets."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of all requests of one stage."""

    requests: int
    prompt: int
    "Includes image tokens."
    image: int
    output: int
    "Always an estimate: the answers are not known yet."
    counted: bool
    "Whether the model's own tokenizer counted them; False: estimated."
    sampled: int
    "How many requests were counted."


def evenly(found: Sequence[_T], most: int = SAMPLE) -> list[_T]:
    """Return at most `most` of them, spread evenly."""
    n = min(len(found), most)
    return [found[number * len(found) // n] for number in range(n)]


def tokens_of(requests: Sequence[Request], model: EngineSettings, *, in_all: int | None = None) -> Tokens:
    """Count the tokens of requests.  in_all: how many requests they represent, if they are a sample already."""
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
    """Estimate the tokens of questions with this many characters, each answered with one token."""
    prompt = round(requests * characters / _CHARACTERS)
    return Tokens(requests=requests, prompt=prompt, image=0, output=requests, counted=False, sampled=0)


def _answer(request: Request) -> int:
    """Estimate the tokens of an answer: one for a choice, else the usual number for each name asked about."""
    if request.choices:
        return 1
    names = len((request.schema or {}).get("properties", ())) or 1
    return min(request.max_tokens, TOKENS_PER_NAME * names)


def _counter(model: EngineSettings) -> tuple[Callable[[Request], tuple[int, int]], bool]:
    """Return a function that counts prompt and image tokens of a request, and whether it is the model's own."""
    if model.engine == "scripted":
        return _words, True
    if model.engine in ("vllm", "transformers") and importlib.util.find_spec("transformers"):
        try:
            return _own(model), True
        except (LocalmelError, OSError, ValueError):  # missing or unreadable: estimate instead
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
        except LocalmelError:  # a picture that cannot be read is left out
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


# --- minutes and memory ----------------------------------------------------------------------------------------------


def memory_of(model: EngineSettings) -> MemoryNeed | None:
    """Return the memory a model will take; None if localmel does not run or does not know it."""
    return memory_need(model, device_of(model)) if model.engine in ("vllm", "transformers") else None


def minutes_of(model: EngineSettings, tokens: Tokens, card: str) -> float | None:
    """Estimate the minutes on a card by its data sheet; None if card or model is unknown.  A script takes no time."""
    if model.engine == "scripted":
        return 0.0
    speeds = _speeds(card)
    size = _parameters(model)
    if speeds is None or size is None:
        return None
    parameters, weight_bytes = size
    operations, n_bytes = speeds
    reading = 2 * parameters * tokens.prompt / (READING * operations)
    writing = tokens.output / model.at_once * weight_bytes / (WRITING * n_bytes)
    return (reading + writing) / 60


def card_here(model: EngineSettings) -> str:
    """Name the card the model would run on; empty without a GPU."""
    return free_memory("cuda").device if device_of(model) == "cuda" else ""


def _speeds(card: str) -> tuple[float, float] | None:
    found = (name for name in CARDS if re.search(rf"\b{name}\b", card))
    return CARDS[name] if (name := next(found, "")) else None


def _parameters(model: EngineSettings) -> tuple[float, float] | None:
    """Return the number of parameters and the bytes they take."""
    entry = catalog().get(model.weights)
    if entry is not None:
        return entry.parameters, entry.weight_bytes(quantization_kind(model))
    try:
        folder = find_model(model.weights).folder
    except (LocalmelError, OSError):
        return None
    return folder.n_parameters, folder.weight_bytes
