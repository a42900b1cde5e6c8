"""The layers of DWE+: projections, the mention that asks what its picture and sentence hold, and the gated sum.

In: vectors with marks of what is there.  Out: vectors.  Padding has no influence; a row that has none of a part gets a
learnt vector in its place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localmel.matchers.m3el.layers import masked_softmax
from localmel.matchers.protocol import Tokens


class Projection(nn.Module):
    """LN(S x + O relu(I x)): a map that need not be straight, and begins as the values themselves.

    Source: DWE+, non-linear map of each modality.  S begins as identity, O as zero; the published code has no S."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.straight = as_identity(nn.Linear(width_in, width))
        self.inner, self.outer = nn.Linear(width_in, width), nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """(..., width in) -> (..., width)."""
        made: Tensor = self.dropout(self.norm(self.straight(values) + self.outer(F.relu(self.inner(values)))))
        return made


class MentionAttention(nn.Module):
    """The mention asks the vectors of one part; what is like what it asks for answers.

    Source: DWE+, CrossAtt, one for all parts.  Here each part has a further query of its own, so that one can be asked
    for whatever the mention is called ("which attribute is the role?"), and padding is not asked."""

    def __init__(self, width: int, heads: int, parts: Sequence[str]) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = (as_identity(nn.Linear(width, width)) for _ in range(2))
        self.asks = nn.ParameterDict({part: nn.Parameter(torch.zeros(width)) for part in parts})

    def forward(self, part: str, mention: Tensor, tokens: Tokens) -> Tensor:
        """mention: (b, width), tokens: (b, length, width).  Returns (b, width); of no use where no token is there."""
        b, length, width = tokens.values.shape
        query = (self.query(mention) + self.asks[part]).view(b, self.heads, -1)
        keys, values = (layer(tokens.values).view(b, length, self.heads, -1) for layer in (self.key, self.value))
        logits = torch.einsum("bhd,blhd->bhl", query, keys) / math.sqrt(width // self.heads)
        weights = masked_softmax(logits, tokens.there[:, None, :])
        heard: Tensor = self.out(torch.einsum("bhl,blhd->bhd", weights, values).reshape(b, width))
        return heard


class GatedSum(nn.Module):
    """The sum of some parts, each through a gate that hears the part and, where there is one, the mention."""

    def __init__(self, width: int, parts: Sequence[str], *, asked: bool) -> None:
        super().__init__()
        self.gates = nn.ModuleDict({part: nn.Linear(width, width) for part in parts})
        for gate in self.gates.values():
            nn.init.zeros_(gate.weight)  # type: ignore[arg-type]
            nn.init.zeros_(gate.bias)  # type: ignore[arg-type]
        self.hears = nn.Linear(width, width, bias=False) if asked else None

    def forward(self, parts: Mapping[str, Tensor], mention: Tensor | None = None) -> Tensor:
        """parts: each (b, width), at least one."""
        heard = 0.0 if self.hears is None or mention is None else self.hears(mention)
        gated = [torch.sigmoid(self.gates[name](values) + heard) * values for name, values in parts.items()]
        return torch.stack(gated).sum(dim=0)


def masked_mean(tokens: Tokens) -> Tensor:
    """(b, length, width) -> (b, width); zero where nothing is there."""
    total = (tokens.values * tokens.there[..., None]).sum(dim=1)
    return total / tokens.there.sum(dim=1, keepdim=True).clamp(min=1)


def as_identity(linear: nn.Linear) -> nn.Linear:
    """Where both widths are equal; else random, as it was made."""
    if linear.in_features == linear.out_features:
        nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
