"""The triple filter against a loop over triples, on as many as the issue names: 2,000 mentions x 16 candidates x 80.

Phrases (relation, tail) are drawn as often as they occur in the benchmark KB, where the 1,000 most frequent of 195,000
stand in 41% of all triples; their vectors are random, 384 wide, as are those of the mentions' 8 triples.  Two loops:
one product for each pair of triples, and one product for each triple of a candidate with all of the mention's.  Runs
alternate: some mentions by the one, the same by the other, and so on; what is left must be the same, triple by
triple.  The filter runs once before, uncounted, so that no library is being loaded.  Both loops are given the vectors
in float64, so that they need not convert them.  Seconds are those of the processor, because other programs share the
machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.run import Figure
from localmel.kb.packed import Lists
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.rerank.filtering import EQUAL, Survivors, filter_triples

MENTIONS, CANDIDATES, TRIPLES, SAID, WIDTH = 2000, 16, 80, 8, 384
ENTITIES, PHRASES, RELATIONS, MENTION_RELATIONS = 8000, 195_000, 677, 20
N_RELATIONS, N_TAILS, SEED, AT_ONCE = 10, 10, 20261122, 200
SLOW_EVERY = 3
"Of the parts that the fast way does, every third is given to the loops too: together they take minutes."

Rows = NDArray[Any]
Alike = Callable[[Rows, Rows], list[float]]


def measure(shared: Path) -> list[Figure]:
    """Both loops, and whether anything differs."""
    del shared
    mentions, entities, candidates = _world(np.random.default_rng(SEED))
    tables = _Tables(mentions, entities)
    spent = dict.fromkeys(("filter", "pairs", "triples"), 0.0)
    everything, different, survivors = 0.0, 0, 0
    warm, own = _part(mentions, candidates, 0)
    _filtered(warm, entities, own)
    for number, start in enumerate(range(0, MENTIONS, AT_ONCE)):
        part, own = _part(mentions, candidates, start)
        seconds, found = _timed(partial(_filtered, part, entities, own))
        everything += seconds
        left = [found.pairs[found.of(candidate)].tolist() for candidate in range(len(own.values))]
        survivors += len(found.pairs)
        if number % SLOW_EVERY:
            continue
        spent["filter"] += seconds
        for name, alike in (("pairs", _each_pair), ("triples", _each_triple)):
            seconds, slow = _timed(partial(tables.loop, candidates, start, alike))
            spent[name] += seconds
            different += sum(one != other for one, other in zip(left, slow, strict=True))
    size = f"{MENTIONS:,} x {CANDIDATES} x {TRIPLES}"
    return [
        Figure(section="filtering", name=f"{size} triples, seconds", value=f"{everything:.2f}"),
        Figure(section="filtering", name="survivors", value=f"{survivors:,} of {MENTIONS * CANDIDATES * TRIPLES:,}"),
        _ratio("for each pair of triples", spent["pairs"], spent["filter"], asked=20),
        _ratio("for each triple of a candidate", spent["triples"], spent["filter"], asked=20),
        Figure(section="filtering", name="candidates whose triples differ from a loop's", value=str(different),
               asked="0", reached=different == 0),
    ]  # fmt: skip


def _ratio(each: str, loop: float, fast: float, *, asked: int = 0) -> Figure:
    ratio = loop / fast
    whole = loop * MENTIONS / (AT_ONCE * len(range(0, MENTIONS // AT_ONCE, SLOW_EVERY)))  # had it been given all parts
    return Figure(
        section="filtering",
        name=f"a loop with one product {each}, times as long",
        value=f"{ratio:.0f} ({whole:.0f} s)",
        asked=f"at least {asked}" if asked else "", reached=ratio >= asked if asked else None,
    )  # fmt: skip


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def _world(random: np.random.Generator) -> tuple[TripleArrays, TripleArrays, Lists]:
    frequency = (np.arange(PHRASES) + 3.0) ** -0.87
    frequency /= frequency.sum()
    phrases = [np.unique(random.choice(PHRASES, 4 * TRIPLES, p=frequency)) for _ in range(ENTITIES)]
    rows = np.concatenate([np.sort(random.permutation(one)[:TRIPLES]) for one in phrases])
    entities = TripleArrays(
        tails=_units(random, PHRASES),
        relations=_units(random, RELATIONS),
        pair_tail=np.arange(PHRASES),
        pair_relation=random.integers(RELATIONS, size=PHRASES),
        triples=rows,
        starts=np.cumsum([0, *(min(TRIPLES, len(one)) for one in phrases)]),
    )
    n_said = MENTIONS * SAID
    mentions = TripleArrays(
        tails=_units(random, n_said),
        relations=_units(random, MENTION_RELATIONS),
        pair_tail=np.arange(n_said),
        pair_relation=random.integers(MENTION_RELATIONS, size=n_said),
        triples=np.arange(n_said),
        starts=np.arange(MENTIONS + 1) * SAID,
    )
    chosen = [random.choice(ENTITIES, CANDIDATES, replace=False) for _ in range(MENTIONS)]
    return mentions, entities, Lists(starts=np.arange(MENTIONS + 1) * CANDIDATES, values=np.concatenate(chosen))


def _units(random: np.random.Generator, n: int) -> Rows:
    values = random.standard_normal((n, WIDTH), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


def _part(mentions: TripleArrays, candidates: Lists, start: int) -> tuple[TripleArrays, Lists]:
    """Some mentions with their candidates; the tables stay whole."""
    own = mentions.starts[start : start + AT_ONCE + 1]
    part = TripleArrays(
        **{name: value for name, value in mentions.named() if name not in ("triples", "starts")},
        triples=mentions.triples[own[0] : own[-1]],
        starts=own - own[0],
    )
    starts = candidates.starts[start : start + AT_ONCE + 1]
    return part, Lists(starts=starts - starts[0], values=candidates.values[starts[0] : starts[-1]])


def _filtered(part: TripleArrays, entities: TripleArrays, own: Lists) -> Survivors:
    return filter_triples(part, entities, own, n_relations=N_RELATIONS, n_tails=N_TAILS)


def _each_pair(said: Rows, vector: Rows) -> list[float]:
    return [float(np.dot(own, vector)) for own in said]


def _each_triple(said: Rows, vector: Rows) -> list[float]:
    alike: list[float] = (said @ vector).tolist()
    return alike


class _Tables:
    """What the loops read, as Python and float64 are quickest with it."""

    def __init__(self, mentions: TripleArrays, entities: TripleArrays) -> None:
        self._mentions, self._entities = mentions, entities
        self._tails, self._relations = list(entities.tails.astype(float)), list(entities.relations.astype(float))
        self._tail, self._relation = entities.pair_tail.tolist(), entities.pair_relation.tolist()

    def loop(self, candidates: Lists, first: int, alike: Alike) -> list[list[int]]:
        """For each candidate of some mentions the pairs that are left, triple by triple."""
        mentions, entities = self._mentions, self._entities
        left = []
        for mention in range(first, first + AT_ONCE):
            said = mentions.triples[mentions.starts[mention] : mentions.starts[mention + 1]]
            tails = mentions.tails[mentions.pair_tail[said]].astype(float)
            relations = mentions.relations[mentions.pair_relation[said]].astype(float)
            rows = candidates.values[candidates.starts[mention] : candidates.starts[mention + 1]].tolist()
            triples = [entities.triples[entities.starts[row] : entities.starts[row + 1]].tolist() for row in rows]
            of_tail: dict[int, list[float]] = {}
            of_relation: dict[int, list[float]] = {}
            for pairs in triples:
                for pair in pairs:
                    tail, relation = self._tail[pair], self._relation[pair]
                    of_tail[tail] = alike(tails, self._tails[tail])
                    of_relation[relation] = alike(relations, self._relations[relation])
            kept_tails, kept_relations = _n_best(of_tail, N_TAILS), _n_best(of_relation, N_RELATIONS)
            left += [
                [pair for pair in pairs if self._tail[pair] in kept_tails and self._relation[pair] in kept_relations]
                for pairs in triples
            ]
        return left


def _n_best(alike: dict[int, list[float]], n: int) -> set[int]:
    """Whatever is among the n best of any column, with what is equal to the n-th."""
    kept: set[int] = set()
    for column in range(SAID):
        nth = sorted((values[column] for values in alike.values()), reverse=True)[:n][-1]
        kept.update(number for number, values in alike.items() if values[column] >= nth - EQUAL)
    return kept
