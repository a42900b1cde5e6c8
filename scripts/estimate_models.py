"""What the profiles with large models will need: disk, GPU memory, minutes.  Estimates for planning, no measurements.

In: the shipped profiles and the catalog of weights.  Out: the table that stands in docs/models.md, as Markdown.

    a caption   one picture of 4:3 with a sentence and two names (WikiDiverse: 14,851 mentions in 7,405 captions)
    reading     2 x parameters x tokens of the question, at 40 % of the card's 16-bit tensor speed
    writing     bytes of the weights once for each token and `at_once` questions, at 60 % of its memory speed

Both shares are assumptions.  One published run to hold them against: LLaVA by vLLM on one L4, 55 pictures a minute."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from localmel.doctor.needs import models_of
from localmel.engines.memory import gib, memory_need
from localmel.generate.question import TOKENS_PER_NAME
from localmel.settings import EngineSettings, Profile, load_profile, profile_names
from localmel.weights.catalog import MINILM, catalog
from localmel.weights.needed import weights_of

NAMES = 2.0
QUESTION_TOKENS = {"generate": 400, "rerank": 1050}
"Words beside the picture: 1,600 and 4,200 characters of our own prompts (two names; 16 candidates with 4 facts each)."
LLAVA_TOKENS = {336: 1368, 672: 2340, 1008: 2340}
"Of a 4:3 picture at that longest side, by transformers' own processor with the published geometry."
READING, WRITING = 0.4, 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU by its data sheet: dense 16-bit tensor operations and bytes a second."""

    name: str
    operations: float
    bytes: float


CARDS = {
    "paper": Card(name="L4, 24 GB", operations=121e12, bytes=300e9),
    "qwen": Card(name="L4, 24 GB", operations=121e12, bytes=300e9),
    "paper-13b": Card(name="A100, 40 GB", operations=312e12, bytes=1555e9),
    "small": Card(name="RTX 3060, 12 GB", operations=25e12, bytes=360e9),
}


def image_tokens(engine: EngineSettings) -> int:
    """Of a 4:3 picture with this longest side."""
    if engine.weights.startswith("llava"):
        return LLAVA_TOKENS[engine.longest_side]
    return round(engine.longest_side / 28) * round(engine.longest_side * 3 / 4 / 28)  # Qwen2.5-VL: 28 pixels a token


def seconds_per_caption(stage: str, engine: EngineSettings, card: Card) -> float:
    """Of one stage, many captions at once."""
    entry = catalog()[engine.weights]
    weight_bytes = entry.weight_bytes(engine.quantization or "16bit")
    if stage == "generate":
        questions, asked, answered = 1.0, image_tokens(engine) + QUESTION_TOKENS[stage], TOKENS_PER_NAME * NAMES
    else:
        questions, asked, answered = NAMES, QUESTION_TOKENS[stage], 1.0
    reading = 2 * entry.parameters * asked / (READING * card.operations)
    writing = answered / engine.at_once * weight_bytes / (WRITING * card.bytes)
    return questions * (reading + writing)


def row(profile: Profile) -> str:
    """One profile as a line of the table."""
    card, needs = CARDS[profile.name], models_of(profile)
    carried = [name for name in weights_of(profile) if name != MINILM.name]
    disk = sum(catalog()[name].disk_bytes for name in carried)
    memory = max(need.bytes for one in needs if (need := memory_need(one.engine, "cuda")))
    minutes = [seconds_per_caption(need.stage, need.engine, card) * 1000 / 60 for need in needs]
    asked = f"{minutes[0]:.0f} + {minutes[1]:.0f}"
    return f"| `{profile.name}` | {', '.join(carried)} | {disk / 1e9:.0f} GB | {gib(memory)} | {asked} | {card.name} |"


def table() -> list[str]:
    """The lines of the table."""
    return [
        "| profile | weights | on disk | GPU memory | minutes for 1,000 captions (generate + rerank) | on |",
        "|---|---|---|---|---|---|",
        *(row(load_profile(name)) for name in profile_names() if name in CARDS),
    ]


def main() -> int:
    """Print the table, and below it the run that others published."""
    print("\n".join(table()))
    paper = load_profile("paper")
    speed = 60 / seconds_per_caption("generate", paper.generate.model, CARDS["paper"])
    print(
        f"LLaVA-1.6-Mistral-7B on an L4: {speed:.0f} captions a minute; published for LLaVA there: 55", file=sys.stderr
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
