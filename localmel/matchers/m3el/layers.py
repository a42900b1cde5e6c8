"""The layers of M3EL: token-to-token attention, and the two cross-modal networks.

In: vectors of whole texts and pictures; words and patches with masks.  Out: scores of pairs, or one
vector for each row.  Padding has no influence: it is masked as query, as key, and in every mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localmel.matchers.protocol import Tokens


class LocalMatching(nn.Module):
    """Global-to-local matching: an entity's tokens attend to a mention's; the mean result is scored against the entity.

    Source: M3EL, intra-modal matching network.  The attention weights are averaged over an entity's tokens before the
    values are summed: sums commute, and the results of single tokens need not be stored."""

    def __init__(self, whole_width: int, token_width: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(token_width, width)
        self.key = nn.Linear(token_width, width)
        self.value = nn.Linear(token_width, width)
        self.aim = nn.Linear(whole_width, width)
        self.norm = nn.LayerNorm(width)

    def asked(self, tokens: Tokens) -> Tokens:
        """Return the keys and values of mentions, (m, length, 2 x width)."""
        both = torch.cat([self.key(tokens.values), self.value(tokens.values)], dim=-1)
        return Tokens(values=both, there=tokens.there)

    def asking(self, tokens: Tokens) -> Tokens:
        """Return the queries of entities, (n, length, width)."""
        return Tokens(values=self.query(tokens.values), there=tokens.there)

    def estimate(self, asked: Tokens) -> Tensor:
        """Return what uniform attention over all tokens yields, (m, width)."""
        _, values = asked.values.chunk(2, dim=-1)
        mean = _masked_mean(values, asked.there)
        heard: Tensor = self.norm(mean) * asked.there.any(dim=-1, keepdim=True)
        return heard

    def forward(self, asked: Tokens, asking: Tokens, aims: Tensor) -> Tensor:
        """Return the scores of all pairs (m, n), or of each mention with its own k entities (m, k).

        asking: queries (n, length, width) or (m, k, length, width); aims: (n, width) or (m, k, width)."""
        keys, values = asked.values.chunk(2, dim=-1)
        of = "ni" if asking.there.dim() == 2 else "mni"
        logits = torch.einsum(f"{of}d,mjd->mnij", asking.values, keys) / math.sqrt(keys.shape[-1])
        weights = masked_softmax(logits, asked.there[:, None, None, :])
        share = asking.there / asking.there.sum(dim=-1, keepdim=True).clamp(min=1)
        mean = torch.einsum(f"mnij,{of}->mnj", weights, share)
        heard = self.norm(torch.einsum("mnj,mjd->mnd", mean, values))
        scores: Tensor = (heard * aims).sum(dim=-1) * asked.there.any(dim=-1)[:, None]
        return scores


class Asking(nn.Module):
    """Attention of each vector p to the vectors q similar to it: relu(W softmax(p (W q)^T) q).  Source: M3EL."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.turn = nn.Linear(width, width)

    def forward(self, asking: Tensor, asked: Tensor, there: Tensor) -> Tensor:
        """Attend from `asking` to `asked`.  asking: (b, i, width), asked: (b, j, width), there: (b, j).

        Returns (b, i, width)."""
        weights = masked_softmax(asking @ self.turn(asked).transpose(1, 2), there[:, None, :])
        return F.relu(self.turn(weights @ asked))


