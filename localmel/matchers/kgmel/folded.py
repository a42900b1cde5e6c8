"""Fold consecutive matrices of the fusion network into one: the same vectors with less work.

In: the weights by name, as NumPy or torch arrays.  Out: everything around the attention, for both libraries.
For inference only: training learns the matrices separately.  Imports neither library and needs only `@`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localmel.matchers.kgmel.settings import FusionSettings

Array = Any
"A NumPy or torch matrix or vector."


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A linear layer: values @ matrix + bias."""

    matrix: Array  # (in, out)
    bias: Array  # (out,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A row's text or image: it attends to the triples and is added to them through its gate."""

    key: Array  # (in, triple width)
    out: Layer
    gate: Layer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The network as nine products per row instead of twelve.

    With q = share Wqi v + (1 - share) Wqt h the key of a row is Wk^T q, and the weighted triples only pass through Wv,
    Wo and Wz: each chain is one matrix.  Source: KGMEL, section 3.2, in the order of the published code."""

    sources: tuple[Source, ...]  # text, then image where the network has an image space
    key_bias: Array  # (triple width,)
    hidden_key: Array  # (triple width, width)
    hidden_out: Layer  # width -> triple width
    triples_out: Array  # (triple width, width)
    weight_out: Array  # (width,) times the sum of the kept weights
    bias: Array  # (width,)

    def keys(self, inputs: tuple[Array, ...], product: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
        """Return the keys for a row's tails, shape (b, triple width), and for its hidden layer, shape (b, width)."""
        tail_key = self.key_bias
        for values, source in zip(inputs, self.sources, strict=True):
            tail_key = tail_key + product(values, source.key)
        return tail_key, product(tail_key, self.hidden_key)

    def fuse(
        self,
        inputs: tuple[Array, ...],
        tails: Array,
        hidden: Array,
        weight: Array,
        product: Callable[[Array, Array], Array],
        sigmoid: Callable[[Array], Array],
    ) -> Array:
        """Return the fused vectors, not normalised, shape (b, width).

        tails: (b, triple width), hidden: (b, width), weight: (b, 1)."""
        mean = tails + product(hidden, self.hidden_out.matrix) + weight * self.hidden_out.bias
        fused = product(mean, self.triples_out) + weight * self.weight_out + self.bias
        for values, source in zip(inputs, self.sources, strict=True):
            added = product(values, source.out.matrix) + source.out.bias
            if source.gate:
                added = added * sigmoid(product(values, source.gate.matrix) + source.gate.bias)
            fused = fused + added
        return fused


def fold(weights: Mapping[str, Array], settings: FusionSettings) -> Folded:
    """Return the folded network for the state of a `FusionNetwork`.  Raises KeyError for a missing weight."""
    scale = 1.0 / (math.sqrt(settings.width) * settings.temperature)
    shares = {"text": 1.0 - settings.image_share, "image": settings.image_share}
    if not settings.image_width:
        shares = {"text": 1.0}

    def layer(name: str) -> Layer:
        return Layer(matrix=weights[f"{name}.weight"].T, bias=weights[f"{name}.bias"])

    key, last = weights["key.weight"], weights["mix.weight"].T @ weights["triples_out.weight"].T
    return Folded(
        sources=tuple(
            Source(
                key=(scale * share) * (weights[f"{name}_query.weight"].T @ key),
                out=layer(f"{name}_out"),
                gate=layer(f"{name}_gate") if settings.gate else None,
            )
            for name, share in shares.items()
        ),
        key_bias=sum((scale * share) * (weights[f"{name}_query.bias"] @ key) for name, share in shares.items()),
        hidden_key=weights["pair_out.weight"],
        hidden_out=layer("pair_out"),
        triples_out=weights["value.weight"].T @ last,
        weight_out=weights["value.bias"] @ last,
        bias=weights["mix.bias"] @ weights["triples_out.weight"].T + weights["triples_out.bias"],
    )
