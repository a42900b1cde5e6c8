"""Read the mentions of runs again: their slices, the triples stated about them, and a few of them in full.

In: a benchmark folder, its KB, and finished runs.  Out: slices, quality of triples; sentences, pictures and entities in
words.  Refuses data other than what the runs were asked; a missing or damaged picture becomes a note."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from localmel.benchmarks import read_benchmark
from localmel.encode.space import TextEncoder
from localmel.engines.pictures import open_picture
from localmel.errors import BadInput, BadPicture, shell_line
from localmel.evaluate.comparison import SystemAnswer
from localmel.evaluate.protocol import SLICES
from localmel.evaluate.triple_quality import TripleQuality, triple_quality
from localmel.kb.store import KnowledgeBase
from localmel.records import EntityId, MentionId, Triple
from localmel.report.comparison import ShownEntity, ShownMention
from localmel.runs.finished_runs import FinishedRun
from localmel.runs.questions import Question, questions_of

PICTURE_SIDE = 320
"Longest side of a picture in a report, in pixels."
PICTURE_BYTES = 10_000_000
"Limit for the pictures of a report; the rest is left out, with a note."
TYPES = ("instance of", "type")
"Relations whose tails count as types of an entity."
_MOST_TYPES = 6
_LEAST_OF_A_TYPE = 10
"A type with fewer mentions is not a slice: nothing could be concluded."
_MOST_TRIPLES = 8
_OF_ANSWERS = ("all", "mention with triples", "mention without triples")
"Slices that hold everything, or that differ between generators."
_LONGEST_CONTEXT = 2000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedMentions:
    """The questions of each dataset, with the KB they were asked over."""

    questions: Mapping[str, Mapping[MentionId, Question]]
    kb: KnowledgeBase

    def slices(self) -> dict[str, dict[str, frozenset[MentionId]]]:
        """Return dataset -> slice -> mentions; slices depend on question and gold, never on an answer."""
        return {dataset: _slices(self.kb, asked) for dataset, asked in self.questions.items()}


def asked_mentions(data: Path, kb: KnowledgeBase, run: FinishedRun, datasets: Sequence[str]) -> AskedMentions:
    """Read what the run was asked.  Raises BadInput if KB or data are not those of the run."""
    expected = run.inputs["kb_fingerprint"]
    if kb.fingerprint != expected:
        raise BadInput(
            f"kb {kb.name!r} is not the one of {run.folder}, or has changed since: state "
            f"{kb.fingerprint[:12]}, not {expected[:12]}",
            hint="--kb KB   # the one of the run, in that state",
        )
    settings = run.settings
    found = {}
    for dataset in datasets:
        questions = questions_of(
            read_benchmark(data, dataset),
            settings["split"],
            kb,
            drop=settings["drop_leaked"],
            outside=settings["gold_outside"],
            limit=settings.get("limit", 0),
        )
        if questions.sha256 != run.inputs["questions"][dataset]:
            raise BadInput(
                f"{data} is not what {run.folder} was asked about {dataset}, or has changed since",
                hint=shell_line("localmel data check", data),
            )
        found[dataset] = {one.mention.id: one for one in questions.asked}
    return AskedMentions(questions=found, kb=kb)


# --- slices ---------------------------------------------------------------------------------------------------------


def _slices(kb: KnowledgeBase, asked: Mapping[MentionId, Question]) -> dict[str, frozenset[MentionId]]:
    """Return the slices of the strict protocol that no generator decides, then rare golds, then types of the gold."""
    found = {
        name: frozenset(key for key, question in asked.items() if belongs(question))
        for name, belongs in SLICES.items()
        if name not in _OF_ANSWERS
    }
    gold = {key: question.gold_row for key, question in asked.items() if question.gold_row is not None}
    popularity, n_triples = _counts(kb, set(gold.values()))
    found |= _lowest_third("rare gold, popularity up to", "other gold, popularity over", gold, popularity)
    found |= _lowest_third("gold with few triples, up to", "gold with more triples, over", gold, n_triples)
    types = _types(kb, set(gold.values()))
    counts = Counter(name for row in gold.values() for name in types.get(row, ()))
    for name, n in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_MOST_TYPES]:
        if n < _LEAST_OF_A_TYPE:
            break
        found[f"type: {name}"] = frozenset(key for key, row in gold.items() if name in types.get(row, ()))
    return found


def _lowest_third(
    low_name: str, high_name: str, gold: Mapping[MentionId, int], values: Mapping[int, float]
) -> dict[str, frozenset[MentionId]]:
    """Split mentions by the value of their gold: the lowest third (with all that equal its highest) and the rest.

    Empty if the KB knows the value of less than half of the golds; a gold without a value is in neither part."""
    known = sorted(values[row] for row in gold.values() if row in values)
    if not known or 2 * len(known) < len(gold):
        return {}
    edge = known[(len(known) - 1) // 3]
    shown = f"{edge:,.3g}"
    low = frozenset(key for key, row in gold.items() if row in values and values[row] <= edge)
    high = frozenset(key for key, row in gold.items() if row in values and values[row] > edge)
    return {f"{low_name} {shown}": low, f"{high_name} {shown}": high}


def _counts(kb: KnowledgeBase, rows: set[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Return row -> popularity, where it is known, and row -> number of triples."""
    sql = "SELECT row, popularity, n_triples FROM entities WHERE row IN ({})"
    found = list(kb.select_in(sql, sorted(rows)))
    popularity = {row: value for row, value, _ in found if value is not None}
    return popularity, {row: n for row, _, n in found}


