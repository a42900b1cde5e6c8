"""A trained matcher and a KB: what is made ready for it once, and the search over what was made.

In: a KB, the folder of a matcher or only its kind, a profile's encoders.  Out: `<kb>/matched/<weights>/`, the sides of
all entities, and beside it the index of the first step where a kind of index is asked for; tied to the state of the
KB, to its pictures where they are looked at, and to the matcher's weights.  What stands and fits is not made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages, index_images, load_images
from localmel.encode.kb_vectors import KbVectors, index_kb, load_vectors
from localmel.encode.registry import Encoders
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.index import ExactSettings, choose
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.folder import MatcherFolder
from localmel.matchers.kgmel.entity_index import SCAN, kind_for
from localmel.matchers.kgmel.fused import fused_state
from localmel.matchers.registry import MatcherKind, kind_of
from localmel.records import Alike, Mention
from localmel.store import progress
from localmel.weights.catalog import MINILM

if TYPE_CHECKING:
    from localmel.matchers.prepared import PreparedSides
    from localmel.matchers.protocol import Side
    from localmel.matchers.two_step import Found


def index_for_kind(
    kb: KnowledgeBase,
    kind: MatcherKind,
    encoders: Encoders,
) -> int:
    """Encode what any matcher of this kind looks at: whole texts and pictures, and their parts.

    Returns how many texts and pictures were encoded for it."""
    encoded = index_kb(kb, encoders.text)
    packed, _ = load_vectors(kb, encoders.text.space)
    images = None
    if encoders.image:
        found = index_images(kb, packed, encoders.image)
        if note := found.note():
            progress.note(note)
        images = load_images(kb, packed, encoders.image.image_space)
    return encoded + kind.index(kb, packed, encoders, images)


def index_for_matcher(
    kb: KnowledgeBase,
    matcher: MatcherFolder[Any],
    encoders: Encoders,
    index: str,
) -> int:
    """The same, and the sides that this matcher makes of the entities, with the index that `index` names.

    Raises BadInput where it was trained for other encoders."""
    from localmel.matchers.prepared import index_sides, prepare_entities

    encoders = encoders_for(matcher, encoders)
    kind = kind_of(matcher)
    encoded = index_for_kind(kb, kind, encoders)
    known = _known(kb, matcher, kind, encoders)
    progress.begin(f"preparing entities for {matcher.kind}", len(known.packed.rows))
    entities = kind.entities(kb, known.packed, known.vectors, known.images)
    sides = prepare_entities(matcher.network, entities, matched_folder(kb, matcher), known.facts)
    if (chosen := kind_for(index, len(sides))) != SCAN:
        index_sides(sides, choose(chosen, len(sides)), _index_folder(kb, matcher, chosen))
    return encoded


def ensure_for_matcher(
    kb: KnowledgeBase,
    matcher: MatcherFolder[Any],
    encoders: Encoders,
    index: str,
) -> None:
    """`index_for_matcher`, unless the KB is ready for it."""
    encoders_for(matcher, encoders)
    try:
        MatcherSearch(kb, matcher, encoders, index)
    except (BadInput, CorruptArtifact):
        index_for_matcher(kb, matcher, encoders, index)


def encoders_for(matcher: MatcherFolder[Any], encoders: Encoders) -> Encoders:
    """Those that it looks through: without pictures where it looks at none.  Raises BadInput for other spaces."""
    matcher.check_spaces(encoders.text.space, encoders.image_space)
    return encoders if matcher.image_space else Encoders(text=encoders.text, image=None)


class MatcherSearch:
    """Searches a KB for mentions, by a trained matcher, and scores entities that were found otherwise."""

    def __init__(self, kb: KnowledgeBase, matcher: MatcherFolder[Any], encoders: Encoders, index: str) -> None:
        """Raises BadInput, with the command, where the KB was never made ready for this matcher, or has changed."""
        from localmel.matchers.prepared import PreparedSides, index_sides
        from localmel.matchers.two_step import TwoStepSearch

        self._kb, self._encoders = kb, encoders_for(matcher, encoders)
        kind, self._network = kind_of(matcher), matcher.network
        other = self._encoders.text.space.name != MINILM.name
        with_it = "with the --profile whose encoder it was trained for" if other else ""
        again = shell_line("localmel index", kb.folder, "--matcher", matcher.folder, note=with_it)
        known = _known(kb, matcher, kind, self._encoders)
        self._rows = known.packed.rows
        try:
            self._sides: PreparedSides = PreparedSides(matched_folder(kb, matcher), known.facts)
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
            self._kind = kind.beside(kb, known.packed, known.vectors, known.images)
        except (BadInput, CorruptArtifact) as error:
            raise type(error)(error.fact, hint=again) from None
        chosen = kind_for(index, len(self._sides))
        settings = ExactSettings() if chosen == SCAN else choose(chosen, len(self._sides))
        folder = None if chosen == SCAN else _index_folder(kb, matcher, chosen)
        found, longest = index_sides(self._sides, settings, folder)
        self._search: TwoStepSearch[Any] = TwoStepSearch(self._network, self._sides, found, longest)

    def given(self, mentions: Sequence[Mention]) -> Any:
        """What the matcher sees of mentions."""
        return self._kind.mentions(mentions, self._encoders).of(np.arange(len(mentions)))

    def alike(self, given: Any) -> list[tuple[Alike, ...]]:
        """Of each mention the entities whose pictures are like its own; empty where they are not looked for."""
        found: list[tuple[Alike, ...]] = []
        for row in self._kind.alike(given):
            rows = [int(self._rows[one.entity]) for one in row]
            entities = self._kb.entities_at(rows)
            found.append(
                tuple(
                    Alike(entity_id=entity.id, label=entity.label, similarity=one.similarity)
                    for entity, one in zip(entities, row, strict=True)
                )
            )
        return found

    def best(self, given: Any, k: int) -> Found:
        """The best k of each mention, of all entities."""
        return self._search.search(given, k)

    def scores_of(self, given: Any, places: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Of each of m mentions and the entities at its places, (n,) int64 each.  Returns (n,) float32 each."""
        import torch

        scores = []
        with torch.no_grad():
            mentions: Side = self._network.mentions(given)
            for number, positions in enumerate(places):
                found = np.zeros(0, np.float32)
                if len(positions):
                    one = mentions.rows(torch.tensor([number]))
                    found = self._network.scores(one, self._sides.of(positions))[0].float().cpu().numpy()
                scores.append(found)
        return scores


