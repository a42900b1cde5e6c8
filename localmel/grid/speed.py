"""How long the models of a grid will take and how much memory: estimates for planning, no measurements.

In: the settings of a model, counts of tokens.  Out: minutes on the card of this machine by its data sheet, and bytes
from the model's files or the catalog.  Where nothing is known, None.  The formula is that of docs/models.md:

    reading   2 x parameters x tokens of the prompts, at 40 % of the card's 16-bit tensor speed
    writing   bytes of the weights once for each token and `at_once` answers, at 60 % of its memory speed"""

from __future__ import annotations

import re

from localmel.engines.memory import MemoryNeed, device_of, free_memory, memory_need, quantization_kind
from localmel.errors import LocalmelError
from localmel.grid.tokens import Tokens
from localmel.settings import EngineSettings
from localmel.weights.catalog import catalog
from localmel.weights.find import find_model

READING, WRITING = 0.4, 0.6
"Shares of what a data sheet promises.  Assumptions."
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
"Dense 16-bit tensor operations and bytes of memory a second, by the makers' data sheets."


def memory_of(model: EngineSettings) -> MemoryNeed | None:
    """Return the memory a model will take; None where localmel does not run the model, or does not know it."""
    return memory_need(model, device_of(model)) if model.engine in ("vllm", "transformers") else None


def minutes_of(model: EngineSettings, tokens: Tokens, card: str) -> float | None:
    """By the data sheet of the card with this name; None where either is not known.  A script takes no time."""
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
    """What the model would run on, in words; empty without a GPU."""
    return free_memory("cuda").device if device_of(model) == "cuda" else ""


def _speeds(card: str) -> tuple[float, float] | None:
    found = (name for name in CARDS if re.search(rf"\b{name}\b", card))
    return CARDS[name] if (name := next(found, "")) else None


def _parameters(model: EngineSettings) -> tuple[float, float] | None:
    """How many, and how many bytes they take."""
    entry = catalog().get(model.weights)
    if entry is not None:
        return entry.parameters, entry.weight_bytes(quantization_kind(model))
    try:
        folder = find_model(model.weights).folder
    except (LocalmelError, OSError):
        return None
    return folder.n_parameters, folder.weight_bytes
