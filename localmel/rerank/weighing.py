"""What speaks for each candidate of a mention, before anything is decided; and the scorer's order of them.

In: a mention with what is said of it, its candidates, its vectors.  Out: features and the support of every phrase, then
a ranking with the probability of NIL, the triples that the context confirms, and the pairs that agree.
Knows no gold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_vectors import KbVectors
from localmel.encode.mention_inputs import mention_text
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import fold
from localmel.records import Alike, Candidate, Description, Entity, Evidence, Mention, Ranking, Triple, Unparsed
from localmel.rerank.evidence import evidence_for, induced_triples
from localmel.rerank.features import Support, context_of, features_of, support_of
from localmel.rerank.questions import Retrieved
from localmel.rerank.scorer import EvidenceScorer
from localmel.retrieve.candidates import Candidates
from localmel.settings import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A mention, and what is said of it by its sentence, its picture, or a model."""

    mention: Mention
    description: Description

    @property
    def said(self) -> list[str]:
        """The texts that are compared with the KB: the mention in its context, then the tails of its triples."""
        return [mention_text(self.mention), *(triple.tail for triple in self.description.triples)]


def with_model(spoken: Spoken, said: Description | Unparsed, *, keep_stated: bool) -> Spoken:
    """What a model says of the mention, before what was stated already; where its answer cannot be read, only that."""
    stated = spoken.description.triples
    if isinstance(said, Unparsed):
        return spoken
    triples = dict.fromkeys((*said.triples, *(stated if keep_stated else ())))
    return replace(spoken, description=replace(said, triples=tuple(triples)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighed:
    """One mention with its candidates and what speaks for each."""

    spoken: Spoken
    rows: NDArray[Any]  # (n,) the candidates' rows in the KB
    by_name: int
    "How many of them, the first ones, bear the name."
    support: Support
    features: NDArray[Any]  # (n, len(FEATURES))
    alike: tuple[Alike, ...] = ()
    "See `Candidates`; nothing is weighed by it."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """The scorer's order of a mention's candidates."""

    ranking: Ranking
    nil: float
    "Probability that none of them is right."
    entities: tuple[Entity, ...]
    "In the order of `ranking`."
    best: int | None
    "Place of the first of them in `Weighed.rows`; None without candidates."


def retrieved(spoken: Spoken, ranked: Ranked) -> Retrieved:
    """As the next stage takes it."""
    return Retrieved(mention=spoken.mention, description=spoken.description, ranking=ranked.ranking, nil=ranked.nil)


class Weigher:
    """Weighs the candidates of mentions against what one KB knows of them."""

    def __init__(
        self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, scorer: EvidenceScorer, profile: Profile
    ) -> None:
        self._kb, self._packed, self._vectors = kb, packed, vectors
        self._scorer, self._profile = scorer, profile

    def weigh(self, spoken: Spoken, candidates: Candidates, vectors: NDArray[Any]) -> Weighed:
        """vectors: (1 + triples, width) float32, unit rows, of `spoken.said`."""
        words = [word for text in spoken.said for word in fold(text).split()]
        context = context_of(spoken.mention.surface, words, vectors, self._packed)
        support = support_of(context, candidates.positions, self._packed, self._vectors)
        return Weighed(
            spoken=spoken,
            rows=self._packed.rows[candidates.positions],
            by_name=sum(match is not None for match in candidates.matches),
            support=support,
            features=features_of(context, candidates, support, self._packed, self._vectors),
            alike=candidates.alike,
        )

    def rank(self, weighed: Weighed, top_k: int) -> Ranked:
        """The best `top_k` by the scorer's probability."""
        judgement = self._scorer.judge(weighed.features)
        order = np.argsort(-judgement.probabilities, kind="stable")[:top_k]
        entities = tuple(self._kb.entities_at([int(row) for row in weighed.rows[order]]))
        scores = [float(judgement.probabilities[place]) for place in order]
        candidates = (Candidate(entity_id=one.id, score=score) for one, score in zip(entities, scores, strict=True))
        return Ranked(
            ranking=Ranking(mention_id=weighed.spoken.mention.id, candidates=tuple(candidates)),
            nil=judgement.nil,
            entities=entities,
            best=int(order[0]) if len(order) else None,
        )

    def evidence(self, weighed: Weighed, ranked: Ranked) -> tuple[Evidence, ...]:
        """The pairs of triples that speak for the first of the ranking."""
        if ranked.best is None:
            return ()
        return evidence_for(
            ranked.best,
            ranked.entities[0].label,
            weighed.spoken.mention.surface,
            weighed.spoken.mention.context,
            weighed.spoken.description.triples,
            weighed.support,
            self._packed,
            self._kb,
            most=self._profile.rerank.most_evidence,
            least_similarity=self._profile.generate.least_similarity,
        )

    def induced(self, weighed: Weighed) -> tuple[Triple, ...]:
        """Phrases of the candidates by name that the context confirms, as triples of the mention."""
        settings = self._profile.generate
        return induced_triples(
            weighed.spoken.mention.surface,
            weighed.by_name,
            weighed.support,
            self._packed,
            self._kb,
            most=settings.most_induced,
            least_similarity=settings.least_similarity,
        )
