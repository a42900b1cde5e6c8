"""Mentions with their rankings -> closed questions, each candidate with the triples that survive the filter.

In: mentions, their descriptions and rankings, and an indexed KB.  Out: one ClosedQuestion per mention, in order.
A mention without triples is asked about too: its sentence takes the place of the tail, and every relation is kept.
Knows no engine and no gold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_vectors import KbVectors
from localmel.encode.space import TextEncoder
from localmel.errors import BadInput
from localmel.kb.packed import Lists, PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.matchers.kgmel.mention_vectors import mention_arrays
from localmel.records import Description, Entity, EntityId, Mention, Ranking, Triple
from localmel.rerank.closed_question import ClosedQuestion, Fact, Option
from localmel.rerank.filtering import Survivors, filter_triples
from localmel.settings import RerankSettings

MOST_FACTS = 8
"The most facts shown for a candidate; the most similar are kept."
_MENTIONS_AT_ONCE, _VALUES_AT_ONCE = 128, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """The result of retrieval for one mention."""

    mention: Mention
    description: Description
    ranking: Ranking
    nil: float
    "Probability that none of the candidates is right."


class QuestionWriter:
    """Writes closed questions about the entities of one KB, with vectors of one space."""

    def __init__(
        self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, encoder: TextEncoder, settings: RerankSettings
    ) -> None:
        self._kb, self._packed, self._vectors = kb, packed, vectors
        self._encoder, self._settings = encoder, settings

    def questions(self, retrieved: Iterable[Retrieved]) -> Iterator[ClosedQuestion]:
        """Yield one question per mention, in order.  Raises BadInput for a candidate that the KB lacks."""
        remaining = iter(retrieved)
        while batch := list(islice(remaining, _MENTIONS_AT_ONCE)):
            yield from self._questions(batch)

    def _questions(self, batch: Sequence[Retrieved]) -> Iterator[ClosedQuestion]:
        most = self._settings.most_candidates
        shown = [[one.entity_id for one in about.ranking.candidates[:most]] for about in batch]
        rows = self._rows({entity_id for ids in shown for entity_id in ids})
        entities = dict(zip(rows, self._kb.entities_at(list(rows.values())), strict=True))
        facts = self._facts(batch, shown, rows)
        for number, (about, ids) in enumerate(zip(batch, shown, strict=True)):
            yield ClosedQuestion(
                mention=about.mention,
                description=about.description,
                ranking=about.ranking,
                nil=about.nil,
                options=tuple(_option(entities[one], facts.get((number, one), ())) for one in ids),
            )

    def _rows(self, ids: set[EntityId]) -> dict[EntityId, int]:
        ordered = sorted(ids)
        rows: dict[EntityId, int] = {}
        for start in range(0, len(ordered), _VALUES_AT_ONCE):
            some = ordered[start : start + _VALUES_AT_ONCE]
            rows.update(
                self._kb.select(f"SELECT id, row FROM entities WHERE id IN ({','.join('?' * len(some))})", some)
            )
        if missing := ids - rows.keys():
            raise BadInput(
                f"{len(missing)} candidates are not in kb {self._kb.name!r}, for example {min(missing)!r}",
                hint="localmel retrieve --run NAME --kb KB   # with the current KB",
            )
        return rows

    def _facts(
        self, batch: Sequence[Retrieved], shown: Sequence[Sequence[EntityId]], rows: dict[EntityId, int]
    ) -> dict[tuple[int, EntityId], tuple[Fact, ...]]:
        """Map (mention, candidate) to its surviving triples, the most similar first."""
        ordered = sorted(rows)
        line = {entity_id: number for number, entity_id in enumerate(ordered)}
        positions = self._packed.positions(np.array([rows[one] for one in ordered], np.int64))
        arrays, phrases = entity_arrays(self._packed, self._vectors, positions)
        found: dict[tuple[int, EntityId], list[tuple[int, Triple | None, float]]] = {}
        for members, mentions, n_relations in self._groups(batch, len(arrays.relations)):
            candidates = Lists(
                starts=np.cumsum([0, *(len(shown[member]) for member in members)]),
                values=np.array([line[one] for member in members for one in shown[member]], np.int64),
            )
            survivors = filter_triples(
                mentions, arrays, candidates, n_relations=n_relations, n_tails=self._settings.most_tails
            )
            keys = [(member, one) for member in members for one in shown[member]]
            for number, key in enumerate(keys):
                said = batch[key[0]].description.triples
                found[key] = [
                    (int(phrases[pair]), said[near] if said else None, similarity)
                    for pair, near, similarity in _most_similar(survivors, number)
                ]
        words = self._words({phrase for facts in found.values() for phrase, _, _ in facts})
        return {
            (member, one): tuple(
                _fact(words[phrase], said, cosine, batch[member].mention.surface) for phrase, said, cosine in facts
            )
            for (member, one), facts in found.items()
        }

    def _groups(self, batch: Sequence[Retrieved], n_relations: int) -> Iterator[tuple[list[int], TripleArrays, int]]:
        """Yield mentions with triples, then those without: numbers, triples, and how many relations to keep."""
        stating = [number for number, about in enumerate(batch) if about.description.triples]
        silent = [number for number, about in enumerate(batch) if not about.description.triples]
        if stating:
            stated = [batch[number].description.triples for number in stating]
            _, triples = mention_arrays([batch[number].mention for number in stating], stated, self._encoder.encode)
            yield stating, triples, self._settings.most_relations
        if silent:
            mentions = [batch[number].mention for number in silent]
            sentences, _ = mention_arrays(mentions, [()] * len(silent), self._encoder.encode)
            yield silent, _sentences_as_tails(sentences), n_relations

    def _words(self, phrases: set[int]) -> dict[int, Triple]:
        """Map each phrase to its triple; the head is filled in later."""
        ordered = sorted(phrases)
        words: dict[int, Triple] = {}
        for start in range(0, len(ordered), _VALUES_AT_ONCE):
            some = ordered[start : start + _VALUES_AT_ONCE]
            words.update(zip(some, self._packed.phrase_triples(self._kb, some, ""), strict=True))
        return words


def entity_arrays(packed: PackedKb, vectors: KbVectors, positions: NDArray[Any]) -> tuple[TripleArrays, NDArray[Any]]:
    """Collect all triples of these entities, however many, and the phrase of each pair.

    A phrase without a vector (a bare date or number) is skipped, as in retrieval."""
    found, owner = packed.phrases.of(positions)
    phrases, triples = np.unique(found, return_inverse=True)
    tails = vectors.phrases[phrases].astype(np.float32)
    known = tails.any(axis=1)
    place = np.cumsum(known) - 1
    usable = known[triples]
    relations, of_pair = np.unique(packed.phrase_relation[phrases[known]], return_inverse=True)
    counts = np.bincount(owner[usable], minlength=len(positions))
    arrays = TripleArrays(
        tails=tails[known],
        relations=vectors.relations[relations].astype(np.float32),
        pair_tail=np.arange(int(known.sum())),
        pair_relation=of_pair.astype(np.int64),
        triples=place[triples[usable]].astype(np.int64),
        starts=np.concatenate([[0], np.cumsum(counts)]),
    )
    return arrays, phrases[known]


def _sentences_as_tails(sentences: NDArray[Any]) -> TripleArrays:
    """Turn sentences, (m, width), into m rows with one triple each, whose zero relation equals any other."""
    each = np.arange(len(sentences))
    return TripleArrays(
        tails=sentences,
        relations=np.zeros((1, sentences.shape[1]), np.float32),
        pair_tail=each,
        pair_relation=np.zeros(len(each), np.int64),
        triples=each,
        starts=np.arange(len(each) + 1),
    )


def _most_similar(survivors: Survivors, candidate: int) -> list[tuple[int, int, float]]:
    own = survivors.of(candidate)
    best = own.start + np.argsort(-survivors.similarity[own], kind="stable")[:MOST_FACTS]
    return [(int(survivors.pairs[one]), int(survivors.nearest[one]), float(survivors.similarity[one])) for one in best]


def _fact(triple: Triple, said: Triple | None, similarity: float, surface: str) -> Fact:
    """Make a fact; where the sentence was most similar, the mention's triple is the one that it suggests."""
    return Fact(triple=triple, said=said or replace(triple, head=surface, source="text"), similarity=similarity)


def _option(entity: Entity, facts: Sequence[Fact]) -> Option:
    return Option(
        entity=entity, facts=tuple(replace(fact, triple=replace(fact.triple, head=entity.label)) for fact in facts)
    )
