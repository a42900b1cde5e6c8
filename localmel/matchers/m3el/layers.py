"""The layers of M3EL: tokens that ask tokens, and the two cross-modal networks.

In: vectors of whole texts and pictures, words and patches with marks of what is there.  Out: scores of pairs, or one
vector for each row.  Padding has no influence: it is asked by nobody, asks nobody, and no mean counts it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localmel.matchers.protocol import Tokens


class LocalMatching(nn.Module):
    """Global-to-local: each token of an entity asks those of a mention; the answers' mean is held against the entity.

    Source: M3EL, intra-modal matching network.  The mean over an entity's tokens is taken of the weights, before the
    values are summed: sums commute, and the answers of single tokens need not be kept."""

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
        """(m, width) what an entity would hear that asks all tokens alike."""
        _, values = asked.values.chunk(2, dim=-1)
        mean = _masked_mean(values, asked.there)
        heard: Tensor = self.norm(mean) * asked.there.any(dim=-1, keepdim=True)
        return heard

    def forward(self, asked: Tokens, asking: Tokens, aims: Tensor) -> Tensor:
        """Scores of all pairs (m, n), or of each mention with its own k entities (m, k).

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
    """Vectors that each gather what is like them among others: relu(W softmax(p (W q)^T) q).  Source: M3EL."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.turn = nn.Linear(width, width)

    def forward(self, asking: Tensor, asked: Tensor, there: Tensor) -> Tensor:
        """asking: (b, i, width), asked: (b, j, width), there: (b, j).  Returns (b, i, width)."""
        weights = masked_softmax(asking @ self.turn(asked).transpose(1, 2), there[:, None, :])
        return F.relu(self.turn(weights @ asked))


def pooled(tokens: Tensor, there: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    """tokens: (b, i, width), there: (b, i) -> (b, width).

    The average of several means over tokens: for each temperature t the plain mean plus one weighted by softmax(t x)
    in each dimension, and the plain mean plus the maximum.  Zero for a row without tokens.  Source: published code."""
    mask = there[..., None]
    lowest = torch.finfo(tokens.dtype).min
    means = [(masked_softmax(tokens * t, mask, dim=1) * tokens).sum(dim=1) for t in temperatures]
    highest = tokens.masked_fill(~mask, lowest).amax(dim=1) * there.any(dim=1, keepdim=True)
    return _masked_mean(tokens, there) + torch.stack([*means, highest]).mean(dim=0)


def masked_softmax(logits: Tensor, there: Tensor, dim: int = -1) -> Tensor:
    """Softmax over what is there; all zero where nothing is.  `there` broadcasts to the logits."""
    return logits.masked_fill(~there, torch.finfo(logits.dtype).min).softmax(dim=dim) * there


def _masked_mean(values: Tensor, there: Tensor) -> Tensor:
    """(b, length, width) -> (b, width); zero where nothing is there."""
    return (values * there[..., None]).sum(dim=-2) / there.sum(dim=-1, keepdim=True).clamp(min=1)


class CrossModal(nn.Module):
    """Joint vectors of a row's text and picture, one or two.  Source: M3EL, cross-modal network.

    One way: the whole text asks the patches (a), each patch asks the words (b), a gate mixes both.  Both ways: a vector
    begun at the text pools what the text hears of the patches and each patch of the words; another begun at the picture
    pools what the picture hears of the words and each word of the patches.

    As published, a patch (word) asks the one vector of the whole text (picture) instead.  A softmax over one key is 1,
    so that every patch hears the same, whatever it shows: the picture has no part in that half.  Asking the words, each
    patch picks those that are like it, and what is pooled tells which word and which patch belong together."""

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
        """For each row."""
        return 2 if self.both_ways else 1

    def forward(
        self, *, text: Tensor, words: Tokens, image: Tensor, patches: Tokens, temperatures: tuple[float, ...]
    ) -> list[Tensor]:
        """text: (b, text width), image: (b, width).  Returns `n_vectors` tensors (b, width)."""
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
        """`whole` hears the other modality's tokens, which hear its own."""
        heard = self.ask(whole[:, None], other.values, other.there)
        told = self.ask(other.values, own.values, own.there)
        there = F.pad(other.there, (1, 0), value=True)
        return self._begun(whole, pooled(torch.cat([heard, told], dim=1), there, temperatures))

    def _begun(self, whole: Tensor, heard: Tensor) -> Tensor:
        vectors: Tensor = self.norm(whole * torch.tanh(self.keep(whole)) + heard)
        return vectors


def _one(vectors: Tensor) -> Tokens:
    """A single token for each row."""
    return Tokens(values=vectors[:, None], there=torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device))