def pooled(tokens: Tensor, there: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    """Pool tokens into one vector for each row.  tokens: (b, i, width), there: (b, i).  Returns (b, width).

    The result averages several poolings: for each temperature t the plain mean plus a mean weighted by softmax(t x) in
    each dimension, and the plain mean plus the maximum.  Zero for a row without tokens.  Source: published code."""
    mask = there[..., None]
    lowest = torch.finfo(tokens.dtype).min
    means = [(masked_softmax(tokens * t, mask, dim=1) * tokens).sum(dim=1) for t in temperatures]
    highest = tokens.masked_fill(~mask, lowest).amax(dim=1) * there.any(dim=1, keepdim=True)
    return _masked_mean(tokens, there) + torch.stack([*means, highest]).mean(dim=0)


def masked_softmax(logits: Tensor, there: Tensor, dim: int = -1) -> Tensor:
    """Return the softmax over the unmasked entries; all zero if there are none.  `there` broadcasts to the logits."""
    return logits.masked_fill(~there, torch.finfo(logits.dtype).min).softmax(dim=dim) * there


def _masked_mean(values: Tensor, there: Tensor) -> Tensor:
    """Return the mean over the unmasked tokens, (b, length, width) -> (b, width); zero if there are none."""
    return (values * there[..., None]).sum(dim=-2) / there.sum(dim=-1, keepdim=True).clamp(min=1)


class CrossModal(nn.Module):
    """Joint vectors of a row's text and picture, one or two.  Source: M3EL, cross-modal network.

    One way: the whole text attends to the patches (a), each patch attends to the words (b), and a gate mixes both.
    Both ways: one vector starts from the text and pools text-to-patches and patches-to-words attention; the other
    starts from the picture and pools picture-to-words and words-to-patches attention.

    In the published code a patch (word) attends to the single vector of the whole text (picture) instead.  A softmax
    over one key is 1, so every patch gets the same result whatever it shows, and the picture does not affect that half.
    Attending to the words, each patch picks those similar to it, so the pooled vector relates words to patches."""

    def __init__(self, text_width: int, word_width: int, width: int, *, both_ways: bool, published: bool) -> None:
        super().__init__()
        self.both_ways, self.published = both_ways, published
        self.text_in = nn.Linear(text_width, width)
        self.image_in = nn.Linear(width, width)
        self.word_in = None if published else nn.Linear(word_width, width)
        self.ask = Asking(width)
        self.mix = None if both_ways else nn.Linear(width, width)
        self.keep = nn.Linear(width, 1)
        self.norm = nn.LayerNorm(width)

    @property
    def n_vectors(self) -> int:
        """Return the number of joint vectors for each row."""
        return 2 if self.both_ways else 1

    def forward(
        self, *, text: Tensor, words: Tokens, image: Tensor, patches: Tokens, temperatures: tuple[float, ...]
    ) -> list[Tensor]:
        """Return the joint vectors, `n_vectors` tensors (b, width).  text: (b, text width), image: (b, width)."""
        text, image = self.text_in(text), self.image_in(image)
        seen = Tokens(values=self.image_in(patches.values), there=patches.there)
        read = Tokens(values=(self.word_in or self.text_in)(words.values), there=words.there)
        if self.mix is None:
            return [
                self._begun_at(text, seen, _one(text) if self.published else read, temperatures),
                self._begun_at(image, read, _one(image) if self.published else seen, temperatures),
            ]
        heard = self.ask(text[:, None], seen.values, seen.there)[:, 0]
        keys = _one(text) if self.published else read
        told = pooled(self.ask(seen.values, keys.values, keys.there), seen.there, temperatures)
        gate = torch.sigmoid(self.mix(told) + self.mix(heard))
        return [self._begun(text, heard * gate + told * (1 - gate))]

    def _begun_at(self, whole: Tensor, other: Tokens, own: Tokens, temperatures: tuple[float, ...]) -> Tensor:
        """Return the vector (b, width) of `whole` attending to the other modality's tokens, and those to its own."""
        heard = self.ask(whole[:, None], other.values, other.there)
        told = self.ask(other.values, own.values, own.there)
        there = F.pad(other.there, (1, 0), value=True)
        return self._begun(whole, pooled(torch.cat([heard, told], dim=1), there, temperatures))

    def _begun(self, whole: Tensor, heard: Tensor) -> Tensor:
        vectors: Tensor = self.norm(whole * torch.tanh(self.keep(whole)) + heard)
        return vectors


def _one(vectors: Tensor) -> Tokens:
    """Return a single token for each row."""
    return Tokens(values=vectors[:, None], there=torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device))
