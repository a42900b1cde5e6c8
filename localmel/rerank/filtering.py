"""Select the candidates' triples that a language model sees: those most similar to the mention's own.

In: triples of mentions and of entities, packed end to end, and the candidates of each mention.
Out: the surviving triples of each candidate, in any number.  Knows only vectors, no words and no model.
Source: KGMEL, the section on triple filtering.  The published code is wrong above 50 distinct rows: it looks up
positions of a shuffled table in the unshuffled one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from localmel.kb.packed import Lists
from localmel.matchers.kgmel.kb_triples import TripleArrays

EQUAL = 1e-9
"Similarities closer than this are equal, so that the order of summation cannot change the answer."
_UNSURE = 1e-5
"The error of a float32 product; products this close to the n-th are computed again in float64."
_MENTIONS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survivors:
    """The triples that survive the filter.  c candidates of all mentions end to end, s survivors."""

    starts: NDArray[Any]  # (c + 1,) int64: the survivors of each candidate
    pairs: NDArray[Any]  # (s,) int64: numbers of pairs among those of the entities, in the entity's own order
    similarity: NDArray[Any]  # (s,) float32: cosine with the nearest tail of the mention
    nearest: NDArray[Any]  # (s,) int64: the mention's triple that has this tail, counted from its first

    def of(self, candidate: int) -> slice:
        """Return the slice of one candidate's survivors."""
        return slice(int(self.starts[candidate]), int(self.starts[candidate + 1]))


def filter_triples(
    mentions: TripleArrays, entities: TripleArrays, candidates: Lists, *, n_relations: int, n_tails: int
) -> Survivors:
    """Keep a candidate's triple when both its relation and its tail are kept.

    Each relation of a mention keeps the `n_relations` most similar among the distinct relations of all its
    candidates, each tail the `n_tails` most similar tails; the kept sets are united.  Similarity is the product of two
    unit vectors.  Ties with the n-th (within EQUAL) are kept, so the storage order decides nothing.  A mention without
    triples keeps nothing.

    mentions: m rows; entities: e rows; candidates: m owners, values are rows of `entities`."""
    survivors = [_none()]
    n = len(candidates.starts) - 1
    with _blas().limit(limits=1, user_api="blas"):  # the products are small: threads would mostly wait
        for start in range(0, n, _MENTIONS_AT_ONCE):
            piece = _Piece(mentions, entities, start, min(start + _MENTIONS_AT_ONCE, n))
            survivors += [piece.survivors(mention, candidates, n_relations, n_tails) for mention in piece.mentions]
    owner, pairs, similarity, nearest = (np.concatenate(one) for one in zip(*survivors, strict=True))
    counts = np.bincount(owner, minlength=len(candidates.values))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Survivors(starts=starts, pairs=pairs, similarity=similarity, nearest=nearest)


