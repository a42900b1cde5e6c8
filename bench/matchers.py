"""What M3EL's search in two steps costs beside scoring every entity, counted and timed.

    python -m bench.matchers        (a minute on one core)

Counted: multiplications at the paper's sizes (40 words, 49 patches, vectors of 512 and 768, width 96), by torch's own
counter over the calls that a search makes; how many entities are scored for a mention is that of the timed search.
Timed: 130,000 made-up entities (bench/crowds.py) with vectors of 16 and 12, width 20 and 3 to 7 tokens, on one
thread: the time of full width would be an hour.  Needs 1 GB of memory and no data."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.crowds import Crowd, crowd, given, trained
from bench.run import Figure
from localmel.index import ExactSettings
from localmel.matchers.m3el.network import M3el, M3elSettings
from localmel.matchers.prepared import PreparedSides, index_sides, prepare_entities
from localmel.matchers.protocol import Features
from localmel.matchers.two_step import TwoStepSearch, agreement, search_all

N_ENTITIES, FEWER, K = 130_000, 13_000, 16
N_MENTIONS, N_COMPARED = 200, 24
PAPER = M3elSettings(text_width=512, word_width=512, image_width=512, patch_width=768)
WORDS, PATCHES = 40, 49
ROUNDS = 5


def measure(shared: Path) -> list[Figure]:
    """Both KBs, the larger one beside a full scoring."""
    del shared
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured()
    finally:
        torch.set_num_threads(threads)


def _measured() -> list[Figure]:
    network = trained()
    with tempfile.TemporaryDirectory(prefix="localmel-matchers-") as folder:
        large = _prepared(network, N_ENTITIES, Path(folder) / "large")
        small = _prepared(network, FEWER, Path(folder) / "small")
        figures = _agreement(large)
        figures += _counts(large.n_scored / N_MENTIONS)
        figures += _times(large, small)
    return figures


@dataclass(frozen=True, kw_only=True, eq=False)
class _Case:
    network: M3el
    drawn: Crowd
    sides: PreparedSides
    search: TwoStepSearch[Features]
    n_scored: int
    "For N_MENTIONS."


def _prepared(network: M3el, n: int, folder: Path) -> _Case:
    drawn = crowd(n, N_MENTIONS, clustered=True, seed=5)
    sides = prepare_entities(network, drawn.entities, folder, {"made_from": str(n)})
    search = TwoStepSearch(network, sides, *index_sides(sides, ExactSettings()))
    n_scored = search.search(given(drawn.mentions), K).n_scored
    return _Case(network=network, drawn=drawn, sides=sides, search=search, n_scored=n_scored)


def _agreement(case: _Case) -> list[Figure]:
    mentions = case.drawn.mentions.of(np.arange(N_COMPARED))
    found, best = case.search.search(mentions, K), search_all(case.network, case.sides, mentions, K)
    share = agreement(found, best)
    per_mention = case.n_scored / N_MENTIONS
    fewer = len(case.sides) / per_mention
    return [
        _figure(f"{N_COMPARED} mentions: the same top {K} as by scoring all", f"{share:.3f}", 0.99, share),
        _figure(
            f"entities scored for a mention (mean of {N_MENTIONS}), and how many times fewer than {N_ENTITIES:,}",
            f"{per_mention:,.0f}, {fewer:,.0f} times", 50, fewer,
        ),
    ]  # fmt: skip


def _counts(per_mention: float) -> list[Figure]:
    """Multiplications for one mention at the paper's sizes."""
    torch.manual_seed(0)
    network, at_once = M3el(PAPER).eval(), 64
    mention, entities = _random(1), _random(at_once)
    with torch.no_grad():
        own, sides = network.mentions(mention), network.entities(entities)
        every = _multiplications(lambda: network.scores(own, sides)) / at_once
        chosen = _multiplications(lambda: network.scores(own, sides.rows(torch.arange(at_once)[None]))) / at_once
        made = _multiplications(lambda: network.mentions(mention))
    full, scan = N_ENTITIES * every, N_ENTITIES * (network.width + 1)
    two_steps = scan + per_mention * chosen
    ratio = full / two_steps
    return [
        _figure("multiplications for one pair, at the paper's sizes", f"{every:,.0f}"),
        _figure("... for one mention itself, alike in both", f"{made / 1e6:,.0f} million"),
        _figure("... for one mention against all", f"{full / 1e9:,.1f} thousand million"),
        _figure(
            "... in two steps: scan of the vectors, candidates",
            f"{scan / 1e6:,.0f} + {per_mention * chosen / 1e6:,.0f} million: {ratio:,.0f} times fewer", 50, ratio,
        ),
    ]  # fmt: skip


def _times(large: _Case, small: _Case) -> list[Figure]:
    """In turns, so that a busy machine slows both."""
    one = large.drawn.mentions.of(np.arange(2))
    full, ours = [], []
    for _ in range(ROUNDS):
        full.append(_seconds(lambda: search_all(large.network, large.sides, one, K)) / 2)
        ours.append(_seconds(lambda: large.search.search(given(large.drawn.mentions), K)) / N_MENTIONS)
    ratio = statistics.median(a / b for a, b in zip(full, ours, strict=True))
    blind = M3el(replace(small.network.settings, estimate=False)).eval()
    blind.load_state_dict(small.network.state_dict())
    without = TwoStepSearch(blind, small.sides, *index_sides(small.sides, ExactSettings()))
    found = without.search(given(small.drawn.mentions), K)
    fewer = [_seconds(lambda: small.search.search(given(small.drawn.mentions), K)) for _ in range(ROUNDS)]
    growth = statistics.median(ours) / (statistics.median(fewer) / N_MENTIONS)
    return [
        _figure(
            "milliseconds for a mention: scoring all, in two steps (small width)",
            f"{statistics.median(full) * 1e3:,.0f}, {statistics.median(ours) * 1e3:,.1f}: {ratio:,.0f} times as fast",
            50, ratio,
        ),
        _figure(
            f"entities scored for a mention among {FEWER:,} and among {N_ENTITIES:,}",
            f"{small.n_scored / N_MENTIONS:,.0f}, {large.n_scored / N_MENTIONS:,.0f}",
        ),
        _figure(
            f"... among {FEWER:,} without the estimate of local scores in the vectors",
            f"{found.n_scored / N_MENTIONS:,.0f}",
        ),
        _figure(f"time for a mention among {N_ENTITIES:,} as a multiple of that among {FEWER:,}", f"{growth:.1f}"),
    ]  # fmt: skip


def _random(n: int) -> Features:
    return Features(
        text=torch.randn(n, PAPER.text_width),
        words=torch.randn(n, WORDS, PAPER.word_width),
        is_word=torch.ones(n, WORDS, dtype=torch.bool),
        image=torch.randn(n, PAPER.image_width),
        patches=torch.randn(n, PATCHES, PAPER.patch_width),
        is_patch=torch.ones(n, PATCHES, dtype=torch.bool),
    )


def _multiplications(call: Callable[[], object]) -> float:
    """Of the matrix products that torch makes in `call`; it counts an addition with each."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _figure(name: str, value: str, goal: float | None = None, found: float = 0.0) -> Figure:
    if goal is None:
        return Figure(section="matchers", name=name, value=value)
    return Figure(section="matchers", name=name, value=value, asked=f"at least {goal:g}", reached=found >= goal)


if __name__ == "__main__":
    print("| part | what | measured | asked | reached |\n|---|---|---|---|---|")
    for row in measure(Path()):
        print(row.line(), flush=True)
