"""Costs as cells of a table; a dash for what a run does not tell.

In: Costs.  Out: texts, in the order of COST_TITLES.  The same for Markdown, the page and the terminal."""

from __future__ import annotations

from localmel.evaluate.answer_details import Costs

COST_TITLES = (
    "mentions/s",
    "prompt tokens",
    "image tokens",
    "output tokens",
    "first token, s",
    "peak memory",
    "unparsed",
    "failed open",
    "asked again",
)
DASH = "–"


def cost_cells(costs: Costs) -> list[str]:
    """One text for each of COST_TITLES.  Speed with a star is that of the whole run."""
    speed = costs.mentions_per_second
    return [
        DASH if speed is None else f"{speed:,.3g}{'*' if costs.whole_run else ''}",
        *(DASH if one is None else f"{one:,.1f}" for one in (costs.prompt_tokens, costs.image_tokens)),
        DASH if costs.output_tokens is None else f"{costs.output_tokens:,.1f}",
        DASH if costs.first_token_seconds is None else f"{costs.first_token_seconds:.3g}",
        DASH if costs.peak_memory_bytes is None else size_in_words(costs.peak_memory_bytes),
        *(DASH if one is None else f"{one:.1%}" for one in (costs.unparsed, costs.failed_open, costs.retried)),
    ]


def size_in_words(n_bytes: int) -> str:
    """`512 MiB`, `15.3 GiB`."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
