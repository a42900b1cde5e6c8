"""Collect the triples of a KB's entities into a batch for the fusion network.

In: positions of entities in the packed KB.  Out: packed triples, each distinct pair once.  A bare date or number has no
vector and is left out, as the published code leaves out literal tails.  If an entity has more triples than the network
takes, its pairs are sampled; the sample does not depend on the rest of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.kb.packed import Lists

if TYPE_CHECKING:
    from localmel.encode.kb_vectors import KbVectors
    from localmel.kb.packed import PackedKb

MOST_TRIPLES = 1000
"Maximum number of triples per entity (the published cap); from more, this many are sampled."
_ROWS_AT_ONCE, _TRIPLES_AT_ONCE = 4096, 65536
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"Constants of splitmix64, a 64-bit hash."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TripleArrays:
    """`network.PackedTriples` in NumPy: b rows, t triples, p pairs, q tails, r relations."""

    tails: NDArray[Any]  # (q, width) float32
    relations: NDArray[Any]  # (r, width) float32
    pair_tail: NDArray[Any]  # (p,) int64
    pair_relation: NDArray[Any]  # (p,) int64
    triples: NDArray[Any]  # (t,) int64
    starts: NDArray[Any]  # (b + 1,) int64

    def named(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield each array with its name."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def emptied(self) -> TripleArrays:
        """Return the same number of rows, all without triples."""
        return no_triples(len(self.starts) - 1, self.tails.shape[1])


def no_triples(n_rows: int, width: int) -> TripleArrays:
    """Return `n_rows` rows without triples, in a space of `width`."""
    none, no_vectors = np.zeros(0, np.int64), np.zeros((0, width), np.float32)
    return TripleArrays(
        tails=no_vectors,
        relations=no_vectors,
        pair_tail=none,
        pair_relation=none,
        triples=none,
        starts=np.zeros(n_rows + 1, np.int64),
    )


class KbTriples:
    """The triples of one KB's entities.  A phrase of the KB is a pair; its vector is the tail's."""

    def __init__(self, packed: PackedKb, vectors: KbVectors, *, most: int = MOST_TRIPLES, seed: int = 0) -> None:
        self._packed, self._vectors = packed, vectors
        self._most, self._seed = most, seed

    def counts(self) -> NDArray[Any]:
        """Return the number of triples used of each entity, shape (n,)."""
        return np.minimum(np.diff(self._usable.starts), self._most)

    def n_sampled(self) -> int:
        """Return how many entities have more triples than are used."""
        return int((np.diff(self._usable.starts) > self._most).sum())

    def of(self, positions: NDArray[Any], *, without: NDArray[Any] | None = None) -> TripleArrays:
        """Return the triples of the entities at `positions` (b,); rows where `without` (b,) is true get none."""
        phrases, owner = self._usable.of(positions)
        if without is not None and without.any():
            kept = ~without[owner]
            phrases, owner = phrases[kept], owner[kept]
        counts = np.bincount(owner, minlength=len(positions))
        if len(phrases) and counts.max() > self._most:
            phrases, owner = self._sample(positions, phrases, owner, counts)
            counts = np.bincount(owner, minlength=len(positions))
        pairs, triples = np.unique(phrases, return_inverse=True)
        relations, of_pair = np.unique(self._packed.phrase_relation[pairs], return_inverse=True)
        return TripleArrays(
            tails=self._vectors.phrases[pairs].astype(np.float32),
            relations=self._vectors.relations[relations].astype(np.float32),
            pair_tail=np.arange(len(pairs)),
            pair_relation=of_pair.astype(np.int64),
            triples=triples.astype(np.int64),
            starts=np.concatenate([[0], np.cumsum(counts)]),
        )

    def _sample(
        self, positions: NDArray[Any], phrases: NDArray[Any], owner: NDArray[Any], counts: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the `most` phrases per owner with the lowest hash of (seed, entity, phrase), in their original
        order."""
        rows = self._packed.rows[positions].astype(np.uint64)
        mixed = phrases.astype(np.uint64) + (rows[owner] << np.uint64(32)) + np.uint64(self._seed * _MIX[0] % 2**64)
        for shift, factor in ((30, _MIX[1]), (27, _MIX[2]), (31, 1)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        order = np.lexsort((mixed, owner))
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.sort(order[nth < self._most])
        return phrases[kept], owner[kept]

    @cached_property
    def _usable(self) -> Lists:
        """Return the phrases of each entity that have a vector."""
        phrases = self._packed.phrases
        step, known = 65536, np.zeros(len(self._vectors.phrases), bool)
        for start in range(0, len(known), step):
            known[start : start + step] = self._vectors.phrases[start : start + step].any(axis=1)
        values = np.asarray(phrases.values)
        usable = known[values]
        return Lists(starts=np.concatenate([[0], np.cumsum(usable)])[np.asarray(phrases.starts)], values=values[usable])


def pieces_of(counts: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the n entities, those with few triples first, in pieces with a limited number of rows and triples."""
    order = np.argsort(counts, kind="stable")
    ends = np.cumsum(counts[order])
    start = 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        end = int(np.searchsorted(ends, before + _TRIPLES_AT_ONCE, side="right"))
        end = min(max(end, start + 1), start + _ROWS_AT_ONCE)
        yield order[start:end]
        start = end
