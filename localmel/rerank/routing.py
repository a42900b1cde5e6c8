"""How accuracy and cost change when the model is asked only where the scorer is unsure.

In: a run in which the model was asked about every mention: the scorer's probabilities, and which answers were right.
Out: the curve of accuracy against the share asked, from which to choose `route_from`.  Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

THRESHOLDS = (0.0, 0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 1e-9)
"From asking about all mentions (0) to asking about none."


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """One mention, answered by the scorer and by the model."""

    sure: float
    "The scorer's probability of its own answer."
    scorer_hit: bool | None
    "Whether its first candidate is the gold; None where the gold is not in the KB."
    model_hit: bool | None
    scorer_right: bool
    "Whether its answer is right, NIL included."
    model_right: bool
    tokens: int
    "Tokens of prompts and answers if the model is asked."


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePoint:
    """The result of one threshold."""

    route_from: float
    asked: float
    "Share of mentions that the model is asked about."
    tokens: float
    "Tokens, as a share of those for asking about all mentions."
    hits_at_1: float | None
    "Over mentions whose gold is in the KB."
    accuracy: float


def routing_curve(routed: Sequence[Routed], thresholds: Sequence[float] = THRESHOLDS) -> tuple[RoutePoint, ...]:
    """Return one point per threshold, in the given order; no points without mentions."""
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
