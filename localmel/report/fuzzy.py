"""Counts over a hundred candidates by fuzzy name, as JSON for programs and as Markdown for people.

In: counts of one or more orders.  Out: a dict or a string.  Knows no system by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localmel.evaluate.fuzzy import CANDIDATES, TOP, FuzzyCounts
from localmel.evaluate.resamples import Estimate

WORDS = (
    f"Candidates: the {CANDIDATES} entities whose label is most like the surface (RapidFuzz WRatio over folded names; "
    "equal scores by plain ratio, then by a fixed shuffle). The gold is never added: where it is none of them, it is a "
    "miss for every k.",
    "T@k: share of the mentions whose gold is at rank k or better among the candidates; equal scores share the mean of "
    "their places. recall: share of the mentions whose gold is among the candidates.",
    "T@k given: over the mentions whose gold is among the candidates only. The published figures are such, because "
    "there the gold was always put among them.",
)


def fuzzy_json(counts: Mapping[str, FuzzyCounts], *, left_out: int) -> dict[str, Any]:
    """Six decimals; `low` and `high` are null where there is no interval."""
    return {
        "candidates": CANDIDATES,
        "words": list(WORDS),
        "left_out": left_out,
        "systems": {
            name: {
                "n": one.n,
                f"recall@{CANDIDATES}": None if one.recall is None else _estimate(one.recall),
                "top": {f"T@{k}": _estimate(share) for k, share in one.top.items()},
                "top_given": {f"T@{k}": _estimate(share) for k, share in one.top_given.items()},
            }
            for name, one in counts.items()
        },
    }


def fuzzy_markdown(counts: Mapping[str, FuzzyCounts], *, left_out: int) -> str:
    """A section that follows others: heading, what it means, and a table with a line for each order."""
    head = ["order", "mentions", f"recall@{CANDIDATES}"]
    head += [f"T@{k}" for k in TOP] + [f"T@{k} given" for k in TOP]
    rows = []
    for name, one in counts.items():
        shares = [str(one.top[k]) if k in one.top else "–" for k in TOP]
        given = [f"{one.top_given[k].value:.3f}" if k in one.top_given else "–" for k in TOP]
        rows.append([name, f"{one.n:,}", str(one.recall or "–"), *shares, *given])
    words = [*WORDS, f"Left out because they are NIL or their gold is not in the KB: {left_out:,}."]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
    said = "\n".join(f"- {line}" for line in words)
    return f"\n## {CANDIDATES} candidates by fuzzy name\n\n{said}\n\n{table}\n"


def _estimate(one: Estimate) -> dict[str, Any]:
    low, high = (None if bound is None else round(bound, 6) for bound in (one.low, one.high))
    return {"value": round(one.value, 6), "low": low, "high": high, "n": one.n}
