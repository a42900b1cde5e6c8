"""Rank each gold among all entities of a KB by cosine, and find the K best.

In: unit vectors of mentions and of entities.  Out: ranks by counting, and the K best in order, both exact: the dot
product in float64 decides, and equal vectors have equal scores wherever they are.
Nothing is sorted.  A product in bfloat16 settles nearly all pairs, because its error is bounded; pairs that lie nearer
to the gold (or to the K-th best) than the bound are computed again.  Knows no names and no files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.records import MentionId

if TYPE_CHECKING:
    from torch import Tensor

_CELLS = 1 << 24
"Scores held at once: 32 MB in bfloat16."
_PAIRS = 1 << 16
"Pairs computed again together."
_GROUP = 64
"Entities represented by their highest score in the search for a bound on the K-th best."
_FEW = 2048
"A mention with more undecided entities than this is scored again in float32 against all entities."
_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """The ranking of m mentions over n entities."""

    rank: NDArray[Any]  # (m,) float64: 1 + higher + half of the other equal ones; infinity without a gold
    place: NDArray[Any]  # (m,) float64: place in a stable sort, equal ones in position order
    best: NDArray[Any]  # (m, min(k, n)) int64 positions, best first, equal ones in position order
    scores: NDArray[Any]  # (m, min(k, n)) float64


def rank_in_kb(
    mentions: NDArray[Any], entities: NDArray[Any], gold: NDArray[Any], mention_ids: Sequence[MentionId], *, k: int
) -> Ranked:
    """Rank every mention over all entities.

    mentions: (m, width), entities: (n, width), unit rows; gold: (m,) positions, -1 for none.  Raises BadInput for a
    vector that is not finite or not of length 1, and if widths differ."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    _check(mentions, entities, gold, mention_ids)
    mentions = np.ascontiguousarray(mentions, np.float32)
    k = min(k, len(entities))
    coarse = torch.from_numpy(np.array(entities)).to(torch.bfloat16)  # (n, width)
    out = Ranked(
        rank=np.full(len(mentions), np.inf),
        place=np.full(len(mentions), np.inf),
        best=np.zeros((len(mentions), k), np.int64),
        scores=np.zeros((len(mentions), k)),
    )
    step = max(1, _CELLS // max(len(entities), 1))
    for start in range(0, len(mentions), step):
        rows = np.arange(start, min(start + step, len(mentions)))
        scores = torch.from_numpy(mentions[rows]).to(torch.bfloat16) @ coarse.T
        undecided = _settle(scores, _bound(mentions.shape[1], coarse=True), rows, mentions, entities, gold, out, _FEW)
        for again in np.array_split(undecided, -(-len(undecided) * 2 // step)) if len(undecided) else ():
            scores = _in_float32(mentions[again], entities)
            _settle(scores, _bound(mentions.shape[1], coarse=False), again, mentions, entities, gold, out, None)
    return out


def _bound(width: int, *, coarse: bool) -> float:
    """Bound the error of a score, for vectors whose length is at most 1.002.

    bfloat16 rounds both factors (2 x 2^-9) and the sum (2^-9); sums are taken in float32."""
    return (1.01 * 3 * 2.0**-9 if coarse else 0.0) + 1.01 * (width + 2) * 2.0**-23


def _settle(
    scores: Tensor,
    bound: float,
    rows: NDArray[Any],
    mentions: NDArray[Any],
    entities: NDArray[Any],
    gold: NDArray[Any],
    out: Ranked,
    few: int | None,
) -> NDArray[Any]:
    """Fill `out` for these rows of mentions, and return the rows left unfilled: more than `few` undecided entities.

    scores: (len(rows), n), each within `bound` of the exact score."""
    own = np.full(len(rows), np.inf)
    known = gold[rows] >= 0
    own[known] = _exact(mentions, entities, rows[known], gold[rows][known])
    best_from = _floor_of_best(scores, out.best.shape[1]) - 2 * bound
    undecided, higher = np.zeros(len(rows), bool), np.zeros(len(rows))
    if few is not None:  # everything that may equal the gold or exceed it
        open_pairs = (scores >= _column(np.minimum(own - bound, best_from), scores, up=False)).numpy()
        undecided = np.count_nonzero(open_pairs, axis=1) > few
        open_pairs[undecided] = False
    else:  # entities that surely exceed it are only counted
        above = (scores > _column(own + bound, scores, up=True)).numpy()
        higher += np.count_nonzero(above, axis=1)
        open_pairs = (scores >= _column(own - bound, scores, up=False)).numpy() & ~above
        open_pairs |= (scores >= _column(best_from, scores, up=False)).numpy()
    equal, before = np.zeros(len(rows)), np.zeros(len(rows))
    found = []
    for line, position in _pairs(open_pairs):
        score, at = _exact(mentions, entities, rows[line], position), gold[rows[line]]
        uncounted = score > own[line] if few is not None else (score > own[line]) & ~above[line, position]
        higher += np.bincount(line[uncounted], minlength=len(rows))
        equal += np.bincount(line[(score == own[line]) & (position != at)], minlength=len(rows))
        before += np.bincount(line[(score == own[line]) & (position < at)], minlength=len(rows))
        may_be_best = score >= best_from[line]
        found.append((line[may_be_best], position[may_be_best], score[may_be_best]))
    filled = known & ~undecided
    out.rank[rows[filled]] = (1.0 + higher + equal / 2)[filled]
    out.place[rows[filled]] = (1.0 + higher + before)[filled]
    _fill_best(found, rows, out)
    return rows[undecided]


def _fill_best(
    found: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], rows: NDArray[Any], out: Ranked
) -> None:
    """Fill in the K best.  found: lines, positions and exact scores, which include the best of each line."""
    if not found:
        return
    line, position, score = (np.concatenate(values) for values in zip(*found, strict=True))
    order = np.lexsort((position, -score, line))
    line, position, score = line[order], position[order], score[order]
    nth = np.arange(len(line)) - np.searchsorted(line, line)
    kept = nth < out.best.shape[1]
    out.best[rows[line[kept]], nth[kept]] = position[kept]
    out.scores[rows[line[kept]], nth[kept]] = score[kept]


def _pairs(mask: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the marked (line, position) pairs in batches."""
    marked = np.flatnonzero(mask)
    for start in range(0, len(marked), _PAIRS):
        yield np.divmod(marked[start : start + _PAIRS], mask.shape[1])


def _exact(mentions: NDArray[Any], entities: NDArray[Any], rows: NDArray[Any], positions: NDArray[Any]) -> NDArray[Any]:
    """Return the dot product of each pair in float64, identical for equal vectors wherever they are."""
    products = mentions[rows].astype(np.float64)
    products *= entities[positions]
    total: NDArray[Any] = products.sum(axis=1)
    return total


def _floor_of_best(scores: Tensor, k: int) -> NDArray[Any]:
    """Return (m,) scores that at least k entities reach: the k-th best among the highest of each group."""
    n = scores.shape[1]
    if n >= 4 * k * _GROUP:
        whole = n - n % _GROUP
        scores = scores[:, :whole].reshape(len(scores), _GROUP, -1).amax(dim=1)
    floor: NDArray[Any] = scores.float().topk(k, dim=1).values[:, -1].numpy()
    return floor


def _column(values: NDArray[Any], like: Tensor, *, up: bool) -> Tensor:
    """Turn (m,) bounds into a column (m, 1) of the type of `like`, rounded outwards."""
    import torch

    column = torch.from_numpy(values)[:, None]
    rounded = column.to(like.dtype)
    outside = rounded < column if up else rounded > column
    beyond = torch.nextafter(rounded, torch.full_like(rounded, math.inf if up else -math.inf))
    return torch.where(outside, beyond, rounded)


def _in_float32(mentions: NDArray[Any], entities: NDArray[Any]) -> Tensor:
    import torch

    given, scores = torch.from_numpy(mentions), torch.empty(len(mentions), len(entities))
    for start in range(0, len(entities), _ROWS):
        block = torch.tensor(entities[start : start + _ROWS]).float()
        torch.mm(given, block.T, out=scores[:, start : start + len(block)])
    return scores


def _check(
    mentions: NDArray[Any], entities: NDArray[Any], gold: NDArray[Any], mention_ids: Sequence[MentionId]
) -> None:
    if mentions.shape[1] != entities.shape[1]:
        raise BadInput(f"mention vectors have width {mentions.shape[1]}, entity vectors {entities.shape[1]}")
    if len(gold) != len(mentions) or len(mention_ids) != len(mentions):
        raise ValueError(f"{len(mentions)} mentions, {len(gold)} golds and {len(mention_ids)} ids do not fit")
    if len(gold) and not (gold.min() >= -1 and gold.max() < len(entities)):
        raise ValueError(f"gold {gold.min()} or {gold.max()} is not among {len(entities)} entities")
    for what, vectors in (("mention", mentions), ("entity", entities)):
        for start in range(0, len(vectors), _ROWS):
            length = np.linalg.norm(vectors[start : start + _ROWS].astype(np.float32), axis=1)
            wrong = ~(np.abs(length - 1.0) <= 0.002)  # NaN is wrong, too
            if wrong.any():
                first = int(wrong.argmax())
                name = repr(mention_ids[start + first]) if what == "mention" else f"at position {start + first}"
                raise BadInput(f"cannot compare the vector of {what} {name}: its length is {length[first]}, not 1")
