"""DWE+ as one of the `kinds`: made, trained and searched by what the product knows of every matcher.

Pictures are cut into tiles, which needs no weights; attributes, identities and written texts are left out unless the
kind is made with them (docs/matchers-dwe.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from localmel.encode.detectors import Tiles
from localmel.encode.objects import Detector
from localmel.encode.space import Space
from localmel.records import Mention
from localmel.retrieve.matchers.dwe import Dwe, DweSettings
from localmel.retrieve.matchers.dwe_features import DweFeatures, DweTable
from localmel.retrieve.matchers.dwe_folder import KIND, DweFolder, load_dwe, save_dwe
from localmel.retrieve.matchers.dwe_losses import DweLossSettings, dwe_losses
from localmel.retrieve.matchers.dwe_mentions import dwe_entities, dwe_mentions
from localmel.retrieve.matchers.protocol import Tokens
from localmel.retrieve.matchers.token_encoders import TokenEncoders
from localmel.settings.attributes import AttributeSettings

if TYPE_CHECKING:
    from localmel.encode.kb_images import KbImages
    from localmel.encode.kb_vectors import KbVectors
    from localmel.kb.packed import PackedKb
    from localmel.kb.store import KnowledgeBase
    from localmel.retrieve.matchers.kinds import Advance, Announce

_SHOWN = ("image", "objects", "faces", "attributes", "identity")
"Parts that come from a picture."


class DweKind:
    """A `MatcherKind`."""

    name = KIND
    loss_settings = DweLossSettings()

    def __init__(self, detector: Detector | None = None, attributes: AttributeSettings | None = None) -> None:
        """detector: what cuts pictures, tiles where none is given; attributes: what CLIP is asked, if anything."""
        self._detector, self._attributes = detector or Tiles(), attributes

    def new(self, encoders: TokenEncoders, *, width: int | None) -> Dwe:
        """With pictures where they are encoded, else the text half alone.  As wide as texts unless `width` is given."""
        text = encoders.text.space.width
        width = width or text
        heads = next(heads for heads in (8, 4, 2, 1) if width % heads == 0)
        image = encoders.image_space.width if encoders.image_space else 0
        unseen = ["faces", "identity", "written", *([] if self._attributes and image else ["attributes"])]
        settings = DweSettings(
            text_width=text, word_width=encoders.text.word_width, image_width=image, width=width, heads=heads,
            without=tuple(unseen),
        )  # fmt: skip
        return Dwe(settings)

    def facts(self, network: nn.Module) -> dict[str, Any]:
        """Of the network, of its loss, and of what looks at pictures."""
        assert isinstance(network, Dwe)
        looked_at = {
            "detector": dict(self._detector.facts),
            "attributes": asdict(self._attributes) if self._attributes else None,
        }
        return {"dwe": asdict(network.settings), "loss": asdict(self.loss_settings), "pictures": looked_at}

    def loss(
        self, network: nn.Module, mentions: DweFeatures, entities: DweFeatures, gold: Tensor, entity_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum, and the triplet term."""
        assert isinstance(network, Dwe)
        views = network.mention_views(mentions), network.entity_views(entities)
        losses = dwe_losses(*views, gold, self.loss_settings, entity_ids=entity_ids, scale=network.scale)
        return losses.total, losses.triplet

    def without_pictures(self, given: DweFeatures, blind: Tensor) -> DweFeatures:
        """Nothing that comes from a picture is there."""
        hidden = {
            name: Tokens(values=part.values, there=part.there & ~blind[:, None].to(part.there.device))
            for name, part in given.parts.items()
            if name in _SHOWN
        }
        return replace(given, parts={**given.parts, **hidden})

    def index(
        self,
        kb: KnowledgeBase,
        packed: PackedKb,
        encoders: TokenEncoders,
        images: KbImages | None,
        *,
        on_total: Announce = lambda _what, _total: None,
        on_done: Advance = lambda _: None,
    ) -> int:
        """Nothing: whole texts and pictures are all that is looked at of an entity."""
        return 0

    def entities(self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None) -> DweTable:
        """Their static texts and pictures."""
        return dwe_entities(vectors, images)

    def mentions(
        self,
        mentions: Sequence[Mention],
        encoders: TokenEncoders,
        *,
        folder: Path | None = None,
        on_total: Announce = lambda _what, _total: None,
        on_done: Advance = lambda _: None,
    ) -> DweTable:
        """See `dwe_mentions`."""
        return dwe_mentions(
            mentions, encoders, detector=self._detector, attributes=self._attributes, folder=folder,
            on_total=on_total, on_done=on_done,
        )  # fmt: skip

    def save(
        self, folder: Path, network: nn.Module, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
    ) -> None:
        """See `save_matcher`."""
        assert isinstance(network, Dwe)
        save_dwe(folder, network, text_space, image_space, facts)

    def load(self, folder: Path) -> DweFolder:
        """See `read_matcher`."""
        return load_dwe(folder)
