"""How good the triples of each run are, where it carries them.

In: answers of several systems, the KB, a text encoder.  Out: TripleQuality for each system and dataset.  Every phrase
is encoded once.  A system that carries no triples is absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from localmel.encode.space import TextEncoder
from localmel.evaluate.comparison import SystemAnswer
from localmel.evaluate.triple_quality import TripleQuality, triple_quality
from localmel.kb.store import KnowledgeBase
from localmel.records import MentionId, Triple
from localmel.runs.asked_mentions import triples_of


def generated_triples(
    given: Mapping[str, Mapping[str, Sequence[SystemAnswer]]], kb: KnowledgeBase, encoder: TextEncoder
) -> dict[str, dict[str, TripleQuality]]:
    """given: dataset -> system -> answers.  Returns system -> dataset -> quality."""
    found: dict[str, dict[str, TripleQuality]] = {}
    for dataset, systems in given.items():
        telling = {name: ones for name, ones in systems.items() if any(one.details.triples is not None for one in ones)}
        if not telling:
            continue
        outcomes = [one.outcome for one in next(iter(telling.values()))]
        gold = {one.mention_id: one.gold for one in outcomes if one.gold is not None}
        stated = triples_of(kb, set(gold.values()))
        known = {mention: stated[entity] for mention, entity in gold.items() if entity in stated}
        clusters = {one.mention_id: one.cluster for one in outcomes}
        said: dict[str, dict[MentionId, Sequence[Triple]]] = {
            name: {one.outcome.mention_id: one.details.triples or () for one in ones} for name, ones in telling.items()
        }
        stated_or_said = [*known.values(), *(triples for own in said.values() for triples in own.values())]
        phrases = {triple.phrase for triples in stated_or_said for triple in triples}
        similarity = _similarity(sorted(phrases), encoder)
        for name, own in said.items():
            found.setdefault(name, {})[dataset] = triple_quality(own, known, clusters, similarity)
    return found


def _similarity(phrases: Sequence[str], encoder: TextEncoder) -> Callable[[Sequence[str], Sequence[str]], NDArray[Any]]:
    vectors = encoder.encode(phrases)
    place = {phrase: number for number, phrase in enumerate(phrases)}

    def similarity(ours: Sequence[str], theirs: Sequence[str]) -> NDArray[Any]:
        product: NDArray[Any] = vectors[[place[one] for one in ours]] @ vectors[[place[one] for one in theirs]].T
        return product

    return similarity
