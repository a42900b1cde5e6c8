"""Attention of a row over its own triples, without a tensor that is as long as all triples and as wide as a vector.

In: one key for each row, vectors of tails and of (relation, tail) pairs, and which pairs each row has (CSR).
Out: the weighted sums over the kept triples of each row, with gradients.
Scores are products of rows with the few columns they have (a sampled dense product); triples are gone through in
pieces of whole rows, which stay in the cache, and are computed again for the gradient instead of being kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_TRIPLES_AT_ONCE = 2048
"With dropout each piece has a buffer of this many rows."
_CELLS_AT_ONCE = 1 << 20
"Rows times the triples of the longest row: scores are laid out as a table for softmax and top-p."


class Summed(NamedTuple):
    """The kept triples of each row, weighted and summed.  All zero for a row without triples."""

    tails: Tensor  # (b, triple width)
    pairs: Tensor  # (b, width)
    weight: Tensor  # (b,) sum of the kept weights, at most 1


def attend(
    tail_key: Tensor,
    pair_key: Tensor,
    tails: Tensor,
    pairs: Tensor,
    *,
    tail_of_pair: Tensor,
    triples: Tensor,
    starts: Tensor,
    kept: int,
    dropout: float,
) -> Summed:
    """Score triples by tail_key . tail + pair_key . pair, softmax within each row, keep the `kept` highest weights.

    tail_key: (b, triple width), pair_key: (b, width), tails: (q, triple width), pairs: (p, width) float; tail_of_pair:
    (p,), triples: (t,) numbers of pairs, starts: (b + 1,) int64.  Kept weights are not normalised again (published
    code).  With `dropout` values of a pair are zeroed afresh for each triple.  Source: KGMEL, section 3.2."""
    seed = int(torch.randint(1 << 62, ()).item()) if dropout else 0
    settings = _Settings(kept=kept, drop_below=round(256 * dropout), seed=seed)
    return Summed(*_Attention.apply(tail_key, pair_key, tails, pairs, tail_of_pair, triples, starts, settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    kept: int
    drop_below: int
    "A value is dropped where a random byte is below this."
    seed: int

    @property
    def scale(self) -> float:
        """What is left is multiplied by this, so that its expectation stays."""
        return 256 / (256 - self.drop_below)


class _Piece(NamedTuple):
    """Some whole rows and their triples."""

    number: int
    rows: slice
    triples: slice
    longest: int


class _Attention(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(  # type: ignore[override]
        ctx: Any,
        tail_key: Tensor,
        pair_key: Tensor,
        tails: Tensor,
        pairs: Tensor,
        tail_of_pair: Tensor,
        triples: Tensor,
        starts: Tensor,
        settings: _Settings,
    ) -> tuple[Tensor, Tensor, Tensor]:
        b, device = len(tail_key), tail_key.device
        of_tail = tail_of_pair[triples]
        weights = torch.zeros(len(triples), dtype=tail_key.dtype, device=device)
        tail_sums, pair_sums = torch.zeros_like(tail_key), torch.zeros_like(pair_key)
        pieces = list(_pieces(starts, dense=bool(settings.drop_below)))
        for piece in pieces:
            rows, here, begin = piece.rows, piece.triples, _begin(starts, piece)
            if here.start == here.stop:
                continue
            values, columns = _values(pairs, triples, piece, settings)
            scores = _row_products(tail_key[rows], tails, of_tail[here], begin)
            scores += _row_products(pair_key[rows], values, columns, begin)
            weights[here] = _kept_weights(scores, begin, piece.longest, settings.kept)
            tail_sums[rows] = _sums(tails, of_tail[here], begin, _only_kept(weights[here]))
            pair_sums[rows] = _sums(values, columns, begin, _only_kept(weights[here]))
        row = torch.repeat_interleave(torch.arange(b, device=device), starts.diff())
        total = torch.zeros(b, dtype=weights.dtype, device=device).index_add_(0, row, _only_kept(weights))
        ctx.save_for_backward(tail_key, pair_key, tails, pairs, of_tail, triples, starts, weights, row)
        ctx.settings, ctx.pieces = settings, pieces
        return tail_sums, pair_sums, total

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        to_tails, to_pairs, to_total = gradients
        tail_key, pair_key, tails, pairs, of_tail, triples, starts, weights, row = ctx.saved_tensors
        need_tails = ctx.needs_input_grad[2]
        d_tail_key, d_pair_key = torch.zeros_like(tail_key), torch.zeros_like(pair_key)
        d_tails = torch.zeros_like(tails) if need_tails else None
        d_pairs = torch.zeros_like(pairs)
        for piece in ctx.pieces:
            rows, here, begin = piece.rows, piece.triples, _begin(starts, piece)
            if here.start == here.stop:
                continue
            own, row_here = weights[here], row[here] - rows.start
            sizes, kept = own.abs(), _only_kept(own)
            values, columns = _values(pairs, triples, piece, ctx.settings)
            d_weight = _row_products(to_tails[rows], tails, of_tail[here], begin)
            d_weight += _row_products(to_pairs[rows], values, columns, begin)
            d_weight += to_total[rows][row_here]
            d_weight *= own > 0
            mean = torch.zeros_like(to_total[rows]).index_add_(0, row_here, sizes * d_weight)
            d_score = sizes * (d_weight - mean[row_here])
            d_tail_key[rows] = _sums(tails, of_tail[here], begin, d_score)
            d_pair_key[rows] = _sums(values, columns, begin, d_score)
            d_values = pair_key[rows].index_select(0, row_here).mul_(d_score[:, None])
            standing = own > 0
            d_values[standing] += to_pairs[rows][row_here[standing]] * kept[standing, None]
            if ctx.settings.drop_below:
                d_values.masked_fill_(_dropped(d_values.shape, piece, ctx.settings, d_values.device), 0.0)
                d_values.mul_(ctx.settings.scale)
            d_pairs.index_add_(0, triples[here], d_values)
            if d_tails is not None:
                d_o = tail_key[rows].index_select(0, row_here).mul_(d_score[:, None])
                d_o[standing] += to_tails[rows][row_here[standing]] * kept[standing, None]
                d_tails.index_add_(0, of_tail[here], d_o)
        return d_tail_key, d_pair_key, d_tails, d_pairs, None, None, None, None


def _pieces(starts: Tensor, *, dense: bool) -> Iterator[_Piece]:
    """Cut the rows into pieces: with `dense` by their triples, else by the table of scores they need."""
    ends = starts.tolist()
    first, longest = 0, 0
    number = 0
    for row in range(len(ends) - 1):
        length = ends[row + 1] - ends[row]
        wider = max(longest, length)
        full = (ends[row + 1] - ends[first] > _TRIPLES_AT_ONCE) if dense else wider * (row + 1 - first) > _CELLS_AT_ONCE
        if full and row > first:
            yield _Piece(number, slice(first, row), slice(ends[first], ends[row]), longest)
            first, wider, number = row, length, number + 1
        longest = wider
    if len(ends) > 1:
        yield _Piece(number, slice(first, len(ends) - 1), slice(ends[first], ends[-1]), longest)


def _begin(starts: Tensor, piece: _Piece) -> Tensor:
    return starts[piece.rows.start : piece.rows.stop + 1] - piece.triples.start


def _values(pairs: Tensor, triples: Tensor, piece: _Piece, settings: _Settings) -> tuple[Tensor, Tensor]:
    """The pairs of a piece and the column of each of its triples among them: fresh copies where values are dropped."""
    columns = triples[piece.triples]
    if not settings.drop_below:
        return pairs, columns
    values = pairs.index_select(0, columns)
    values.masked_fill_(_dropped(values.shape, piece, settings, pairs.device), 0.0).mul_(settings.scale)
    return values, torch.arange(len(columns), device=pairs.device)


def _dropped(shape: torch.Size, piece: _Piece, settings: _Settings, device: torch.device) -> Tensor:
    """Which values of a piece are dropped: the same ones whenever it is asked."""
    source = torch.Generator(device).manual_seed(settings.seed + piece.number)
    words = torch.empty(-(-shape.numel() // 8), dtype=torch.int64, device=device)
    words.random_(-(1 << 63), None, generator=source)
    return words.view(torch.uint8)[: shape.numel()].view(shape) < settings.drop_below


def _kept_weights(scores: Tensor, begin: Tensor, longest: int, kept: int) -> Tensor:
    """Softmax within each row.  The weight of a triple that is not kept is returned with a minus sign."""
    n_rows = len(begin) - 1
    lengths = begin.diff()
    row = torch.repeat_interleave(torch.arange(n_rows, device=scores.device), lengths)
    place = row * longest + torch.arange(len(scores), device=scores.device) - begin[:-1][row]
    table = torch.full((n_rows * longest,), float("-inf"), dtype=scores.dtype, device=scores.device)
    table[place] = scores
    table = table.view(n_rows, longest)
    weights = torch.softmax(table.masked_fill_((lengths == 0)[:, None], 0.0), dim=1)
    if longest > kept:
        best = weights.topk(kept, dim=1).indices
        weights = (-weights).scatter_(1, best, weights.gather(1, best))
    return weights.view(-1)[place]


def _only_kept(weights: Tensor) -> Tensor:
    return weights.clamp_min(0.0)


def _sums(values: Tensor, columns: Tensor, begin: Tensor, weights: Tensor) -> Tensor:
    """(rows, width): for each row the sum of its columns' values times their weights."""
    return F.embedding_bag(columns, values, begin[:-1], mode="sum", per_sample_weights=weights)


def _row_products(keys: Tensor, values: Tensor, columns: Tensor, begin: Tensor) -> Tensor:
    """(t,): the product of each row's key with the value of each of its columns."""
    if _has_sampled_product(keys.device.type):
        shape = (len(keys), len(values))
        pattern = torch.sparse_csr_tensor(
            begin,
            columns,
            torch.zeros(len(columns), dtype=keys.dtype, device=keys.device),
            shape,
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(pattern, keys, values.T, beta=0.0).values()
    row = torch.repeat_interleave(torch.arange(len(keys), device=keys.device), begin.diff())
    parts = zip(row.split(_TRIPLES_AT_ONCE), columns.split(_TRIPLES_AT_ONCE), strict=True)
    return torch.cat([(keys[own] * values[column]).sum(dim=1) for own, column in parts])


@cache
def _has_sampled_product(device: str) -> bool:
    """Whether this build of PyTorch has the sampled dense product; asked once, so that its remarks are made once."""
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
