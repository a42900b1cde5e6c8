"""The fusion network as a learner: KGMEL's inputs, its contrastive loss, and a scan of all fused vectors.

In: vectors and triples of mentions and of a KB's entities.  Out: what `training.py` asks for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from localmel.matchers.kgmel.inputs import EntityVectors, MentionVectors, fusion_inputs, rows_of
from localmel.matchers.kgmel.losses import contrastive_losses
from localmel.matchers.kgmel.network import FusionNetwork, FusionSettings
from localmel.matchers.kgmel.ranking import Workers, embed_entities, gold_ranks, nearest_entities
from localmel.matchers.train.batches import Part
from localmel.matchers.train.learner import Validated, WeightsApart
from localmel.matchers.train.settings import TrainingSettings


class FusionLearner:
    """A `Learner`.  Draws new weights."""

    def __init__(
        self,
        fusion: FusionSettings,
        settings: TrainingSettings,
        mentions: MentionVectors,
        validation: MentionVectors,
        entities: EntityVectors,
    ) -> None:
        self._mentions, self._validation, self._entities = mentions, validation, entities
        self.network = FusionNetwork(fusion)
        self.step = _Step(self.network, settings, mentions, entities)
        self.gold: NDArray[Any] = mentions.gold
        self.validation_gold: NDArray[Any] = validation.gold
        self.candidates: NDArray[Any] = mentions.candidates
        self.apart: tuple[WeightsApart, ...] = ()

    def facts(self) -> dict[str, Any]:
        """The shape of the network; its loss is among the settings of training."""
        return {"fusion": asdict(self.network.settings)}

    def validate(self, workers: Workers, *, nearest: int) -> Validated:
        """By counting, among all entities."""
        vectors = embed_entities(self.network, self._entities, workers)
        near = nearest_entities(self.network, self._mentions, vectors, nearest, workers) if nearest else None
        return Validated(ranks=gold_ranks(self.network, self._validation, vectors, workers), nearest=near)


class _Step(nn.Module):
    """Both sides and their loss in one call, as data parallelism wants."""

    def __init__(
        self, network: FusionNetwork, settings: TrainingSettings, mentions: MentionVectors, entities: EntityVectors
    ) -> None:
        super().__init__()
        self.network = network
        self._settings, self._mentions, self._entities = settings, mentions, entities

    def forward(self, part: Part) -> tuple[Tensor, Tensor]:
        device, n = self.network.tail_in.weight.device, len(part.mentions)
        triples = rows_of(self._mentions.triples, part.mentions)
        mention = fusion_inputs(self._mentions, part.mentions, triples, part.blind[:n], device)
        triples = self._entities.triples.of(part.entities, without=part.bare)
        entity = fusion_inputs(self._entities, part.entities, triples, part.blind[n:], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16"):
            mentions, entities = (F.normalize(self.network(**side), dim=1) for side in (mention, entity))
        losses = contrastive_losses(
            mentions.float(),
            entities.float(),
            torch.from_numpy(part.gold).to(device),
            self._settings.loss,
            entity_ids=torch.from_numpy(part.entities).to(device),
        )
        return losses.total, losses.mention_to_entity
