"""Define the interface that KGMEL, M3EL and DWE+ implement as kinds of matchers.

In: a KB, encoders, mentions.  Out: a KB that is indexed for a trained matcher, and a search over it.
A kind is one class below `MatcherKind` and one line in `registry.py`.  Imports no torch, as KGMEL links without it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages, index_images, load_images
from localmel.encode.kb_vectors import KbVectors, index_kb, load_vectors
from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.index import LARGE_FROM, Recall
from localmel.index.settings import AUTO
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.options import MatcherOptions
from localmel.matchers.train.learner import Material, TrainingInputs, Validated, Workers
from localmel.matchers.train.settings import TrainingSettings
from localmel.matchers.trained import MatcherCard, TrainedMatcher
from localmel.records import Alike, Mention, Triple
from localmel.store import progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SCAN, INT8 = "scan", "int8"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The best k entities of m mentions."""

    scores: NDArray[Any]  # (m, k) float32, best first; -inf where the KB has fewer than k entities
    entities: NDArray[Any]  # (m, k) int64 positions; NO_ID where the score is -inf
    n_scored: int
    "Pairs of a mention and an entity that the matcher's own score was computed for, beyond inner products of vectors."


class KbSearch(Protocol):
    """Searches one KB for mentions, by one trained matcher."""

    def shown(
        self,
        mentions: Sequence[Mention],
        stated: Sequence[Sequence[Triple]],
        encode: Callable[[Sequence[str]], NDArray[Any]],
    ) -> Any:
        """Return the matcher's features of m mentions.  stated: the triples about each; encode: texts -> vectors."""
        ...

    def best(self, shown: Any, k: int) -> Found:
        """Return the best k of all entities for each mention."""
        ...

    def scores_of(self, shown: Any, places: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the scores of given entities, (n,) float32 per mention.  places: positions, (n,) per mention."""
        ...

    def as_cosines(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Return scores (n,) on the scale of the fused cosines that the evidence scorer was fitted on."""
        ...

    def alike(self, shown: Any) -> list[tuple[Alike, ...]]:
        """Return for each mention the entities with similar pictures; an empty list if the matcher looks for none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """The work that made a KB ready."""

    encoded: int
    "Texts (and pictures, where the matcher looks at parts of them) that were encoded."
    recall: Recall | None = None
    "Recall of a newly built index against an exact search; None for a scan or an existing index."


class MatcherKind(ABC):
    """One kind of matcher: how it is loaded, how a KB is indexed for it, and how it searches."""

    name: ClassVar[str]

    @abstractmethod
    def load(self, folder: Path) -> TrainedMatcher[Any]:
        """Load a trained matcher.  Raises CorruptArtifact for a folder that is damaged or holds something else."""

    @abstractmethod
    def read_card(self, folder: Path) -> MatcherCard:
        """Return the card in a matcher's folder, without loading torch.  Raises CorruptArtifact."""

    @abstractmethod
    def bound_to(self, matcher: TrainedMatcher[Any]) -> MatcherKind:
        """Return this kind with the options that a matcher was trained with.

        Raises MissingWeights, MissingExtra, BadInput or CorruptArtifact where these cannot be met on this machine."""

    @abstractmethod
    def texts_state(self, kb: KnowledgeBase) -> dict[str, Any]:
        """Return the state of texts that the matcher reads and the KB's fingerprint does not cover, if any."""

    def index_features(self, kb: KnowledgeBase, encoders: Encoders) -> int:
        """Encode all features used by matchers of this kind.  Returns how many texts and pictures were encoded."""
        encoded, packed, _, images = index_wholes(kb, encoders)
        return encoded + self.index_parts(kb, packed, encoders, images)

    def index_parts(self, kb: KnowledgeBase, packed: PackedKb, encoders: Encoders, images: KbImages | None) -> int:
        """Encode features beyond whole texts and pictures.  Returns how many were encoded."""
        return 0

    def bound_to_kb(
        self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None
    ) -> MatcherKind:
        """Return this kind with the data of this KB that it compares with mentions before scoring.

        Raises BadInput where the KB was not indexed for that, or has changed since."""
        return self

    @abstractmethod
    def index(self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> Indexed:
        """Make `kb` ready for a matcher of this kind, and build the kind of index that is named.

        Existing valid parts are reused.  Raises BadInput where the matcher was trained for other encoders."""

    @abstractmethod
    def search(self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> KbSearch:
        """Open the search.  Raises BadInput, with the command, where the KB is not ready or has changed."""

    @abstractmethod
    def check_ablation(self, matcher: TrainedMatcher[Any], without: Collection[str], *, linking: bool) -> None:
        """Raise if an evaluation leaves out something that this matcher would still use.

        linking: whether the evidence scorer weighs the matcher's scores."""

    @abstractmethod
    def index_ablated(
        self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str, without: Collection[str]
    ) -> TrainedMatcher[Any]:
        """Make an indexed KB ready for an evaluation, and return the matcher without the ablated parts."""

    @abstractmethod
    def check_indexed(self, kb: KnowledgeBase, matcher: MatcherCard, index: str) -> None:
        """Raise BadInput or CorruptArtifact unless the KB is ready.  Loads no torch and reads as little as possible."""

    # --- training ---

    reads_triples: ClassVar[bool] = False
    "Whether training moves pieces of sentences into pictures, as triples of visible text."

    removable: ClassVar[tuple[str, ...]] = ("image",)
    "Parts that a network of this kind can be trained without."

    def chosen(self, options: MatcherOptions) -> MatcherKind:
        """Return this kind with the user's options.  Raises where a detector or model cannot be used here."""
        return self

    @abstractmethod
    def new(self, encoders: Encoders, *, width: int | None, without: Collection[str] = ()) -> nn.Module:
        """Return an untrained network for the vectors of these encoders; torch draws its weights.

        width: of the vectors that are compared; None takes the kind's own.  without: parts it is trained without."""

    @abstractmethod
    def facts(self, network: nn.Module) -> dict[str, Any]:
        """Return the settings of the network and its loss, on which a run depends besides data and schedule."""

    @abstractmethod
    def training_inputs(self, material: Material) -> tuple[TrainingInputs, dict[str, Any]]:
        """Return the features of both sides, and their sources besides texts and the KB's pictures."""

    @abstractmethod
    def batch(
        self,
        side: Any,
        rows: NDArray[np.int64],
        *,
        bare: NDArray[np.bool_] | None,
        blind: NDArray[np.bool_],
        device: torch.device,
    ) -> Any:
        """Return features of rows (b,) of one side: no triples where `bare` is true, no pictures where `blind` is."""

    @abstractmethod
    def loss(
        self,
        network: nn.Module,
        mentions: Any,
        entities: Any,
        gold: Tensor,
        entity_ids: Tensor,
        settings: TrainingSettings,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, and the term of it that tells mentions' entities apart; both without axes.

        gold: (m,) row of each mention's entity among the n; entity_ids: (n,), equal where rows are one entity."""

    @abstractmethod
    def validate(self, network: nn.Module, inputs: TrainingInputs, workers: Workers, *, nearest: int) -> Validated:
        """Rank the validation mentions, during training; see `Learner.validate`."""

    @abstractmethod
    def appraise(self, network: nn.Module, inputs: TrainingInputs, workers: Workers) -> tuple[Tensor, dict[str, Any]]:
        """Rank the validation mentions (m,) at the end, and return further facts for the card."""

    @abstractmethod
    def save(
        self, folder: Path, network: nn.Module, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
    ) -> None:
        """Write the folder of a trained network, with `facts` in its card."""


def index_wholes(kb: KnowledgeBase, encoders: Encoders) -> tuple[int, PackedKb, KbVectors, KbImages | None]:
    """Encode the whole texts and pictures of a KB.  Returns how many texts were new, and all that was made."""
    encoded = index_kb(kb, encoders.text)
    packed, vectors = load_vectors(kb, encoders.text.space)
    if encoders.image is None:
        return encoded, packed, vectors, None
    found = index_images(kb, packed, encoders.image)
    if note := found.note():
        progress.note(note)
    return encoded, packed, vectors, load_images(kb, packed, encoders.image.image_space)


def kb_state(packed: PackedKb, images: KbImages | None) -> str:
    """Return the state that entity vectors depend on: the KB, and its pictures if they are used."""
    if images is None:
        return packed.fingerprint
    return hashlib.sha256(f"{packed.fingerprint} {images.state}".encode()).hexdigest()


def index_kind(kind: str, n_entities: int) -> str:
    """Resolve `auto`: a scan in memory below LARGE_FROM entities, int8 from there on; any other kind is itself."""
    if kind != AUTO:
        return kind
    return INT8 if n_entities >= LARGE_FROM else SCAN
