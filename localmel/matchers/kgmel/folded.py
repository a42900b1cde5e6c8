"""The fusion network's matrices, multiplied together where nothing stands between them: the same vectors, less work.

In: the weights by name, as arrays of NumPy or of torch.  Out: what surrounds the attention, for both libraries.
For a network at rest only: training learns the matrices one by one.  Knows neither library; `@` is all it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localmel.matchers.kgmel.settings import FusionSettings

Array = Any
"A matrix or a vector of NumPy or of torch."


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """values @ matrix + bias."""

    matrix: Array  # (in, out)
    bias: Array  # (out,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A text or image source of a row: it attends to triples and is added to them through its gate."""

    key: Array  # (in, triple width)
    out: Layer
    gate: Layer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A network as nine products for each row instead of twelve.

    With q = share Wqi v + (1 - share) Wqt h the key of a row is Wk^T q, and the weighted triples only pass Wv, Wo and
    Wz: each chain is one matrix.  Source: KGMEL, section 3.2, as the published code orders it."""

    sources: tuple[Source, ...]  # text, then image where the network has an image space
    key_bias: Array  # (triple width,)
    hidden_key: Array  # (triple width, width)
    hidden_out: Layer  # width -> triple width
    triples_out: Array  # (triple width, width)
    weight_out: Array  # (width,) times the sum of the kept weights
    bias: Array  # (width,)

    def keys(self, inputs: tuple[Array, ...], product: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
        """(b, triple width) and (b, width): what is multiplied with a row's tails and with its hidden layer."""
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
        """(b, width), not normalised.  tails: (b, triple width), hidden: (b, width), weight: (b, 1)."""
        mean = tails + product(hidden, self.hidden_out.matrix) + weight * self.hidden_out.bias
        fused = product(mean, self.triples_out) + weight * self.weight_out + self.bias
        for values, source in zip(inputs, self.sources, strict=True):
            added = product(values, source.out.matrix) + source.out.bias
            if source.gate:
                added = added * sigmoid(product(values, source.gate.matrix) + source.gate.bias)
            fused = fused + added
        return fused


def fold(weights: Mapping[str, Array], settings: FusionSettings) -> Folded:
    """weights: the state of a `FusionNetwork`.  Raises KeyError where one is missing."""
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
