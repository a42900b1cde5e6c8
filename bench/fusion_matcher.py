"""The fusion network as a matcher: its vectors say all there is to say.

In: what `FusionNetwork.forward` takes.  Out: sides without tokens; scores are cosines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localmel.matchers.kgmel.inputs import EntityVectors, fusion_inputs
from localmel.matchers.kgmel.network import FusionNetwork
from localmel.matchers.kgmel.ranking import unit_rows
from localmel.matchers.protocol import Side


class FusionMatcher:
    """A `Matcher` of the fusion network's inputs.  Both sides share its weights."""

    def __init__(self, network: FusionNetwork) -> None:
        self.network = network

    @property
    def width(self) -> int:
        """Of the fused vectors."""
        return self.network.settings.width

    @property
    def vectors_say_all(self) -> bool:
        """They do."""
        return True

    def mentions(self, given: Mapping[str, Any]) -> Side:
        """Unit vectors; with dropout and gradients while the network is in training."""
        return self._fused(given, "mention")

    def entities(self, given: Mapping[str, Any]) -> Side:
        """The same."""
        return self._fused(given, "entity")

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """Cosines, (m, n) or (m, k) as `Matcher.scores` says."""
        of = "nd" if entities.vectors.dim() == 2 else "mnd"
        return torch.einsum(f"md,{of}->mn", mentions.vectors, entities.vectors)

    def _fused(self, given: Mapping[str, Any], what: str) -> Side:
        made = self.network(**given) if self.network.training else self.network.embed(**given)
        return Side(vectors=unit_rows(made, what, np.arange(len(made))))


class FusionFeatures:
    """The entities of a KB as the fusion network takes them; an `EntityFeatures`."""

    def __init__(self, entities: EntityVectors, device: torch.device | None = None) -> None:
        self._entities, self._device = entities, device or torch.device("cpu")

    def __len__(self) -> int:
        return len(self._entities.text)

    def of(self, positions: NDArray[np.int64]) -> dict[str, Any]:
        """The arguments of `FusionNetwork.forward` for these entities; all that have a picture show it."""
        shown = np.zeros(len(positions), bool)
        return fusion_inputs(self._entities, positions, self._entities.triples.of(positions), shown, self._device)
