"""Share the code of M3EL and DWE+ as kinds: entities are prepared once per matcher, and searched in two steps.

In: a KB, encoders of words and patches, a trained matcher.  Out: `<kb>/matched/<weights>/`, the matcher's sides of all
entities; next to it the index of the first step, if requested; and the search over both.  They are tied to the KB, to
its pictures if the matcher uses them, and to its weights; existing valid parts are reused."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages, load_images
from localmel.encode.kb_vectors import KbVectors, load_vectors
from localmel.encode.registry import Encoders
from localmel.errors import BadInput, CorruptArtifact, UsageError, shell_line
from localmel.index import ExactSettings, choose
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kind import SCAN, Found, Indexed, MatcherKind, index_kind, kb_state
from localmel.matchers.train.learner import Material, TrainingInputs, Validated, Workers
from localmel.matchers.trained import SIDES_KIND, SIDES_VERSION, MatcherCard, TrainedMatcher, read_card
from localmel.records import Alike, Mention, Triple
from localmel.see.identity import Likeness
from localmel.settings import EncodeSettings
from localmel.store import progress
from localmel.store.artifacts import read_manifest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from localmel.matchers.prepared import PreparedSides
    from localmel.matchers.protocol import EntityFeatures, Side
    from localmel.matchers.two_step import TwoStepSearch

_BEST, _SIXTEENTH = 0.639, 0.402
"Mean cosines of the network that ships, over 5,499 validation mentions against 146,175 entities."


class TwoStepKind(MatcherKind):
    """A kind whose networks are `Matcher`s and nn.Modules, with features of its own."""

    # --- defined by each kind ---

    @abstractmethod
    def without_pictures(self, given: Any, blind: Tensor) -> Any:
        """Return the same features without pictures in rows where `blind` (b,) is true."""

    @abstractmethod
    def entities(
        self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None
    ) -> EntityFeatures[Any]:
        """Return the features of a KB's entities.  Raises BadInput, with the command, if something is missing."""

    @abstractmethod
    def mentions(
        self, mentions: Sequence[Mention], encoders: Encoders, *, folder: Path | None = None
    ) -> EntityFeatures[Any]:
        """Return the features of mentions.  With a folder, they are stored there and reused the next time."""

    def bound_to(self, matcher: TrainedMatcher[Any]) -> TwoStepKind:
        """Return this kind; kinds with options override this to take the matcher's."""
        return self

    def bound_to_kb(
        self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None
    ) -> TwoStepKind:
        """Return this kind; kinds that compare portraits override this to take the KB's."""
        return self

    def likenesses(self, given: Any) -> Sequence[Sequence[Likeness]]:
        """Return for each mention the entities with similar pictures; empty if this kind does not look for any."""
        return ()

    def texts_state(self, kb: KnowledgeBase) -> dict[str, Any]:
        """Return an empty dict; kinds that read further texts override this."""
        return {}

    # --- training ---

    def training_inputs(self, material: Material) -> tuple[TrainingInputs, dict[str, Any]]:
        """Return the kind's features of both sides; those of mentions are stored with the run."""
        folder = material.folder.with_name(f"{material.folder.name}.{self.name}")
        parts = {
            part: self.mentions(split.mentions, material.encoders, folder=folder / part)
            for part, split in material.splits.items()
        }
        train, validation = material.encoded["train"], material.encoded["validation"]
        inputs = TrainingInputs(
            mentions=parts["train"],
            validation=parts["validation"],
            entities=self.entities(material.kb, material.packed, material.vectors, material.images),
            gold=train.gold,
            validation_gold=validation.gold,
            candidates=train.candidates,
        )
        return inputs, self.texts_state(material.kb)

    def batch(
        self,
        side: Any,
        rows: NDArray[np.int64],
        *,
        bare: NDArray[np.bool_] | None,
        blind: NDArray[np.bool_],
        device: torch.device,
    ) -> Any:
        """Return the features of some rows; there are no triples to hide."""
        import torch

        return self.without_pictures(side.of(rows), torch.from_numpy(blind))

    def validate(self, network: nn.Module, inputs: TrainingInputs, workers: Workers, *, nearest: int) -> Validated:
        """Rank the validation mentions by two-step search."""
        from localmel.matchers.search_quality import validated

        return validated(network, inputs, workers, nearest=nearest)

    def appraise(self, network: nn.Module, inputs: TrainingInputs, workers: Workers) -> tuple[Tensor, dict[str, Any]]:
        """Rank with the search used for linking, and return how well it agrees with scoring all pairs."""
        from localmel.matchers.search_quality import appraised

        ranks, quality = appraised(network, inputs)
        progress.note(quality.note(len(inputs.entities)))
        return ranks, {"search": asdict(quality)}

    # --- a kind of matcher ---

    def read_card(self, folder: Path) -> MatcherCard:
        """Return the card without loading the weights."""
        return read_card(folder)

    def index(self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> Indexed:
        """Encode the kind's features, and store this matcher's sides of every entity."""
        from localmel.matchers.prepared import index_sides, prepare_entities

        encoders = matcher.encoders_of(encoders)
        encoded = self.index_features(kb, encoders)
        known = self._known(kb, matcher)
        progress.begin(f"preparing entities for {matcher.kind}", len(known.packed.rows))
        entities = self.entities(kb, known.packed, known.vectors, known.images)
        sides = prepare_entities(matcher.network, entities, matched_folder(kb, matcher), known.facts)
        if (chosen := index_kind(index, len(sides))) != SCAN:
            index_sides(sides, choose(chosen, len(sides)), _index_folder(kb, matcher, chosen))
        return Indexed(encoded=encoded)

    def search(
        self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str
    ) -> TwoStepKbSearch:
        """Open the search over the prepared entities and their index."""
        from localmel.matchers.prepared import PreparedSides, index_sides
        from localmel.matchers.two_step import TwoStepSearch

        words = matcher.encoders_of(encoders)
        with_it = (
            ""
            if words.text.space.name == EncodeSettings().model
            else "with the --profile whose encoder it was trained for"
        )
        again = shell_line("localmel index", kb.folder, "--matcher", matcher.folder, note=with_it)
        known = self._known(kb, matcher)
        try:
            sides = PreparedSides(matched_folder(kb, matcher), known.facts)
        except FileNotFoundError:
            raise BadInput(
                f"kb {kb.name!r} was never made ready for the matcher {matcher.folder} ({len(kb):,} entities)",
                hint=again,
            ) from None
        except CorruptArtifact as error:
            raise CorruptArtifact(error.fact, hint=again) from None
        except BadInput:
            raise BadInput(
                f"kb {kb.name!r} has changed since it was made ready for {matcher.folder}", hint=again
            ) from None
        try:
            kind = self.bound_to_kb(kb, known.packed, known.vectors, known.images)
        except (BadInput, CorruptArtifact) as error:
            raise type(error)(error.fact, hint=again) from None
        chosen = index_kind(index, len(sides))
        settings = ExactSettings() if chosen == SCAN else choose(chosen, len(sides))
        found, longest = index_sides(sides, settings, None if chosen == SCAN else _index_folder(kb, matcher, chosen))
        steps: TwoStepSearch[Any] = TwoStepSearch(matcher.network, sides, found, longest)
        return TwoStepKbSearch(kind, kb, matcher, words, known.packed, sides, steps)

    def check_indexed(self, kb: KnowledgeBase, matcher: MatcherCard, index: str) -> None:
        """Raise BadInput or CorruptArtifact unless entities were prepared from the current KB and pictures.

        Texts from elsewhere, which DWE+ may read, and an index over the entities are not checked."""
        packed, _ = load_vectors(kb, matcher.text_space)
        images = load_images(kb, packed, matcher.image_space) if matcher.image_space else None
        try:
            manifest = read_manifest(matched_folder(kb, matcher), kind=SIDES_KIND, version=SIDES_VERSION)
        except FileNotFoundError:
            raise BadInput(f"kb {kb.name!r} was never made ready for the matcher {matcher.folder}") from None
        if (manifest.get("matcher"), manifest.get("made_from")) != (matcher.sha256, kb_state(packed, images)):
            raise BadInput(f"kb {kb.name!r} has changed since it was made ready for {matcher.folder}")

    def check_ablation(self, matcher: TrainedMatcher[Any], without: Collection[str], *, linking: bool) -> None:
        """Raise UsageError for anything but names and counts, which the matcher does not use."""
        if unheard := sorted(set(without) - {"names", "counts"}):
            raise UsageError(
                f"cannot evaluate the matcher {matcher.folder} without {unheard[0]}: it would still see it",
                hint="localmel train DATA --kb KB --matcher KIND --without image --out runs/NAME",
            )

    def index_ablated(
        self, kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str, without: Collection[str]
    ) -> TrainedMatcher[Any]:
        """Make the KB ready unless the search opens, and return the matcher."""
        try:
            self.search(kb, matcher, encoders, index)
        except (BadInput, CorruptArtifact):
            self.index(kb, matcher, encoders, index)
        return matcher

    def _known(self, kb: KnowledgeBase, matcher: MatcherCard) -> _Known:
        """Return the KB's own vectors, and the facts that the prepared entities depend on."""
        packed, vectors = load_vectors(kb, matcher.text_space)
        images = load_images(kb, packed, matcher.image_space) if matcher.image_space else None
        facts = {"matcher": matcher.sha256, "made_from": kb_state(packed, images), **self.texts_state(kb)}
        return _Known(packed=packed, vectors=vectors, images=images, facts=facts)


class TwoStepKbSearch:
    """A `KbSearch` over prepared entities, using the matcher's own scores."""

    def __init__(
        self,
        kind: TwoStepKind,
        kb: KnowledgeBase,
        matcher: TrainedMatcher[Any],
        encoders: Encoders,
        packed: PackedKb,
        sides: PreparedSides,
        steps: TwoStepSearch[Any],
    ) -> None:
        self._kind, self._kb, self._matcher, self._encoders = kind, kb, matcher, encoders
        self._packed, self._sides, self._steps = packed, sides, steps

    def shown(
        self,
        mentions: Sequence[Mention],
        stated: Sequence[Sequence[Triple]] = (),
        encode: Callable[[Sequence[str]], NDArray[Any]] | None = None,
    ) -> Any:
        """Return the features of mentions; triples are ignored."""
        return self._kind.mentions(mentions, self._encoders).of(np.arange(len(mentions)))

    def best(self, shown: Any, k: int) -> Found:
        """Return the best k of all entities for each mention."""
        return self._steps.search(shown, k)

    def scores_of(self, shown: Any, places: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the scores of each mention with the entities at its places."""
        import torch

        scores = []
        with torch.no_grad():
            mentions: Side = self._matcher.network.mentions(shown)
            for number, positions in enumerate(places):
                found = np.zeros(0, np.float32)
                if len(positions):
                    one = mentions.rows(torch.tensor([number]))
                    found = self._matcher.network.scores(one, self._sides.of(positions))[0].float().cpu().numpy()
                scores.append(found)
        return scores

    def as_cosines(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Return scores mapped linearly to the scale of fused cosines, in the same order.

        The mapping takes the mean scores of the best and the 16th entity over the matcher's validation mentions (from
        its card) to those of the fusion network that ships. Probabilities are not fitted to it."""
        best, sixteenth = self.levels
        slope = (_BEST - _SIXTEENTH) / (best - sixteenth)
        cosines: NDArray[Any] = np.clip(_SIXTEENTH + slope * (scores - sixteenth), -1.0, 1.0).astype(np.float32)
        return cosines

    def alike(self, shown: Any) -> list[tuple[Alike, ...]]:
        """Return the entities with pictures similar to each mention's; empty if the kind does not look for any."""
        return [self._shown_alike(row) for row in self._kind.likenesses(shown)]

    def _shown_alike(self, row: Sequence[Likeness]) -> tuple[Alike, ...]:
        entities = self._kb.entities_at([int(self._packed.rows[one.entity]) for one in row])
        return tuple(
            Alike(entity_id=entity.id, label=entity.label, similarity=one.similarity)
            for entity, one in zip(entities, row, strict=True)
        )

    @cached_property
    def levels(self) -> tuple[float, float]:
        """Return the mean scores of the best and of the 16th entity.  Raises CorruptArtifact for a card without
        them."""
        try:
            search: Mapping[str, Any] = self._matcher.card["search"]
            best, sixteenth = float(search["first"]), float(search["last"])
            if not best > sixteenth:
                raise ValueError(f"the best has {best}, the 16th {sixteenth}")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptArtifact(
                f"the card of {self._matcher.folder} does not say where its scores lie ({error})",
                hint=shell_line("ls", self._matcher.folder, note="localmel train writes one that does"),
            ) from None
        return best, sixteenth


def matched_folder(kb: KnowledgeBase, matcher: MatcherCard) -> Path:
    """Return the folder of a KB's prepared entities for a matcher."""
    return kb.folder / "matched" / matcher.sha256[:16]


def _index_folder(kb: KnowledgeBase, matcher: MatcherCard, kind: str) -> Path:
    folder = matched_folder(kb, matcher)
    return folder.with_name(f"{folder.name}.{kind}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    packed: PackedKb
    vectors: KbVectors
    images: KbImages | None
    facts: dict[str, Any]
