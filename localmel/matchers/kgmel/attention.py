"""Compute attention of each row over its own triples, without a tensor of shape (all triples, width).

In: two keys per row, the contribution of each tail and relation to the hidden layer, the triples of each row (CSR).
Out: the weighted sums over the kept triples of each row, with gradients.
Triples are processed in pieces of whole rows. The hidden layer of a piece is computed in a buffer that stays in the
cache, and recomputed for the gradient instead of being stored. Scores are computed only between a row and its own
triples (a sampled dense product); the sums read only the kept triples."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TRIPLES_AT_ONCE, ROWS_AT_ONCE = 2048, 1024
"Upper limits for a piece, in triples (unless its first row alone has more) and in rows."
SLOPE = 0.01
"Slope of the hidden layer's leaky ReLU below zero."


class Summed(NamedTuple):
    """Weighted sums over the kept triples of each row.  All zero for a row without triples."""

    tails: Tensor  # (b, triple width)
    hidden: Tensor  # (b, width)
    weight: Tensor  # (b,) sum of the kept weights, at most 1


def attend(
    tail_key: Tensor,
    hidden_key: Tensor,
    tails: Tensor,
    tail_part: Tensor,
    relation_part: Tensor,
    *,
    tail_of: Tensor,
    relation_of: Tensor,
    starts: Tensor,
    kept: int,
    dropout: float,
) -> Summed:
    """Return the sums over the `kept` triples of highest weight per row; scores are tail_key . tail + hidden_key .
    hidden.

    Weights are a softmax within each row. The hidden layer of a triple is dropout(leaky ReLU(tail_part +
    relation_part)). Kept weights are not renormalised (published code). All float inputs are differentiable once.
    tail_key: (b, triple width), hidden_key: (b, width), tails: (q, triple width), tail_part: (q, width), relation_part:
    (r, width), all float; tail_of, relation_of: (t,), starts: (b + 1,), all int64.
    Raises IndexError for a tail or relation that does not exist.  Source: KGMEL, section 3.2."""
    seed = int(torch.randint(1 << 62, ()).item()) if dropout else 0
    settings = _Settings(kept=kept, drop_below=round(256 * dropout), seed=seed)
    precise = [_at_least_float32(value) for value in (tail_key, hidden_key, tails, tail_part, relation_part)]
    apply: Callable[..., tuple[Tensor, Tensor, Tensor]] = _Attention.apply
    with torch.autocast(tail_key.device.type, enabled=False):
        return Summed(*apply(*precise, tail_of, relation_of, starts, settings))


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    kept: int
    drop_below: int
    "Values whose random byte is below this are dropped."
    seed: int

    @property
    def scale(self) -> float:
        """Return the factor that preserves the expected value under dropout."""
        return 256 / (256 - self.drop_below)


class _Piece(NamedTuple):
    """A run of whole rows and their triples."""

    number: int
    rows: slice
    triples: slice
    starts: Tensor  # (rows + 1,) counted from the piece's first triple
    row: Tensor  # (triples,) counted from the piece's first row
    longest: int


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
        tail_key, hidden_key, tails, tail_part, relation_part, tail_of, relation_of, starts, settings = given
        b = len(tail_key)
        tail_sums, hidden_sums = torch.zeros_like(tail_key), torch.zeros_like(hidden_key)
        weights = tail_key.new_zeros(len(tail_of))
        best, best_weights = starts.new_zeros(b, settings.kept), tail_key.new_zeros(b, settings.kept)
        pieces = list(_pieces(starts))
        layer = _HiddenLayer(tail_part, relation_part, tail_of, relation_of, settings, pieces)
        for piece in pieces:
            rows, here = piece.rows, piece.triples
            hidden, places = layer.values(piece), layer.places(piece)
            scores = _row_products(tail_key[rows], tails, tail_of[here], piece)
            scores += _row_products(hidden_key[rows], hidden, places, piece)
            weights[here], chosen, chosen_weights = _softmax_and_best(scores, piece, settings.kept)
            tail_sums[rows] = _sums(tails, tail_of[here][chosen], chosen_weights)
            hidden_sums[rows] = _sums(hidden, chosen, chosen_weights)
            best[rows, : chosen.shape[1]], best_weights[rows, : chosen.shape[1]] = chosen, chosen_weights
        ctx.save_for_backward(
            tail_key, hidden_key, tails, tail_part, relation_part, tail_of, relation_of, weights, best, best_weights
        )
        ctx.settings, ctx.pieces = settings, pieces
        return tail_sums, hidden_sums, best_weights.sum(dim=1)

    @staticmethod
    @torch.no_grad()
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all inputs.

        With weights w and loss L: dL/dscore = w (dL/dw - sum w dL/dw), and dL/dw is zero for triples that are not
        kept."""
        tail_key, hidden_key, tails, tail_part, relation_part, tail_of, relation_of, *softmaxed = ctx.saved_tensors
        weights, best, best_weights = softmaxed
        to_tails, to_hidden, to_total = gradients
        d_tail_key, d_hidden_key = torch.zeros_like(tail_key), torch.zeros_like(hidden_key)
        d_tails = torch.zeros_like(tails) if ctx.needs_input_grad[2] else None
        d_tail_part, d_relation_part = torch.zeros_like(tail_part), torch.zeros_like(relation_part)
        layer = _HiddenLayer(tail_part, relation_part, tail_of, relation_of, ctx.settings, ctx.pieces)
        for piece in ctx.pieces:
            rows, here = piece.rows, piece.triples
            hidden, places, tail = layer.values(piece), layer.places(piece), tail_of[here]
            chosen, chosen_weights = best[rows], best_weights[rows]
            d_weight = to_total[rows, None] + _products(to_tails[rows], tails, tail[chosen])
            d_weight += _products(to_hidden[rows], hidden, chosen)
            d_weight *= chosen_weights
            d_score = -weights[here] * d_weight.sum(dim=1)[piece.row]
            d_score.index_add_(0, chosen.view(-1), d_weight.view(-1))
            d_tail_key[rows] = _sums(tails, tail, d_score, piece.starts)
            d_hidden_key[rows] = _sums(hidden, places, d_score, piece.starts)
            d_hidden = layer.through(_spread(hidden_key[rows], d_score, to_hidden[rows], chosen, chosen_weights, piece))
            d_tail_part.index_add_(0, tail, d_hidden)
            d_relation_part.index_add_(0, relation_of[here], d_hidden)
            if d_tails is not None:
                d_tail = _spread(tail_key[rows], d_score, to_tails[rows], chosen, chosen_weights, piece)
                d_tails.index_add_(0, tail, d_tail)
        return d_tail_key, d_hidden_key, d_tails, d_tail_part, d_relation_part, None, None, None, None


