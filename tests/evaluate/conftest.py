"""Outcomes to count: one at a time with only what matters named, or drawn at random with every kind of mention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from localmel.evaluate.protocol import Facts, Outcome

Make = Callable[..., Outcome]
Draw = Callable[..., list[Outcome]]
Worse = Callable[[list[Outcome], int], list[Outcome]]
Bootstrap = Callable[..., tuple[float, float, float]]


def make_outcome(mention_id: str = "1-0", **given: Any) -> Outcome:
    """A mention of its own sentence, put first and answered right, unless said otherwise."""
    values: dict[str, Any] = {"cluster": mention_id, "gold": "Q1", "predicted": "Q1", "probability": 0.9, "rank": 1.0}
    values |= given
    values.setdefault("among_candidates", values["gold"] is not None and values["rank"] <= 16)
    if values["gold"] is None:
        values["rank"] = math.inf
    if not values["among_candidates"] and values["gold"] is not None and "predicted" not in given:
        values["predicted"] = "Q9"
    return Outcome(mention_id=mention_id, **values)


def draw_outcomes(n: int, *, seed: int = 0, per_sentence: int = 3, share_nil: float = 0.3) -> list[Outcome]:
    """Random mentions of every slice, tied ranks and golds outside the candidates included."""
    random = np.random.default_rng(seed)
    drawn = []
    for number in range(n):
        nil = random.random() < share_nil
        rank = math.inf if nil else float(random.choice([1, 1, 1, 1.5, 2, 4, 7.5, 16, 18, 400, math.inf]))
        predicted = [None, "Q9"][random.integers(2)]
        if rank == 1.0 and random.random() < 0.8:
            predicted = "Q1"
        drawn.append(
            make_outcome(
                f"{number // per_sentence}-{number % per_sentence}",
                cluster=f"sentence {number // per_sentence}",
                gold=None if nil else "Q1",
                rank=rank,
                predicted=predicted,
                probability=round(float(random.random()), 1),
                nil_probability=round(float(random.random()), 1),
                facts=Facts(
                    has_image=bool(random.integers(2)),
                    mention_has_triples=bool(random.integers(2)),
                    gold_has_triples=None if nil else bool(random.integers(2)),
                    gold_seen=None if nil else bool(random.integers(2)),
                    ambiguous=[None, True, False][random.integers(3)],
                ),
            )
        )
    return drawn


@pytest.fixture(scope="session")
def outcome() -> Make:
    return make_outcome


@pytest.fixture(scope="session")
def draw() -> Draw:
    return draw_outcomes


@pytest.fixture(scope="session")
def worse() -> Worse:
    """The same mentions; every so many of those at rank 1 fall to rank 2."""
    return lambda outcomes, every: [
        replace(one, rank=2.0, predicted="Q9") if one.rank == 1.0 and number % every == 0 else one
        for number, one in enumerate(outcomes)
    ]


@pytest.fixture(scope="session")
def bootstrap() -> Bootstrap:
    """The slow truth behind every interval: value, low and high of a mean over clusters drawn one by one."""

    def interval(
        hits: Sequence[float], clusters: Sequence[str], *, samples: int, seed: int
    ) -> tuple[float, float, float]:
        names = sorted(set(clusters))
        members = [[hit for hit, other in zip(hits, clusters, strict=True) if other == name] for name in names]
        draws = np.random.default_rng(seed).integers(0, len(names), (samples, len(names)))
        means = [np.mean([hit for number in draw for hit in members[number]]) for draw in draws]
        low, high = np.quantile(means, (0.025, 0.975))
        return float(np.mean(hits)), float(low), float(high)

    return interval
