"""Score the candidates of a mention from the evidence for each, and name the pairs of triples that speak for the best.

In: a mention with its description, its candidates and its vectors.  Out: features and phrase support, a ranking with
the probability of NIL, triples of the mention that the context confirms, and matched pairs of triples as evidence.
Knows no gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_vectors import KbVectors
from localmel.encode.mention_inputs import mention_text
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import fold, stems
from localmel.records import Alike, Candidate, Description, Entity, Evidence, Mention, Ranking, Triple
from localmel.rerank.features import Support, context_of, features_of, support_of
from localmel.rerank.questions import Retrieved
from localmel.rerank.scorer import EvidenceScorer
from localmel.retrieve.candidates import Candidates
from localmel.settings import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedMention:
    """A mention with its description, taken from its sentence, its picture or a model."""

    mention: Mention
    description: Description

    @property
    def texts(self) -> list[str]:
        """The texts to compare with the KB: the mention in its context, then the tails of its triples."""
        return [mention_text(self.mention), *(triple.tail for triple in self.description.triples)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighed:
    """One mention with its n candidates and the evidence for each."""

    described: DescribedMention
    rows: NDArray[Any]  # (n,) the candidates' rows in the KB
    by_name: int
    "How many of them were found by name; they come first."
    support: Support
    features: NDArray[Any]  # (n, len(FEATURES))
    alike: tuple[Alike, ...] = ()
    "See `Candidates`; the scorer does not use it."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """The scorer's ranking of a mention's candidates."""

    ranking: Ranking
    nil: float
    "Probability that none of them is right."
    entities: tuple[Entity, ...]
    "The candidates, in the order of `ranking`."
    best: int | None
    "Position of the first of them in `Weighed.rows`; None without candidates."


def retrieved(described: DescribedMention, ranked: Ranked) -> Retrieved:
    """Return the input of the next stage."""
    return Retrieved(
        mention=described.mention, description=described.description, ranking=ranked.ranking, nil=ranked.nil
    )


class Weigher:
    """Weighs the evidence for the candidates of mentions, with one KB and one scorer."""

    def __init__(
        self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, scorer: EvidenceScorer, profile: Profile
    ) -> None:
        self._kb, self._packed, self._vectors = kb, packed, vectors
        self._scorer, self._profile = scorer, profile

    def weigh(self, described: DescribedMention, candidates: Candidates, vectors: NDArray[Any]) -> Weighed:
        """Compute the candidates' features.  vectors: of `described.texts`, (1 + n_triples, width), unit rows."""
        words = [word for text in described.texts for word in fold(text).split()]
        context = context_of(described.mention.surface, words, vectors, self._packed)
        support = support_of(context, candidates.positions, self._packed, self._vectors)
        return Weighed(
            described=described,
            rows=self._packed.rows[candidates.positions],
            by_name=sum(match is not None for match in candidates.matches),
            support=support,
            features=features_of(context, candidates, support, self._packed, self._vectors),
            alike=candidates.alike,
        )

    def rank(self, weighed: Weighed, top_k: int) -> Ranked:
        """Rank the best `top_k` candidates by the scorer's probability."""
        judgement = self._scorer.judge(weighed.features)
        order = np.argsort(-judgement.probabilities, kind="stable")[:top_k]
        entities = tuple(self._kb.entities_at([int(row) for row in weighed.rows[order]]))
        scores = [float(judgement.probabilities[place]) for place in order]
        candidates = (Candidate(entity_id=one.id, score=score) for one, score in zip(entities, scores, strict=True))
        return Ranked(
            ranking=Ranking(mention_id=weighed.described.mention.id, candidates=tuple(candidates)),
            nil=judgement.nil,
            entities=entities,
            best=int(order[0]) if len(order) else None,
        )

    def evidence(self, weighed: Weighed, ranked: Ranked) -> tuple[Evidence, ...]:
        """Return the pairs of triples that support the first candidate of the ranking."""
        if ranked.best is None:
            return ()
        return evidence_for(
            ranked.best,
            ranked.entities[0].label,
            weighed.described.mention.surface,
            weighed.described.mention.context,
            weighed.described.description.triples,
            weighed.support,
            self._packed,
            self._kb,
            most=self._profile.rerank.most_evidence,
            least_similarity=self._profile.generate.least_similarity,
        )

    def induced(self, weighed: Weighed) -> tuple[Triple, ...]:
        """Return phrases of the candidates found by name that the context confirms, as triples of the mention."""
        settings = self._profile.generate
        return induced_triples(
            weighed.described.mention.surface,
            weighed.by_name,
            weighed.support,
            self._packed,
            self._kb,
            most=settings.most_induced,
            least_similarity=settings.least_similarity,
        )


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
    """Return the phrases most similar to the sentence as triples of the mention (source "text").

    Only phrases of the first `by_name` candidates, which were found by name, are considered."""
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
    """Return the matched pairs for the candidate at this index, strongest first.

    `stated` are the mention's triples in the order of the context vectors after the sentence.  The similarity of a
    pair is its cosine, or the share of the entity's tail that occurs word for word in the mention's text, whichever is
    higher; between equally similar pairs the one with the rarer words is stronger.  Where the sentence itself is most
    similar, the mention's triple is the phrase that it suggests."""
    places = np.flatnonzero((support.owner == candidate) & _says_more(surface, support.phrases, packed))
    if not len(places):
        return ()
    said = [sentence, *(triple.tail for triple in stated)]
    similar, strength = _agreement(said, places, support, packed)
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
            similarity = min(max(float(similar[source, place]), 0.0), 1.0)
            pairs.append(Evidence(mention_triple=about, entity_triple=fact, similarity=round(similarity, 4)))
    return tuple(pairs)


def _says_more(surface: str, phrases: NDArray[Any], packed: PackedKb) -> NDArray[Any]:
    """Return which phrases have a tail that does more than repeat the surface ("different from: Mercury" does not)."""
    own = np.array(list(stems(surface)), np.uint32)
    words, owner = packed.phrase_words.of(phrases)
    beyond = np.bincount(owner, ~np.isin(words, own), minlength=len(phrases))
    says_more: NDArray[Any] = (beyond > 0) | (np.bincount(owner, minlength=len(phrases)) == 0)
    return says_more


def _agreement(
    said: Sequence[str], places: NDArray[Any], support: Support, packed: PackedKb
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the similarity of each text and phrase, and its strength as evidence; both (n_texts, n_phrases)."""
    similar = np.array(support.similarity[:, places], np.float32)
    strength = similar.copy()
    words, owner = packed.phrase_words.of(support.phrases[places])
    weights = packed.weights(words)
    total = np.maximum(np.bincount(owner, weights, minlength=len(places)), 1e-6)
    for line, text in enumerate(said):
        known = np.array(list(stems(text)), np.uint32)
        shared = np.bincount(owner, weights * np.isin(words, known), minlength=len(places))
        similar[line] = np.maximum(similar[line], shared / total)
        strength[line] = np.maximum(strength[line], np.minimum(shared, 1.0) * shared / total)
    return similar, strength
