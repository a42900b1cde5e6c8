"""Which pairs of triples speak for an entity: one about the mention, one of the entity, and how alike they are.

In: the comparison of a context with the candidates' phrases.  Out: Evidence, strongest first, and the triples that
the context confirms.  Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.kb.store import KnowledgeBase
from localmel.kb.words import stems
from localmel.records import Evidence, Triple

if TYPE_CHECKING:
    from localmel.kb.packed import PackedKb
    from localmel.rerank.features import Support


def induced_triples(
    surface: str,
    by_name: int,
    support: Support,
    packed: PackedKb,
    kb: KnowledgeBase,
    *,
    most: int,
    least_similarity: float,
) -> tuple[Triple, ...]:
    """The phrases that the sentence is most like, as triples of the mention (source "text").

    Only phrases of the first `by_name` candidates count, those that bear the name."""
    if not len(support.phrases) or not by_name:
        return ()
    counts = (support.owner < by_name) & _says_more(surface, support.phrases, packed)
    similarity = np.where(counts, support.similarity[0], -1.0)
    chosen: dict[int, None] = {}
    for place in np.argsort(-similarity, kind="stable"):
        if similarity[place] < least_similarity or len(chosen) == most:
            break
        chosen[int(support.phrases[place])] = None
    found = packed.phrase_triples(kb, list(chosen), surface)
    return tuple(Triple(head=surface, relation=fact.relation, tail=fact.tail, source="text") for fact in found)


def evidence_for(
    candidate: int,
    label: str,
    surface: str,
    sentence: str,
    stated: Sequence[Triple],
    support: Support,
    packed: PackedKb,
    kb: KnowledgeBase,
    *,
    most: int,
    least_similarity: float,
) -> tuple[Evidence, ...]:
    """The matched pairs for the candidate at this index, strongest first.

    `stated` are the mention's triples in the order of the context vectors after the sentence.  A pair is as alike as
    the cosine of the two, or as the share of the entity's tail that stands word for word in what was said, where that
    is higher; of pairs equally alike the one with the rarer words is the stronger.  Where the sentence itself is the
    nearest, the mention's triple is the phrase that it suggests."""
    places = np.flatnonzero((support.owner == candidate) & _says_more(surface, support.phrases, packed))
    if not len(places):
        return ()
    said = [sentence, *(triple.tail for triple in stated)]
    alike, strength = _agreement(said, places, support, packed)
    best = strength.max(axis=0)
    order = [int(place) for place in np.argsort(-best, kind="stable")[: 4 * most] if best[place] >= least_similarity]
    facts = packed.phrase_triples(kb, [int(support.phrases[places[place]]) for place in order], label) if order else []
    pairs: list[Evidence] = []
    for place, fact in zip(order, facts, strict=True):
        source = int(strength[:, place].argmax())
        about = (
            stated[source - 1]
            if source
            else Triple(head=surface, relation=fact.relation, tail=fact.tail, source="text")
        )
        repeated = any(pair.entity_triple.tail == fact.tail for pair in pairs)
        if not repeated and len(pairs) < most:
            similarity = min(max(float(alike[source, place]), 0.0), 1.0)
            pairs.append(Evidence(mention_triple=about, entity_triple=fact, similarity=round(similarity, 4)))
    return tuple(pairs)


def _says_more(surface: str, phrases: NDArray[Any], packed: PackedKb) -> NDArray[Any]:
    """Which phrases have a tail that is more than the surface again ("different from: Mercury" is not)."""
    own = np.array(list(stems(surface)), np.uint32)
    words, owner = packed.phrase_words.of(phrases)
    beyond = np.bincount(owner, ~np.isin(words, own), minlength=len(phrases))
    says_more: NDArray[Any] = (beyond > 0) | (np.bincount(owner, minlength=len(phrases)) == 0)
    return says_more


def _agreement(
    said: Sequence[str], places: NDArray[Any], support: Support, packed: PackedKb
) -> tuple[NDArray[Any], NDArray[Any]]:
    """How alike each text and phrase are, and how strong that is as evidence; both (texts, phrases)."""
    alike = np.array(support.similarity[:, places], np.float32)
    strength = alike.copy()
    words, owner = packed.phrase_words.of(support.phrases[places])
    weights = packed.weights(words)
    total = np.maximum(np.bincount(owner, weights, minlength=len(places)), 1e-6)
    for line, text in enumerate(said):
        known = np.array(list(stems(text)), np.uint32)
        shared = np.bincount(owner, weights * np.isin(words, known), minlength=len(places))
        alike[line] = np.maximum(alike[line], shared / total)
        strength[line] = np.maximum(strength[line], np.minimum(shared, 1.0) * shared / total)
    return alike, strength