class _Piece:
    """A batch of mentions whose relations are compared with those of all entities in one product."""

    def __init__(self, mentions: TripleArrays, entities: TripleArrays, first: int, end: int) -> None:
        self.mentions = range(first, end)
        self._own, self._all = mentions, entities
        said = mentions.triples[mentions.starts[first] : mentions.starts[end]]
        relations = np.unique(mentions.pair_relation[said])
        self._line = np.zeros(len(mentions.relations), np.int64)
        self._line[relations] = np.arange(len(relations))
        self._alike = mentions.relations[relations].astype(np.float64) @ entities.relations.astype(np.float64).T
        self._tail_place = np.empty(len(entities.tails), np.int64)
        self._relation_place = np.empty(len(entities.relations), np.int64)
        self._vectors = np.empty((0, entities.tails.shape[1]), entities.tails.dtype)

    def survivors(
        self, mention: int, candidates: Lists, n_relations: int, n_tails: int
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return candidate, pair, similarity and nearest triple of each survivor among one mention's candidates."""
        own, entities = self._own, self._all
        first, last = int(candidates.starts[mention]), int(candidates.starts[mention + 1])
        rows = candidates.values[first:last]
        said = own.triples[own.starts[mention] : own.starts[mention + 1]]
        triples = [entities.triples[entities.starts[row] : entities.starts[row + 1]] for row in rows.tolist()]
        if not len(said) or not any(map(len, triples)):
            return _none()
        pairs = np.concatenate(triples)
        relations, relation_of = _distinct(entities.pair_relation[pairs], self._relation_place)
        lines = self._line[own.pair_relation[said]]
        alike_relations = self._alike[lines].take(relations, axis=1)
        relation_kept = np.logical_or.reduce(_at_least_nth(alike_relations, n_relations))
        tails, tail_of = _distinct(entities.pair_tail[pairs], self._tail_place)
        queries = own.tails[own.pair_tail[said]]
        alike = queries @ self._vectors_of(tails).T
        tail_kept = np.logical_or.reduce(_among_n_best(alike, n_tails, queries, entities.tails, tails))
        kept = np.flatnonzero(relation_kept[relation_of] & tail_kept[tail_of])
        owner = np.searchsorted(np.cumsum(list(map(len, triples))), kept, side="right")
        similarity = alike[:, tail_of[kept]]
        return first + owner, pairs[kept], similarity.max(axis=0, initial=-1.0), similarity.argmax(axis=0)

    def _vectors_of(self, tails: NDArray[Any]) -> NDArray[Any]:
        """Return the vectors of tails, valid until the next call: a new array per mention would double the cost."""
        if len(tails) > len(self._vectors):
            self._vectors = np.empty((2 * len(tails), self._all.tails.shape[1]), self._all.tails.dtype)
        return np.take(self._all.tails, tails, axis=0, out=self._vectors[: len(tails)], mode="clip")


@cache
def _blas() -> ThreadpoolController:
    """Return the controller of the BLAS library that NumPy uses; finding it takes milliseconds, so it is cached."""
    return ThreadpoolController()


def _distinct(numbers: NDArray[Any], place: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distinct numbers, and the position of each of `numbers` among them.  `place`: scratch space."""
    order = np.arange(len(numbers))
    place[numbers] = order
    once = numbers[place[numbers] == order]
    place[once] = order[: len(once)]
    return once, place[numbers]


def _at_least_nth(alike: NDArray[Any], n: int) -> NDArray[Any]:
    """Mark what is at least as high as the n-th highest of its row, shape (a, b).  alike: (a, b) float64."""
    if not n:
        return np.zeros(alike.shape, bool)
    if n >= alike.shape[1]:
        return np.ones(alike.shape, bool)
    at = alike.shape[1] - n
    kept: NDArray[Any] = alike >= np.partition(alike, at, axis=1)[:, at, None] - EQUAL
    return kept


def _among_n_best(
    alike: NDArray[Any], n: int, queries: NDArray[Any], table: NDArray[Any], rows: NDArray[Any]
) -> NDArray[Any]:
    """Do the same for float32 products of queries and rows of a table; near ties are decided in float64."""
    if not 0 < n < alike.shape[1]:
        return _at_least_nth(alike, n)
    at = alike.shape[1] - n
    nth = np.partition(alike, at, axis=1)[:, at, None]
    kept: NDArray[Any] = alike >= nth - _UNSURE
    if np.count_nonzero(kept) == n * len(kept):  # one count over everything is ten times faster than one per line
        return kept
    for line in np.flatnonzero(np.count_nonzero(kept, axis=1) > n):
        certain = alike[line] > nth[line] + _UNSURE
        close = np.flatnonzero(kept[line] > certain)  # kept, but not certainly
        exact = np.einsum("bw,w->b", table[rows[close]], queries[line], dtype=np.float64)
        kept[line, close] = _at_least_nth(exact[None], n - int(np.count_nonzero(certain)))[0]
    return kept


def _none() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    none = np.zeros(0, np.int64)
    return none, none, np.zeros(0, np.float32), none
