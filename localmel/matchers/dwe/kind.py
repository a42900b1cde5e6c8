"""Plug DWE+ into the interface that every kind of matcher implements: create, train, index and search.

Pictures are cut into tiles, which needs no weights; faces, attributes, identities and additional texts are left out
unless they are chosen (`choice.py`).  The choice is stored in the card of the trained matcher."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from torch import Tensor, nn

from localmel.encode.kb_vectors import TextVectors, index_texts, load_texts
from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.errors import CorruptArtifact, UsageError
from localmel.kb.texts import WRITTEN, TextSource, texts_state, the_model
from localmel.matchers.dwe.choice import DweChoice
from localmel.matchers.dwe.features import DweFeatures, DweTable
from localmel.matchers.dwe.losses import DweLossSettings, dwe_losses
from localmel.matchers.dwe.mentions import OwnPortraits, dwe_entities, dwe_mentions
from localmel.matchers.dwe.network import Dwe, DweSettings
from localmel.matchers.dwe.sight import CARD, DweSight, open_sight, sight_of_card
from localmel.matchers.options import MatcherOptions
from localmel.matchers.protocol import Tokens
from localmel.matchers.train.settings import TrainingSettings
from localmel.matchers.trained import TrainedMatcher, read_matcher, save_matcher
from localmel.matchers.two_step_kind import TwoStepKind
from localmel.records import Mention
from localmel.see.identity import Likeness, index_faces, load_faces, portraits_of_pictures

if TYPE_CHECKING:
    from localmel.encode.kb_images import KbImages
    from localmel.encode.kb_vectors import KbVectors
    from localmel.kb.packed import PackedKb
    from localmel.kb.store import KnowledgeBase


_SHOWN = ("image", "objects", "faces", "attributes", "identity")
"Parts that come from a picture."


KIND = "dwe"


class DweKind(TwoStepKind):
    """DWE+ as a kind of matcher."""

    name = KIND
    loss_settings = DweLossSettings()

    def __init__(self, sight: DweSight | None = None, own: OwnPortraits | None = None) -> None:
        """Bind the kind to its inputs.  sight: the chosen ones, by default only tiles; own: the portraits of the KB."""
        self._sight, self._own = sight or open_sight(DweChoice()), own

    def new(self, encoders: Encoders, *, width: int | None, without: Collection[str] = ()) -> Dwe:
        """Create a network, with pictures if the encoders see them.  width: by default that of text vectors."""
        text = encoders.text.space.width
        width = width or text
        heads = next(heads for heads in (8, 4, 2, 1) if width % heads == 0)
        image = encoders.image_space.width if encoders.image_space else 0
        settings = DweSettings(
            text_width=text, word_width=encoders.text.word_width, image_width=image, width=width, heads=heads,
            without=self._sight.choice.without(pictures=bool(image)),
        )  # fmt: skip
        return Dwe(settings)

    def facts(self, network: nn.Module) -> dict[str, Any]:
        """Return the settings of the network and of its loss, and the facts of the models that look at pictures."""
        assert isinstance(network, Dwe)
        return {"dwe": asdict(network.settings), "loss": asdict(self.loss_settings), "pictures": self._sight.facts()}

    def chosen(self, options: MatcherOptions) -> DweKind:
        """Return the kind that uses the chosen inputs."""
        return DweKind(open_sight(options)) if isinstance(options, DweChoice) else self

    def bound_to(self, matcher: TrainedMatcher[Any]) -> DweKind:
        """Return the kind with the inputs this matcher was trained with; see `sight_of_card`."""
        kind = DweKind(sight_of_card(matcher.folder, matcher.card))
        used = kind._sight.choice.without(pictures=matcher.image_space is not None)
        if CARD in matcher.card and set(used) != set(matcher.network.settings.without):
            raise CorruptArtifact(f"the card of {matcher.folder} names parts that its network does not have")
        return kind

    def bound_to_kb(self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None) -> DweKind:
        """Return the kind with this KB's portraits, if identities are used.  Raises BadInput if they are not ready."""
        sight = self._with_writer(kb)
        if not sight.choice.identity or images is None:
            return DweKind(sight)
        portraits = load_faces(kb, packed, images, sight.faces) if sight.faces else portraits_of_pictures(images)
        state = hashlib.sha256(f"{packed.fingerprint} {images.state}".encode()).hexdigest()
        return DweKind(sight, OwnPortraits(portraits=portraits, texts=vectors.entities, state=state))

    def likenesses(self, given: DweFeatures) -> Sequence[Sequence[Likeness]]:
        """Return the similar portraits found when the mentions were encoded."""
        return given.alike

    def texts_state(self, kb: KnowledgeBase) -> dict[str, Any]:
        """Return the state of the additional texts in use."""
        texts = [[source, by, texts_state(kb, source, by)] for source, by in self._texts(kb)]
        return {"texts": texts} if texts else {}

    def loss(
        self,
        network: nn.Module,
        mentions: DweFeatures,
        entities: DweFeatures,
        gold: Tensor,
        entity_ids: Tensor,
        settings: TrainingSettings,
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the loss terms, and the triplet term alone."""
        assert isinstance(network, Dwe)
        views = network.mention_views(mentions), network.entity_views(entities)
        losses = dwe_losses(*views, gold, self.loss_settings, entity_ids=entity_ids, scale=network.scale)
        return losses.total, losses.triplet

    def without_pictures(self, given: DweFeatures, blind: Tensor) -> DweFeatures:
        """Return the features with all parts that come from a picture hidden in the `blind` rows."""
        hidden = {
            name: Tokens(values=part.values, there=part.there & ~blind[:, None].to(part.there.device))
            for name, part in given.parts.items()
            if name in _SHOWN
        }
        return replace(given, parts={**given.parts, **hidden})

    def index_parts(self, kb: KnowledgeBase, packed: PackedKb, encoders: Encoders, images: KbImages | None) -> int:
        """Encode additional texts, and faces in the KB's pictures, if chosen.  Returns the number of texts encoded."""
        encoded = sum(index_texts(kb, encoders.text, source, model=by) for source, by in self._texts(kb))
        if (faces := self._sight.faces) and self._sight.choice.identity and images and encoders.image:
            index_faces(kb, packed, images, faces, encoders.image)
        return encoded

    def entities(self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None) -> DweTable:
        """Return the features of entities: static texts, pictures, and additional texts if chosen."""
        written: list[TextVectors] = [load_texts(kb, vectors.space, source, model=by) for source, by in self._texts(kb)]
        return dwe_entities(vectors, images, written)

    def mentions(self, mentions: Sequence[Mention], encoders: Encoders, *, folder: Path | None = None) -> DweTable:
        """Return the features of the mentions, one row each."""
        return dwe_mentions(mentions, encoders, sight=self._sight, own=self._own, folder=folder)

    def save(
        self, folder: Path, network: nn.Module, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
    ) -> None:
        """Save the network and its facts to a folder, with the chosen inputs in the card."""
        assert isinstance(network, Dwe)
        save_dwe(folder, network, text_space, image_space, {**facts, CARD: self._sight.for_card()})

    def load(self, folder: Path) -> DweFolder:
        """Load the network.  Raises CorruptArtifact if the folder holds none, or a damaged one."""
        return load_dwe(folder)

    def _texts(self, kb: KnowledgeBase) -> list[tuple[TextSource, str]]:
        """Return the additional texts in use, each with the model that wrote it."""
        choice = self._sight.choice
        try:
            return [
                (cast("TextSource", one), the_model(kb, choice.written_by) if one == WRITTEN else "")
                for one in choice.written
            ]
        except UsageError as error:
            raise UsageError(error.fact, hint=error.hint.replace("--model", "--written-by")) from None

    def _with_writer(self, kb: KnowledgeBase) -> DweSight:
        """Return the sight with the writer of the KB's texts fixed, since another model may add texts later."""
        by = dict(self._texts(kb)).get(WRITTEN, "")
        return replace(self._sight, choice=replace(self._sight.choice, written_by=by))


DweFolder: TypeAlias = TrainedMatcher[Dwe]


def save_dwe(
    folder: Path, network: Dwe, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
) -> None:
    """Save the network and its facts to a folder."""
    save_matcher(folder, KIND, network, network.settings, text_space, image_space, facts)


def load_dwe(folder: Path) -> DweFolder:
    """Load a DWE+ network from a folder.  Raises CorruptArtifact if the folder holds none, or a damaged one."""
    return read_matcher(folder, KIND, lambda settings: Dwe(DweSettings(**settings)), title="DWE+")
