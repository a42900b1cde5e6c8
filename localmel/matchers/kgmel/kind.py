"""Define KGMEL as a kind of matcher: each entity has one fused vector, and mentions are compared with all of them.

In: a KB, encoders, a trained fusion network.  Out: `<kb>/fused/`, and the search over it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_vectors import load_vectors
from localmel.encode.mention_inputs import PictureVectors
from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.errors import BadInput
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.ablated import ablated, check_ablation
from localmel.matchers.kgmel.folder import KIND, KgmelMatcher, load_network, save_network
from localmel.matchers.kgmel.fused import build_entity_index, fuse_kb, load_entity_index, load_fused
from localmel.matchers.kgmel.kb_triples import KbTriples, no_triples
from localmel.matchers.kgmel.mention_vectors import encoded_pictures
from localmel.matchers.kgmel.search import FusedSearch
from localmel.matchers.kgmel.settings import FusionSettings
from localmel.matchers.kind import Indexed, MatcherKind, index_wholes
from localmel.matchers.train.learner import Material, TrainingInputs, Validated, Workers
from localmel.matchers.train.settings import TrainingSettings
from localmel.matchers.trained import MatcherCard, TrainedMatcher
from localmel.records import Split
from localmel.store import progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from localmel.matchers.kgmel.inputs import MentionVectors
    from localmel.matchers.kgmel.network import FusionNetwork

WIDTH = 384
"Default length of fused vectors."


class KgmelKind(MatcherKind):
    """The fusion network of KGMEL."""

    name = KIND
    reads_triples = True
    removable = ("triples", "gate", "text", "image")

    def load(self, folder: Path) -> KgmelMatcher:
        """Load a network into NumPy."""
        return load_network(folder)

    def read_card(self, folder: Path) -> MatcherCard:
        """Return the card by loading the network, which needs no torch and also checks the weights."""
        return load_network(folder)

    def bound_to(self, matcher: TrainedMatcher[Any]) -> KgmelKind:
        """Return this kind, which has no options."""
        return self

    def texts_state(self, kb: KnowledgeBase) -> dict[str, Any]:
        """Return an empty dict: everything KGMEL reads is in the KB."""
        return {}

    def index(self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> Indexed:
        """Compute the fused vectors of all entities."""
        encoders = matcher.encoders_of(encoders)
        encoded, packed, vectors, _ = index_wholes(kb, encoders)
        fused = fuse_kb(kb, packed, vectors, matcher)
        return Indexed(encoded=encoded, recall=build_entity_index(kb, packed, fused, matcher, index))

    def search(self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> FusedSearch:
        """Open the fused vectors, and the index over them if one is requested."""
        encoders = matcher.encoders_of(encoders)
        packed, _ = load_vectors(kb, encoders.text.space)
        return FusedSearch(
            matcher.network,
            load_fused(kb, packed, matcher),
            images=encoders.image,
            index=load_entity_index(kb, packed, matcher, index),
        )

    def check_ablation(self, matcher: TrainedMatcher[Any], without: Collection[str], *, linking: bool) -> None:
        """Raise BadInput if the network was not trained for this ablation."""
        check_ablation(matcher, without, linking=linking)

    def index_ablated(
        self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str, without: Collection[str]
    ) -> KgmelMatcher:
        """Compute the KB's fused vectors without the ablated parts, and return the ablated network."""
        settings, space = matcher.network.settings, encoders.text.space
        if {settings.text_width, settings.triple_width} != {space.width}:
            raise BadInput(
                f"{matcher.folder} fuses text of width {settings.text_width} and triples of width "
                f"{settings.triple_width}; vectors of {space.name} have {space.width}",
                hint="localmel train DATA --kb KB --out runs/NAME",
            )
        matcher.check_spaces(space, encoders.image_space)
        packed, vectors = load_vectors(kb, space)
        shown, vectors = ablated(matcher, vectors, without)
        fuse_kb(kb, packed, vectors, shown)
        return shown

    def check_indexed(self, kb: KnowledgeBase, matcher: MatcherCard, index: str) -> None:
        """Raise unless everything that `search` opens can be opened."""
        packed, _ = load_vectors(kb, matcher.text_space)
        load_fused(kb, packed, matcher)
        load_entity_index(kb, packed, matcher, index)

    # --- training ---

    def new(self, encoders: Encoders, *, width: int | None, without: Collection[str] = ()) -> FusionNetwork:
        """Return an untrained fusion network; it has an image input if pictures are encoded."""
        from localmel.matchers.kgmel.network import FusionNetwork

        space = encoders.text.space
        return FusionNetwork(
            FusionSettings(
                text_width=space.width,
                triple_width=space.width,
                image_width=encoders.image_space.width if encoders.image_space else 0,
                width=width or WIDTH,
                gate="gate" not in without,
            )
        )

    def facts(self, network: nn.Module) -> dict[str, Any]:
        """Return the shape of the network; the loss is part of the training settings."""
        return {"fusion": asdict(_fusion(network).settings)}

    def training_inputs(self, material: Material) -> tuple[TrainingInputs, dict[str, Any]]:
        """Return vectors, triples and pictures of both sides, without the parts that the recipe ablates."""
        from localmel.matchers.kgmel.inputs import EntityVectors, NoTriples

        width, without = material.vectors.space.width, material.without
        sides = dict(material.encoded)
        facts: dict[str, Any] = {}
        if material.encoders.image:
            folder = material.folder.with_name(f"{material.folder.name}.pictures")
            pictures, facts = encoded_pictures(material.splits, material.encoders.image, folder)
            for name, found in pictures.items():
                sides[name] = _with_pictures(sides[name], material.splits[name], found)
        entity_text = material.vectors.entities
        blank = np.zeros(1, np.float16)
        if "text" in without:
            entity_text = np.broadcast_to(blank, entity_text.shape)
            sides = {name: replace(one, text=np.broadcast_to(blank, one.text.shape)) for name, one in sides.items()}
        if "triples" in without:
            sides = {name: replace(one, triples=no_triples(len(one), width)) for name, one in sides.items()}
        images = material.images
        entities = EntityVectors(
            text=entity_text,
            triples=(NoTriples if "triples" in without else KbTriples)(material.packed, material.vectors),
            image=images.vectors if images else None,
            has_image=images.there if images else None,
        )
        train, validation = sides["train"], sides["validation"]
        inputs = TrainingInputs(
            mentions=train,
            validation=validation,
            entities=entities,
            gold=train.gold,
            validation_gold=validation.gold,
            candidates=train.candidates,
        )
        return inputs, facts

    def batch(
        self,
        side: Any,
        rows: NDArray[np.int64],
        *,
        bare: NDArray[np.bool_] | None,
        blind: NDArray[np.bool_],
        device: torch.device,
    ) -> dict[str, Any]:
        """Return the network's arguments for some rows."""
        from localmel.matchers.kgmel.inputs import fusion_inputs

        return fusion_inputs(side, rows, side.triples_of(rows, without=bare), blind, device)

    def loss(
        self,
        network: nn.Module,
        mentions: Any,
        entities: Any,
        gold: Tensor,
        entity_ids: Tensor,
        settings: TrainingSettings,
    ) -> tuple[Tensor, Tensor]:
        """Return the contrastive loss, and its term between mentions and entities."""
        import torch
        from torch.nn import functional as F

        from localmel.matchers.kgmel.losses import contrastive_losses

        one, other = (F.normalize(network(**side), dim=1).float() for side in (mentions, entities))
        with torch.autocast(gold.device.type, enabled=False):
            losses = contrastive_losses(one, other, gold, settings.loss, entity_ids=entity_ids)
        return losses.total, losses.mention_to_entity

    def validate(self, network: nn.Module, inputs: TrainingInputs, workers: Workers, *, nearest: int) -> Validated:
        """Rank the validation golds among all entities by counting."""
        from localmel.matchers.kgmel.ranking import embed_entities, gold_ranks, nearest_entities

        fusion = _fusion(network)
        vectors = embed_entities(fusion, inputs.entities, workers)
        near = nearest_entities(fusion, inputs.mentions, vectors, nearest, workers) if nearest else None
        return Validated(ranks=gold_ranks(fusion, inputs.validation, vectors, workers), nearest=near)

    def appraise(self, network: nn.Module, inputs: TrainingInputs, workers: Workers) -> tuple[Tensor, dict[str, Any]]:
        """Rank the validation golds among all entities by counting."""
        return self.validate(network, inputs, workers, nearest=0).ranks.cpu(), {}

    def save(
        self, folder: Path, network: nn.Module, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
    ) -> None:
        """Write the folder that profiles refer to."""
        weights = {name: value.cpu().numpy() for name, value in network.state_dict().items()}
        save_network(folder, weights, _fusion(network).settings, text_space, facts, images=image_space)


def _fusion(network: nn.Module) -> FusionNetwork:
    from localmel.matchers.kgmel.network import FusionNetwork

    if not isinstance(network, FusionNetwork):
        raise TypeError(f"KGMEL trains a FusionNetwork, not {type(network).__name__}")
    return network


def _with_pictures(encoded: MentionVectors, split: Split, found: PictureVectors) -> MentionVectors:
    named = sum(mention.image is not None for mention in split.mentions)
    if lost := named - int(found.there.sum()):
        progress.note(f"{lost:,} of {named:,} {split.name} mentions name a picture that cannot be read")
    return replace(encoded, image=found.vectors, has_image=found.there)
