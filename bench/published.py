"""The published retriever's arithmetic, written plainly: padded batches, five products for every triple.

What the fusion network is held against, in tests for its values and in `bench/fusion.py` for its speed.  The mask
is an argument: the published loader passes ones everywhere, so that padding takes part; a true mask leaves it out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaddedBatch:
    """One side of a batch; rows with fewer triples than the longest end in zeros."""

    text: Tensor  # (batch, width)
    image: Tensor  # (batch, width)
    relations: Tensor  # (batch, longest, width)
    tails: Tensor  # (batch, longest, width)
    mask: Tensor  # (batch, longest) bool: positions that take part


class _Pair(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(2 * width, width), nn.Linear(width, width)


class _Final(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_text, self.linear_img = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_triple = nn.Linear(width, width)
        self.gate_text = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.gate_img = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())


class PublishedRetriever(nn.Module):
    """Parameters by the published names and in the published order, so that a seed gives the published start."""

    def __init__(
        self, width: int, *, image_share: float = 0.6, temperature: float = 0.1, kept: int = 5, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.image_share, self.temperature, self.kept, self.dropout = image_share, temperature, kept, dropout
        self.final_proj = _Final(width)
        self.reltail_feature_combine = _Pair(width)
        self.reltail_key, self.reltail_value = nn.Linear(width, width), nn.Linear(width, width)
        self.reltail_proj = nn.Linear(width, width)
        self.img_query, self.head_query = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, batch: PaddedBatch) -> Tensor:
        """(batch, width), not normalised."""
        hidden = F.leaky_relu(self.reltail_feature_combine.fc1(torch.cat([batch.tails, batch.relations], dim=-1)))
        hidden = F.dropout(hidden, self.dropout, self.training)
        triples = batch.tails + self.reltail_feature_combine.fc2(hidden)
        keys, values = self.reltail_key(triples), self.reltail_value(triples)
        from_image = (keys @ self.img_query(batch.image)[:, :, None])[..., 0]
        from_text = (keys @ self.head_query(batch.text)[:, :, None])[..., 0]
        scores = (self.image_share * from_image + (1 - self.image_share) * from_text) / keys.shape[-1] ** 0.5
        weights = (scores / self.temperature).masked_fill(~batch.mask, float("-inf")).softmax(dim=1)
        best = weights.topk(min(self.kept, weights.shape[1]), dim=1)
        weights = torch.zeros_like(weights).scatter(1, best.indices, best.values)
        attended = self.reltail_proj((weights[..., None] * values).sum(dim=1))
        final = self.final_proj
        gated_text = final.linear_text(batch.text) * final.gate_text(batch.text)
        gated_image = final.linear_img(batch.image) * final.gate_img(batch.image)
        return final.linear_triple(attended) + gated_text + gated_image


def published_loss(mentions: Tensor, entities: Tensor, temperature: float = 0.1, weight: float = 0.1) -> Tensor:
    """The published sum of three contrastive terms over unit rows; row i of one side belongs to row i of the other."""

    def term(rows: Tensor, columns: Tensor) -> Tensor:
        exponents = (rows @ columns.T / temperature).exp()
        return -(exponents.diagonal() / exponents.sum(dim=1) + 1e-12).log().mean()

    return term(mentions, entities) + weight * term(mentions, mentions) + weight * term(entities, entities)