def texts_read(kb: KnowledgeBase, matcher: MatcherFolder[Any] | None) -> dict[str, Any]:
    """The state of the texts that a matcher reads and that the KB's fingerprint does not know; empty without any."""
    return kind_of(matcher).state(kb) if matcher else {}


def matched_folder(kb: KnowledgeBase, matcher: MatcherFolder[Any]) -> Path:
    """Where the sides of a KB's entities by this matcher stand."""
    return kb.folder / "matched" / matcher.sha256[:16]


def _index_folder(kb: KnowledgeBase, matcher: MatcherFolder[Any], kind: str) -> Path:
    folder = matched_folder(kb, matcher)
    return folder.with_name(f"{folder.name}.{kind}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    packed: PackedKb
    vectors: KbVectors
    images: KbImages | None
    facts: dict[str, Any]


def _known(kb: KnowledgeBase, matcher: MatcherFolder[Any], kind: MatcherKind, encoders: Encoders) -> _Known:
    """The KB's own vectors, and what the sides hang on."""
    packed, vectors = load_vectors(kb, encoders.text.space)
    images = load_images(kb, packed, encoders.image.image_space) if encoders.image else None
    facts = {"matcher": matcher.sha256, "made_from": fused_state(packed, images), **kind.state(kb)}
    return _Known(packed=packed, vectors=vectors, images=images, facts=facts)
