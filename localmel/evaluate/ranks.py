"""The rank of the right entity, by counting who scores higher.

In: scores of many entities for many mentions, or the ranking of one mention, and the gold.  Out: ranks from 1.
Nothing is sorted; what equal scores mean is said by a tie rule and not by the order in which entities are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.records import EntityId, MentionId, Ranking

TieRule = Literal["mean", "pessimistic", "optimistic"]
"""Which of the places that equal scores share the gold is given: the middle, the last or the first.
The middle may be half a place: among two equal best, rank 1.5, which is no hit at 1."""

_SHARE_OF_EQUALS: dict[TieRule, float] = {"mean": 0.5, "pessimistic": 1.0, "optimistic": 0.0}


def ranks_of_gold(
    scores: NDArray[Any],
    gold: Sequence[int] | NDArray[Any],
    mention_ids: Sequence[MentionId],
    *,
    ties: TieRule = "mean",
) -> NDArray[np.float64]:
    """1 + the number of higher scores + the tie rule's share of the other equal ones, per mention.

    scores: (n_mentions, n_entities), higher is better; one chunk of mentions at a time keeps the memory small.
    gold: (n_mentions,), the column of the right entity, or -1 where it has none: rank infinity.
    Returns (n_mentions,).  Raises BadInput with the mention's id where a score is NaN, ValueError where shapes or
    columns do not fit.  Compared in the precision of `scores`: float16 makes ties that float32 has not."""
    scores, column = np.asarray(scores), np.asarray(gold, np.int64)
    check_scores(scores, column, mention_ids)
    if not len(column) or not scores.shape[1]:
        return np.full(len(column), np.inf)
    own = np.take_along_axis(scores, np.maximum(column, 0)[:, None], axis=1)
    higher = np.count_nonzero(scores > own, axis=1)
    equal = np.count_nonzero(scores == own, axis=1) - 1
    return np.where(column < 0, np.inf, 1.0 + higher + _share(ties) * equal)


def rank_in(ranking: Ranking, gold: EntityId | None, *, ties: TieRule = "mean", outside: float = math.inf) -> float:
    """The rank of the gold in the candidates of one mention; equal scores share their places by the tie rule.

    `outside` is the rank of a gold that is no candidate, such as its rank in the whole KB.  It is never counted
    better than behind the last candidate; the default, infinity, is a miss with reciprocal rank 0.
    A gold of None (NIL) has no rank: infinity.  Raises ValueError where `outside` is no rank."""
    if not outside >= 1.0:
        raise ValueError(f"rank {outside} outside the candidates of {ranking.mention_id!r} is no rank")
    if gold is None:
        return math.inf
    own = next((one.score for one in ranking.candidates if one.entity_id == gold), None)
    if own is None:
        return max(outside, len(ranking.candidates) + 1.0)
    higher = sum(one.score > own for one in ranking.candidates)
    equal = sum(one.score == own for one in ranking.candidates) - 1
    return 1.0 + higher + _share(ties) * equal


def check_scores(scores: NDArray[Any], column: NDArray[Any], mention_ids: Sequence[MentionId]) -> None:
    """Raise BadInput for a NaN, with the mention's id, and ValueError for shapes and columns that do not fit."""
    if scores.ndim != 2 or column.shape != (len(scores),) or len(mention_ids) != len(scores):
        raise ValueError(f"scores {scores.shape}, gold {column.shape} and {len(mention_ids)} mention ids do not fit")
    if len(column) and not (column.min() >= -1 and column.max() < scores.shape[1]):
        raise ValueError(f"gold column {column.min()} or {column.max()} is none of {scores.shape[1]} entities")
    broken = np.isnan(scores).any(axis=1)
    if broken.any():
        first = int(broken.argmax())
        raise BadInput(
            f"mention {mention_ids[first]!r} has a score that is no number (NaN), "
            f"for the entity in column {int(np.isnan(scores[first]).argmax())}; {int(broken.sum())} mentions have one"
        )


def _share(ties: TieRule) -> float:
    if ties not in _SHARE_OF_EQUALS:
        raise ValueError(f"tie rule {ties!r} is none of {', '.join(_SHARE_OF_EQUALS)}")
    return _SHARE_OF_EQUALS[ties]
