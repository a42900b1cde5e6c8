"""What it costs, and what it saves, to ask the model only where the scorer is in doubt.

In: one run in which every mention was asked: how sure the scorer was, and who was right.  Out: the curve of accuracy
against the share asked, for `route_from`.  Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

THRESHOLDS = (0.0, 0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 1e-9)
"From asking all (0) to asking none."


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """One mention, answered by both."""

    sure: float
    "The scorer's probability of its own answer."
    scorer_hit: bool | None
    "Its first candidate is the gold; None for a mention whose gold is not in the KB."
    model_hit: bool | None
    scorer_right: bool
    "Its answer is right, NIL included."
    model_right: bool
    tokens: int
    "Of prompts and answers, where the model is asked."


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePoint:
    """What a threshold gives."""

    route_from: float
    asked: float
    "Share of mentions."
    tokens: float
    "Share of the tokens that asking all takes."
    hits_at_1: float | None
    "Over mentions whose gold is in the KB."
    accuracy: float


def routing_curve(routed: Sequence[Routed], thresholds: Sequence[float] = THRESHOLDS) -> tuple[RoutePoint, ...]:
    """One point per threshold, in their order; none without mentions."""
    all_tokens = max(1, sum(one.tokens for one in routed))
    in_kb = sum(one.model_hit is not None for one in routed)
    points = []
    for threshold in thresholds if routed else ():
        asks = [not 0.0 < threshold <= one.sure for one in routed]
        pairs = list(zip(routed, asks, strict=True))
        hits = sum(bool(one.model_hit if asked else one.scorer_hit) for one, asked in pairs)
        right = sum(one.model_right if asked else one.scorer_right for one, asked in pairs)
        points.append(
            RoutePoint(
                route_from=threshold,
                asked=sum(asks) / len(routed),
                tokens=sum(one.tokens for one, asked in pairs if asked) / all_tokens,
                hits_at_1=hits / in_kb if in_kb else None,
                accuracy=right / len(routed),
            )
        )
    return tuple(points)