class _HiddenLayer:
    """The hidden layer, one piece at a time in shared buffers: a piece's values are valid until the next is
    computed."""

    def __init__(
        self,
        tail_part: Tensor,
        relation_part: Tensor,
        tail_of: Tensor,
        relation_of: Tensor,
        settings: _Settings,
        pieces: list[_Piece],
    ) -> None:
        self._parts = tail_part, relation_part
        self._of = tail_of, relation_of
        self._settings = settings
        longest = max((len(piece.row) for piece in pieces), default=0)
        self._hidden = tail_part.new_empty(longest, tail_part.shape[1])
        self._work = torch.empty_like(self._hidden)
        self._places = torch.arange(longest, device=tail_part.device)
        self._words = torch.empty(-(-self._hidden.numel() // 8), dtype=torch.int64, device=tail_part.device)

    def places(self, piece: _Piece) -> Tensor:
        """Return 0, 1, 2, ..., the row of each of the piece's triples in the result of `values`, shape (t,)."""
        return self._places[: len(piece.row)]

    def values(self, piece: _Piece) -> Tensor:
        """Return the hidden layer of the piece's triples, shape (t, width)."""
        hidden, work = self._hidden[: len(piece.row)], self._work[: len(piece.row)]
        torch.index_select(self._parts[0], 0, self._of[0][piece.triples], out=hidden)
        torch.index_select(self._parts[1], 0, self._of[1][piece.triples], out=work)
        F.leaky_relu_(hidden.add_(work), SLOPE)
        if self._settings.drop_below:
            self._draw(piece)
            hidden.mul_(self._standing(len(hidden)))
        return hidden

    def through(self, gradient: Tensor) -> Tensor:
        """Return the gradient before the activation, given the one after it; in place, for the last piece computed."""
        if self._settings.drop_below:
            gradient.mul_(self._standing(len(gradient)))
        slopes = torch.gt(self._hidden[: len(gradient)], 0.0, out=self._work[: len(gradient)]).clamp_(min=SLOPE)
        return gradient.mul_(slopes)

    def _draw(self, piece: _Piece) -> None:
        """Draw random bytes for the piece's values; repeated calls give the same bytes."""
        source = torch.Generator(self._words.device).manual_seed(self._settings.seed + piece.number)
        words = self._words[: -(-len(piece.row) * self._hidden.shape[1] // 8)]
        words.random_(-(1 << 63), None, generator=source)

    def _standing(self, length: int) -> Tensor:
        """Return the dropout factors, 0 for dropped values and the scale for all others, shape (t, width)."""
        work = self._work[:length]
        drawn = self._words.view(torch.uint8)[: work.numel()].view(work.shape)
        return torch.ge(drawn, self._settings.drop_below, out=work).mul_(self._settings.scale)


def _pieces(starts: Tensor) -> Iterator[_Piece]:
    """Yield the rows in pieces, skipping pieces without triples."""
    ends = starts.tolist()
    row_of = torch.repeat_interleave(torch.arange(len(ends) - 1, device=starts.device), starts.diff())
    first, number = 0, 0
    while first < len(ends) - 1:
        last = max(first + 1, bisect_right(ends, ends[first] + TRIPLES_AT_ONCE) - 1)
        last = min(last, first + ROWS_AT_ONCE)
        begin, end = ends[first], ends[last]
        if begin < end:
            own = starts[first : last + 1] - begin
            longest = max(after - before for before, after in zip(ends[first:last], ends[first + 1 :], strict=False))
            row = row_of[begin:end] - first
            yield _Piece(number, slice(first, last), slice(begin, end), own, row, longest)
            number += 1
        first = last


def _softmax_and_best(scores: Tensor, piece: _Piece, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return all weights (t,), and per row the indices (rows, k) and weights (rows, k) of its `kept` heaviest triples.

    Rows with fewer triples are padded with the piece's first triple at weight 0."""
    lengths = piece.starts.diff()[:, None]
    n_rows = len(lengths)
    cell = torch.arange(len(scores), device=scores.device) + (piece.row * piece.longest - piece.starts[piece.row])
    table = scores.new_full((n_rows * piece.longest,), float("-inf"))
    table[cell] = scores
    table = table.view(n_rows, piece.longest).masked_fill_(lengths == 0, 0.0).softmax(dim=1)
    best = table.topk(min(kept, piece.longest), dim=1, sorted=False)
    real = best.indices < lengths
    return table.view(-1)[cell], (best.indices + piece.starts[:-1, None]) * real, best.values * real


def _sums(values: Tensor, columns: Tensor, weights: Tensor, starts: Tensor | None = None) -> Tensor:
    """Return for each row the weighted sum of its columns' values, shape (rows, width).

    columns, weights: (rows, k), or (t,) with `starts`."""
    begins = None if starts is None else starts[:-1]
    sums: Tensor = F.embedding_bag(columns, values, begins, mode="sum", per_sample_weights=weights)
    return sums


def _products(keys: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    """Return the product of each row's key with the values of its k columns, shape (rows, k)."""
    return torch.bmm(values[columns], keys[:, :, None])[:, :, 0]


def _spread(
    keys: Tensor, d_score: Tensor, to_sums: Tensor, chosen: Tensor, chosen_weights: Tensor, piece: _Piece
) -> Tensor:
    """Return the gradient of each triple's values, through its score and (if kept) its weighted sum, shape (t,
    width)."""
    gradient = keys[piece.row].mul_(d_score[:, None])
    kept = to_sums[:, None, :] * chosen_weights[:, :, None]
    return gradient.index_add_(0, chosen.view(-1), kept.view(-1, kept.shape[-1]))


def _row_products(keys: Tensor, values: Tensor, columns: Tensor, piece: _Piece) -> Tensor:
    """Return the product of each row's key with the value of each of its columns, shape (t,)."""
    # The pattern may name a cell more than once (a tail in two triples of a row), but not more cells than there are.
    if _has_sampled_product(keys.device.type) and len(columns) <= len(keys) * len(values):
        zeros, shape = keys.new_zeros(len(columns)), (len(keys), len(values))
        pattern = torch.sparse_csr_tensor(piece.starts, columns, zeros, shape, check_invariants=False)
        products: Tensor = torch.sparse.sampled_addmm(pattern, keys, values.T, beta=0.0).values()
        return products
    return (keys[piece.row] * values[columns]).sum(dim=1)


@cache
def _has_sampled_product(device: str) -> bool:
    """Return whether PyTorch has the sampled dense product; cached, so that it warns only once."""
    one = torch.ones(1, 1, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            index = torch.tensor([0, 1], device=device)
            pattern = torch.sparse_csr_tensor(index, index[:1], one[0], (1, 1), check_invariants=False)
            torch.sparse.sampled_addmm(pattern, one, one)
        except (RuntimeError, NotImplementedError):
            return False
    return True
