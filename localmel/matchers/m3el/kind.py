"""Plug M3EL into the interface that every kind of matcher implements: create, train, index and search."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.matchers.m3el.kb_tokens import index_patches, index_words, kb_features
from localmel.matchers.m3el.losses import M3elLossSettings, m3el_losses
from localmel.matchers.m3el.mention_tokens import mention_features
from localmel.matchers.m3el.network import M3el, M3elSettings
from localmel.matchers.protocol import Features, FeatureTable
from localmel.matchers.train.settings import TrainingSettings
from localmel.matchers.trained import TrainedMatcher, read_matcher, save_matcher
from localmel.matchers.two_step_kind import TwoStepKind
from localmel.records import Mention

if TYPE_CHECKING:
    from localmel.encode.kb_images import KbImages
    from localmel.encode.kb_vectors import KbVectors
    from localmel.kb.packed import PackedKb
    from localmel.kb.store import KnowledgeBase


_TEMPERATURE = 0.05
"The temperature of the fusion network's loss."


KIND = "m3el"


class M3elKind(TwoStepKind):
    """M3EL as a kind of matcher."""

    name = KIND
    loss_settings = M3elLossSettings()

    def new(self, encoders: Encoders, *, width: int | None, without: Collection[str] = ()) -> M3el:
        """Create a network, with pictures if the encoders see them, otherwise with the text half alone.

        Scores of wholes start as cosines divided by _TEMPERATURE.  In the published code their norms start at 1: the
        scores of frozen vectors then reach the hundreds, and their softmax stays at 0 or 1 for a whole epoch."""
        image = encoders.image
        settings = M3elSettings(
            text_width=encoders.text.space.width,
            word_width=encoders.text.word_width,
            image_width=image.image_space.width if image else 0,
            patch_width=image.patch_width if image else 0,
        )
        network = M3el(settings if width is None else replace(settings, width=width))
        norms = [network.text_norm, *([network.image_norm] if image else [])]
        for norm in norms:
            nn.init.constant_(norm.weight, math.sqrt(2 / _TEMPERATURE / norm.weight.numel()))  # half of a part's score
        return network

    def facts(self, network: nn.Module) -> dict[str, Any]:
        """Return the settings of the network and of its loss."""
        assert isinstance(network, M3el)
        return {"m3el": asdict(network.settings), "loss": asdict(self.loss_settings)}

    def loss(
        self,
        network: nn.Module,
        mentions: Features,
        entities: Features,
        gold: Tensor,
        entity_ids: Tensor,
        settings: TrainingSettings,
    ) -> tuple[Tensor, Tensor]:
        """Return the joint loss, and the loss of the score alone."""
        assert isinstance(network, M3el)
        parts = network.parts(network.mentions(mentions), network.entities(entities))
        wholes = network.whole_vectors(mentions), network.whole_vectors(entities)
        losses = m3el_losses(parts, *wholes, gold, self.loss_settings, entity_ids=entity_ids)
        return losses.total, losses.score

    def without_pictures(self, given: Features, blind: Tensor) -> Features:
        """Return the features with the pictures of the `blind` rows hidden: a row without patches has no picture."""
        if given.is_patch is None:
            return given
        return replace(given, is_patch=given.is_patch & ~blind[:, None].to(given.is_patch.device))

    def index_parts(self, kb: KnowledgeBase, packed: PackedKb, encoders: Encoders, images: KbImages | None) -> int:
        """Encode words, and patches if pictures are used.  Returns the number of texts and pictures encoded."""
        encoded = index_words(kb, packed, encoders.text)
        if encoders.image and images:
            encoded += index_patches(kb, packed, images, encoders.image)
        return encoded

    def entities(
        self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None
    ) -> FeatureTable:
        """Return the features of the KB's entities, as encoded by `index_parts`."""
        return kb_features(kb, packed, vectors, images)

    def mentions(self, mentions: Sequence[Mention], encoders: Encoders, *, folder: Path | None = None) -> FeatureTable:
        """Return the features of the mentions, one row each."""
        return mention_features(mentions, encoders, folder=folder)

    def save(
        self, folder: Path, network: nn.Module, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
    ) -> None:
        """Save the network and its facts to a folder."""
        assert isinstance(network, M3el)
        save_m3el(folder, network, text_space, image_space, facts)

    def load(self, folder: Path) -> M3elFolder:
        """Load the network.  Raises CorruptArtifact if the folder holds none, or a damaged one."""
        return load_m3el(folder)


M3elFolder: TypeAlias = TrainedMatcher[M3el]


def save_m3el(
    folder: Path, network: M3el, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
) -> None:
    """Save the network and its facts to a folder."""
    save_matcher(folder, KIND, network, network.settings, text_space, image_space, facts)


def load_m3el(folder: Path) -> M3elFolder:
    """Load an M3EL network from a folder.  Raises CorruptArtifact if the folder holds none, or a damaged one."""
    return read_matcher(folder, KIND, lambda settings: M3el(M3elSettings(**settings)), title="M3EL")
