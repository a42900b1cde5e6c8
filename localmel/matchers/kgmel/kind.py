"""KGMEL as a kind of matcher: every entity has one fused vector, and mentions are compared with all of them.

In: a KB, encoders, a trained fusion network.  Out: `<kb>/fused/`, and the search over it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.encode.kb_vectors import load_vectors
from localmel.encode.registry import Encoders
from localmel.errors import BadInput
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.ablated import ablated, check_ablation
from localmel.matchers.kgmel.entity_index import build_entity_index, load_entity_index
from localmel.matchers.kgmel.folder import KIND, KgmelMatcher, load_network
from localmel.matchers.kgmel.fused import fuse_kb, load_fused
from localmel.matchers.kgmel.search import FusedSearch
from localmel.matchers.kind import Indexed, MatcherKind, index_wholes
from localmel.matchers.trained import MatcherCard, TrainedMatcher

if TYPE_CHECKING:
    pass


class KgmelKind(MatcherKind):
    """The fusion network of KGMEL."""

    name = KIND

    def load(self, folder: Path) -> KgmelMatcher:
        """Load a network in NumPy."""
        return load_network(folder)

    def read_card(self, folder: Path) -> MatcherCard:
        """Load the network: it needs no torch, and its weights are checked too."""
        return load_network(folder)

    def bound_to(self, matcher: TrainedMatcher[Any]) -> KgmelKind:
        """Return this kind, which has no choices."""
        return self

    def texts_state(self, kb: KnowledgeBase) -> dict[str, Any]:
        """Return nothing: all that KGMEL reads is in the KB."""
        return {}

    def index_features(self, kb: KnowledgeBase, encoders: Encoders) -> int:
        """Encode the KB's texts, and its pictures where the encoder reads them."""
        return index_wholes(kb, encoders)[0]

    def index(self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> Indexed:
        """Fuse the vectors of every entity."""
        encoders = matcher.encoders_of(encoders)
        encoded, packed, vectors, _ = index_wholes(kb, encoders)
        fused = fuse_kb(kb, packed, vectors, matcher)
        return Indexed(encoded=encoded, recall=build_entity_index(kb, packed, fused, matcher, index))

    def search(self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> FusedSearch:
        """Open the fused vectors, and the index over them where one is asked for."""
        encoders = matcher.encoders_of(encoders)
        packed, _ = load_vectors(kb, encoders.text.space)
        return FusedSearch(
            matcher.network,
            load_fused(kb, packed, matcher),
            images=encoders.image,
            index=load_entity_index(kb, packed, matcher, index),
        )

    def check_ablation(self, matcher: TrainedMatcher[Any], without: Collection[str], *, linking: bool) -> None:
        """Raise BadInput where the network was trained otherwise."""
        check_ablation(matcher, without, linking=linking)

    def index_ablated(
        self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str, without: Collection[str]
    ) -> KgmelMatcher:
        """Fuse the KB's vectors without what is left out."""
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
        """Open what `search` opens."""
        packed, _ = load_vectors(kb, matcher.text_space)
        load_fused(kb, packed, matcher)
        load_entity_index(kb, packed, matcher, index)
