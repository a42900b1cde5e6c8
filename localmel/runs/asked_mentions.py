"""The mentions that runs were asked, read again: their slices, and how a few of them look.

In: a benchmark folder, its KB, and what the runs say they were asked.  Out: slices, sentences, pictures, entities in
words.  Refuses data that are not the ones asked.  Of a picture that is missing or damaged, the reader is told so."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.benchmarks import read_benchmark
from localmel.engines.pictures import open_picture
from localmel.errors import BadInput, BadPicture, shell_line
from localmel.evaluate.protocol import SLICES
from localmel.kb.store import KnowledgeBase
from localmel.records import EntityId, MentionId, Triple
from localmel.report.comparison import ShownEntity, ShownMention
from localmel.runs.finished_runs import FinishedRun
from localmel.runs.questions import Question, questions_of

PICTURE_SIDE = 320
"Longest side of a picture in a report, in pixels."
PICTURE_BYTES = 10_000_000
"So much of a report may be pictures; the rest of them is left out and said so."
TYPES = ("instance of", "type")
"Relations whose tails are taken for types of an entity."
_MOST_TYPES = 6
_LEAST_OF_A_TYPE = 10
"Of fewer mentions nothing could be said."
_MOST_TRIPLES = 8
_OF_ANSWERS = ("all", "mention with triples", "mention without triples")
"Slices that say nothing, or that differ from generator to generator."
_LONGEST_CONTEXT = 2000
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedMentions:
    """The questions of each dataset, and the KB they were asked over."""

    questions: Mapping[str, Mapping[MentionId, Question]]
    kb: KnowledgeBase

    def slices(self) -> dict[str, dict[str, frozenset[MentionId]]]:
        """Dataset -> name -> mentions.  All are properties of question and gold, none of an answer."""
        return {dataset: _slices(self.kb, asked) for dataset, asked in self.questions.items()}


def asked_mentions(data: Path, kb: KnowledgeBase, run: FinishedRun, datasets: Sequence[str]) -> AskedMentions:
    """What the run was asked of these datasets.  Raises BadInput where KB or data are not those of the run."""
    expected = run.inputs["kb_fingerprint"]
    if kb.fingerprint != expected:
        raise BadInput(
            f"kb {kb.name!r} is not the one that {run.folder} was asked over, or has changed since: state "
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
                f"{data} is not what {run.folder} was asked of {dataset}, or has changed since",
                hint=shell_line("localmel data check", data),
            )
        found[dataset] = {one.mention.id: one for one in questions.asked}
    return AskedMentions(questions=found, kb=kb)


# --- slices ---------------------------------------------------------------------------------------------------------


def _slices(kb: KnowledgeBase, asked: Mapping[MentionId, Question]) -> dict[str, frozenset[MentionId]]:
    """Those of the strict protocol but for what only a generator knows; then rare golds, and types of the gold."""
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
    """The mentions whose gold has the lowest values, up to and with the one that a third of them do not exceed.

    None where the KB knows the value of less than half of the golds; a gold without one is in neither part."""
    known = sorted(values[row] for row in gold.values() if row in values)
    if not known or 2 * len(known) < len(gold):
        return {}
    edge = known[(len(known) - 1) // 3]
    shown = f"{edge:,.3g}"
    low = frozenset(key for key, row in gold.items() if row in values and values[row] <= edge)
    high = frozenset(key for key, row in gold.items() if row in values and values[row] > edge)
    return {f"{low_name} {shown}": low, f"{high_name} {shown}": high}


def _counts(kb: KnowledgeBase, rows: set[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Row -> popularity where it is known, and row -> number of triples."""
    popularity: dict[int, float] = {}
    n_triples: dict[int, float] = {}
    for batch in _batches(sorted(rows)):
        sql = f"SELECT row, popularity, n_triples FROM entities WHERE row IN ({_marks(batch)})"
        for row, value, n in kb.select(sql, batch):
            n_triples[row] = n
            if value is not None:
                popularity[row] = value
    return popularity, n_triples


def _types(kb: KnowledgeBase, rows: set[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for batch in _batches(sorted(rows)):
        sql = (
            "SELECT t.head, t.tail FROM triples t JOIN relations r USING (relation) "
            f"WHERE r.label IN ({_marks(TYPES)}) AND t.head IN ({_marks(batch)})"
        )
        for row, tail in kb.select(sql, [*TYPES, *batch]):
            found.setdefault(row, set()).add(tail)
    return found


def triples_of(kb: KnowledgeBase, ids: Iterable[EntityId]) -> dict[EntityId, list[Triple]]:
    """What the KB states of each of these entities; of one that it lacks, nothing."""
    rows = _rows(kb, ids)
    found: dict[EntityId, list[Triple]] = {entity: [] for entity in rows}
    by_row = {row: entity for entity, row in rows.items()}
    labels = {one.id: one.label for one in kb.entities_at(sorted(by_row))}
    for batch in _batches(sorted(by_row)):
        sql = (
            "SELECT t.head, r.label, t.tail FROM triples t JOIN relations r USING (relation) "
            f"WHERE t.head IN ({_marks(batch)}) GROUP BY t.head, r.label, t.tail ORDER BY min(t.triple)"
        )
        for row, relation, tail in kb.select(sql, batch):
            entity = by_row[row]
            found[entity].append(Triple(head=labels[entity], relation=relation, tail=tail, source="kb"))
    return found


# --- how they look --------------------------------------------------------------------------------------------------


def shown_mentions(
    asked: AskedMentions, wanted: Sequence[tuple[str, MentionId]], slices: Mapping[str, Mapping[str, frozenset[str]]]
) -> tuple[dict[tuple[str, MentionId], ShownMention], int]:
    """Each wanted mention in its sentence, with its picture; and how many pictures did not fit in."""
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
    """A small JPEG as a data URI, or an empty one and why there is none."""
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
    """Entities in words, some of them with the first of their triples; one that the KB lacks is left out."""
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
    found: dict[EntityId, int] = {}
    for batch in _batches(sorted(set(ids))):
        found.update(kb.select(f"SELECT id, row FROM entities WHERE id IN ({_marks(batch)})", batch))
    return found


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
