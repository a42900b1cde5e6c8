"""The rank of each gold among all entities of a KB, and the K best, by cosine.

In: unit vectors of mentions and of entities.  Out: ranks by counting, and the K best in order, both exact: what
decides is the dot product in float64, and equal vectors have equal scores wherever they stand.
Nothing is sorted.  A product in bfloat16 settles nearly all pairs, because its error is bounded; what lies nearer to
the gold (or to the K-th best) than that is looked at again.  Knows no names and no files."""

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
"Pairs looked at again together."
_GROUP = 64
"Entities of which the highest score stands for all, in the search for a bound on the K-th best."
_FEW = 2048
"A mention with more undecided entities than this is scored again in float32 as a whole."
_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """m mentions against n entities."""

    rank: NDArray[Any]  # (m,) float64: 1 + higher + half of the other equal ones; infinity without a gold
    place: NDArray[Any]  # (m,) float64: place in a stable sort, equal ones in position order
    best: NDArray[Any]  # (m, min(k, n)) int64 positions, best first, equal ones in position order
    scores: NDArray[Any]  # (m, min(k, n)) float64


def rank_in_kb(
    mentions: NDArray[Any], entities: NDArray[Any], gold: NDArray[Any], mention_ids: Sequence[MentionId], *, k: int
) -> Ranked:
    """mentions: (m, width), entities: (n, width), unit rows; gold: (m,) positions, -1 where there is none.

    Raises BadInput for a vector that is not finite or not of length 1, and where widths differ."""
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
    """How far a score can be from the exact one, for vectors whose length is at most 1.002.

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
    """Fill `out` for these rows of mentions.  Returns the rows with more than `few` undecided entities, not filled.

    scores: (len(rows), n), each within `bound` of the exact one."""
    own = np.full(len(rows), np.inf)
    known = gold[rows] >= 0
    own[known] = _exact(mentions, entities, rows[known], gold[rows][known])
    best_from = _floor_of_best(scores, out.best.shape[1]) - 2 * bound
    undecided, higher = np.zeros(len(rows), bool), np.zeros(len(rows))
    if few is not None:  # everything that may be level with the gold or above it
        looked_at = (scores >= _column(np.minimum(own - bound, best_from), scores, up=False)).numpy()
        undecided = np.count_nonzero(looked_at, axis=1) > few
        looked_at[undecided] = False
    else:  # what is surely above is only counted
        above = (scores > _column(own + bound, scores, up=True)).numpy()
        higher += np.count_nonzero(above, axis=1)
        looked_at = (scores >= _column(own - bound, scores, up=False)).numpy() & ~above
        looked_at |= (scores >= _column(best_from, scores, up=False)).numpy()
    equal, before = np.zeros(len(rows)), np.zeros(len(rows))
    found = []
    for line, position in _pairs(looked_at):
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
    """found: lines, positions and exact scores, the best of each line among them."""
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
    """The marked (line, position), some at a time."""
    marked = np.flatnonzero(mask)
    for start in range(0, len(marked), _PAIRS):
        yield np.divmod(marked[start : start + _PAIRS], mask.shape[1])


def _exact(mentions: NDArray[Any], entities: NDArray[Any], rows: NDArray[Any], positions: NDArray[Any]) -> NDArray[Any]:
    """The dot product of each pair in float64, the same for equal vectors wherever they stand."""
    products = mentions[rows].astype(np.float64)
    products *= entities[positions]
    total: NDArray[Any] = products.sum(axis=1)
    return total


def _floor_of_best(scores: Tensor, k: int) -> NDArray[Any]:
    """(m,) a score that at least k entities reach, near the k-th best: the k-th best of the highest of each group."""
    n = scores.shape[1]
    if n >= 4 * k * _GROUP:
        whole = n - n % _GROUP
        scores = scores[:, :whole].reshape(len(scores), _GROUP, -1).amax(dim=1)
    floor: NDArray[Any] = scores.float().topk(k, dim=1).values[:, -1].numpy()
    return floor


def _column(values: NDArray[Any], like: Tensor, *, up: bool) -> Tensor:
    """(m,) -> (m, 1) of the type of `like`, rounded away from what it bounds."""
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
        raise BadInput(f"vectors of mentions have {mentions.shape[1]} numbers, those of entities {entities.shape[1]}")
    if len(gold) != len(mentions) or len(mention_ids) != len(mentions):
        raise ValueError(f"{len(mentions)} mentions, {len(gold)} golds and {len(mention_ids)} ids do not fit")
    if len(gold) and not (gold.min() >= -1 and gold.max() < len(entities)):
        raise ValueError(f"gold {gold.min()} or {gold.max()} is none of {len(entities)} entities")
    for what, vectors in (("mention", mentions), ("entity", entities)):
        for start in range(0, len(vectors), _ROWS):
            length = np.linalg.norm(vectors[start : start + _ROWS].astype(np.float32), axis=1)
            wrong = ~(np.abs(length - 1.0) <= 0.002)  # NaN is wrong, too
            if wrong.any():
                first = int(wrong.argmax())
                name = repr(mention_ids[start + first]) if what == "mention" else f"at position {start + first}"
                raise BadInput(f"the vector of {what} {name} has length {length[first]}, not 1: it cannot be compared")