def _types(kb: KnowledgeBase, rows: set[int]) -> dict[int, set[str]]:
    sql = (
        "SELECT t.head, t.tail FROM triples t JOIN relations r USING (relation) "
        f"WHERE r.label IN ({','.join('?' * len(TYPES))}) AND t.head IN ({{}})"
    )
    found: dict[int, set[str]] = {}
    for row, tail in kb.select_in(sql, sorted(rows), before=TYPES):
        found.setdefault(row, set()).add(tail)
    return found


# --- triples --------------------------------------------------------------------------------------------------------


def triples_of(kb: KnowledgeBase, ids: Iterable[EntityId]) -> dict[EntityId, list[Triple]]:
    """Return the KB's triples of each of these entities that it has."""
    rows = _rows(kb, ids)
    found: dict[EntityId, list[Triple]] = {entity: [] for entity in rows}
    by_row = {row: entity for entity, row in rows.items()}
    labels = {one.id: one.label for one in kb.entities_at(sorted(by_row))}
    sql = (
        "SELECT t.head, r.label, t.tail FROM triples t JOIN relations r USING (relation) "
        "WHERE t.head IN ({}) GROUP BY t.head, r.label, t.tail ORDER BY min(t.triple)"
    )
    for row, relation, tail in kb.select_in(sql, sorted(by_row)):
        entity = by_row[row]
        found[entity].append(Triple(head=labels[entity], relation=relation, tail=tail, source="kb"))
    return found


def generated_triples(
    given: Mapping[str, Mapping[str, Sequence[SystemAnswer]]], kb: KnowledgeBase, encoder: TextEncoder
) -> dict[str, dict[str, TripleQuality]]:
    """Measure the triples that runs stated about their mentions against those of the KB, with each phrase encoded once.

    given: dataset -> system -> answers.  Returns system -> dataset -> quality, without systems that kept no triples."""
    found: dict[str, dict[str, TripleQuality]] = {}
    for dataset, systems in given.items():
        stating = {name: ones for name, ones in systems.items() if any(one.details.triples is not None for one in ones)}
        if not stating:
            continue
        outcomes = [one.outcome for one in next(iter(stating.values()))]
        gold = {one.mention_id: one.gold for one in outcomes if one.gold is not None}
        stated = triples_of(kb, set(gold.values()))
        known = {mention: stated[entity] for mention, entity in gold.items() if entity in stated}
        clusters = {one.mention_id: one.cluster for one in outcomes}
        said: dict[str, dict[MentionId, Sequence[Triple]]] = {
            name: {one.outcome.mention_id: one.details.triples or () for one in ones} for name, ones in stating.items()
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


# --- how they look --------------------------------------------------------------------------------------------------


def shown_mentions(
    asked: AskedMentions, wanted: Sequence[tuple[str, MentionId]], slices: Mapping[str, Mapping[str, frozenset[str]]]
) -> tuple[dict[tuple[str, MentionId], ShownMention], int]:
    """Return each wanted mention in its sentence with its picture, and how many pictures did not fit in."""
    found, budget, left_out = {}, PICTURE_BYTES, 0
    pictures: dict[Path, tuple[str, str]] = {}
    for dataset, key in wanted:
        mention = asked.questions[dataset][key].mention
        picture, note = "", ""
        if mention.image is not None:
            if mention.image not in pictures:
                pictures[mention.image] = thumbnail(mention.image)
            picture, note = pictures[mention.image]
        if len(picture) > budget:
            picture, note, left_out = "", "left out, so that the report stays small", left_out + 1
        budget -= len(picture)
        before = mention.context[: mention.span.start]
        after = mention.context[mention.span.end :]
        found[dataset, key] = ShownMention(
            before=before if len(before) <= _LONGEST_CONTEXT else f"… {before[-_LONGEST_CONTEXT:]}",
            surface=mention.surface,
            after=after if len(after) <= _LONGEST_CONTEXT else f"{after[:_LONGEST_CONTEXT]} …",
            picture=picture,
            picture_note=note,
            slices=tuple(name for name, ids in slices[dataset].items() if key in ids),
        )
    return found, left_out


def thumbnail(path: Path) -> tuple[str, str]:
    """Return a small JPEG as a data URI and an empty note, or an empty URI and the reason."""
    try:
        image = open_picture(path).image.copy()
    except BadPicture as error:
        return "", error.fact.replace(str(path), path.name)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=72, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", ""


def shown_entities(
    kb: KnowledgeBase, ids: Iterable[EntityId], with_triples: Iterable[EntityId]
) -> dict[EntityId, ShownEntity]:
    """Return entities in words, some of them with their first triples; those that the KB lacks are left out."""
    rows = _rows(kb, ids)
    stated = triples_of(kb, with_triples)
    return {
        one.id: ShownEntity(
            id=one.id,
            label=one.label,
            description=one.description,
            triples=tuple(triple.phrase for triple in stated.get(one.id, [])[:_MOST_TRIPLES]),
        )
        for one in kb.entities_at(sorted(rows.values()))
    }


def _rows(kb: KnowledgeBase, ids: Iterable[EntityId]) -> dict[EntityId, int]:
    return dict(kb.select_in("SELECT id, row FROM entities WHERE id IN ({})", sorted(set(ids))))
