"""Let a language model describe a KB's entities: what `localmel kb describe` runs.

In: a KB, an engine.  Out: texts of source `written` in the KB, each with the model's name and with the names and years
that no source has; and counts.  Every answer is written to `<kb>/journals/describe.jsonl` before it is used, so that a
killed run resumes where it stopped and no unchanged entity is asked about twice.  Descriptions and abstracts stay as
they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from localmel.engines.protocol import Engine, EngineFacts, Response
from localmel.errors import BadInput, shell_line
from localmel.generate.entity_describing import EntityRecord, Unwritten, Written, describe_entities
from localmel.generate.grounding import ungrounded
from localmel.kb.store import KnowledgeBase
from localmel.kb.texts import ABSTRACT, WRITTEN, EntityText, KeptText, keep_texts, texts_at
from localmel.records import Entity, EntityId
from localmel.settings import EngineSettings
from localmel.store import progress
from localmel.store.journal import Journal, JournalBusy

JOURNAL = Path("journals") / "describe.jsonl"
TYPES = ("instance of", "type", "subclass of")
"Relations whose tails are types of an entity."
_ROWS_AT_ONCE, _KEPT_AT_ONCE = 200, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubtful:
    """A written text with a name or year that no source has."""

    entity_id: EntityId
    text: str
    names: tuple[str, ...]
    years: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Described:
    """The result of a run."""

    model: str
    "Its name, kept with every text; `scripted` for a script."
    revision: str
    asked: int = 0
    "Entities asked about."
    left_out: int = 0
    "Entities the model had described before, with nothing changed in the KB since."
    written: int = 0
    unknown: int = 0
    "Texts about entities that the model said it does not know."
    with_text: int = 0
    "Texts written in a second turn, with the abstract or description shown."
    answers: int = 0
    "The model's answers, including those from the journal."
    answers_now: int = 0
    doubtful: list[Doubtful] = field(default_factory=list)
    unwritten: list[dict[str, str]] = field(default_factory=list)
    "Entities without a usable answer, with the reason."

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON, for programs."""
        return {
            **asdict(self),
            "names_in_no_source": sum(len(one.names) for one in self.doubtful),
            "years_in_no_source": sum(len(one.years) for one in self.doubtful),
        }


def _name_of(facts: EngineFacts) -> str:
    """Return the model's name in the catalog or that of its folder; `scripted` for a script."""
    if facts.engine == "scripted":
        return "scripted"
    return Path(facts.model).name if Path(facts.model).is_dir() else facts.model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """One entity with everything that the KB says about it."""

    record: EntityRecord
    sources: tuple[str, ...]
    made_from: str


def describe_kb(
    kb: KnowledgeBase,
    engine: Engine,
    settings: EngineSettings,
    *,
    ids: Sequence[EntityId] = (),
    limit: int = 0,
    only_missing: bool = False,
    seed: int = 0,
) -> Described:
    """Let a model describe these entities, or all in row order; at most `limit`, 0 for no limit.

    only_missing: leave out entities that this revision of the model described from the same knowledge.  Texts written
    before a failure are kept.  Raises EngineStopped, JournalBusy, BadInput."""
    rows = [kb.row(one) for one in dict.fromkeys(ids)] or [
        row for (row,) in kb.select("SELECT row FROM entities ORDER BY row")
    ]
    if not rows:
        raise BadInput(f"kb {kb.name!r} has no entities", hint=shell_line("localmel kb add", kb.folder, "--help"))
    facts = engine.facts()
    done = Described(model=_name_of(facts), revision=facts.revision)
    known: dict[EntityId, _Known] = {}

    def records() -> Iterator[EntityRecord]:
        for one, before in _all_known(kb, rows, done.model):
            if limit and done.asked >= limit:
                return
            if only_missing and before == (one.made_from, done.revision):
                done.left_out += 1
                progress.advance(1)
                continue
            done.asked += 1
            known[one.record.entity_id] = one
            yield one.record

    progress.begin("describing entities", min(limit, len(rows)) if limit and not only_missing else len(rows))
    with _journal(kb) as journal:
        if journal.note:
            progress.note(journal.note)
        before = len(journal)

        def count(_: Response) -> None:
            done.answers += 1

        outcomes = describe_entities(records(), engine, settings, journal, seed=seed, on_response=count)
        try:
            for kept in _kept(outcomes, known, done):
                keep_texts(kb.folder, WRITTEN, done.model, kept)
        finally:
            done.answers_now = len(journal) - before
    if done.asked and not done.written:
        progress.note(
            f"nothing was written: no answer about {done.asked:,} entities was usable, for example: {_why(done)}"
        )
    return done


def _why(done: Described) -> str:
    return done.unwritten[0]["problem"] if done.unwritten else "there was no answer"


def _journal(kb: KnowledgeBase) -> Journal:
    try:
        return Journal(kb.folder / JOURNAL)
    except JournalBusy as error:
        raise JournalBusy(error.fact, hint="wait until it has ended, then run the same command again") from None


def _kept(
    outcomes: Iterator[Written | Unwritten], known: dict[EntityId, _Known], done: Described
) -> Iterator[list[KeptText]]:
    """Yield texts in batches; on an error those before it, then the error."""
    waiting: list[KeptText] = []
    try:
        for outcome in outcomes:
            one = known.pop(outcome.record.entity_id)
            progress.advance(1)
            if isinstance(outcome, Unwritten):
                done.unwritten.append({"entity_id": one.record.entity_id, "problem": outcome.problem})
                continue
            waiting.append(_counted(outcome, one, done))
            if len(waiting) >= _KEPT_AT_ONCE:
                yield waiting
                waiting = []
    except BaseException:
        yield waiting
        raise
    yield waiting


def _counted(written: Written, known: _Known, done: Described) -> KeptText:
    entity_id = written.record.entity_id
    found = ungrounded(written.text, known.sources)
    done.written += 1
    done.unknown += not written.known
    done.with_text += written.turns == 2
    if found:
        done.doubtful.append(Doubtful(entity_id=entity_id, text=written.text, names=found.names, years=found.years))
    facts = {
        "known": written.known,
        "turns": written.turns,
        "names": list(found.names),
        "years": list(found.years),
        "made_from": known.made_from,
        "revision": done.revision,
    }
    return KeptText(entity_id=entity_id, text=written.text, facts=facts)


# --- what the KB knows ----------------------------------------------------------------------------------------------


def _all_known(kb: KnowledgeBase, rows: Sequence[int], model: str) -> Iterator[tuple[_Known, tuple[str, str] | None]]:
    """Yield every entity with what its text by this model was made from, and by which revision; None without a text."""
    remaining = iter(rows)
    while some := list(islice(remaining, _ROWS_AT_ONCE)):
        triples = _triples(kb, some)
        entities, texts = kb.entities_at(some), texts_at(kb, some)
        for row, entity, own in zip(some, entities, texts, strict=True):
            before = next((one for one in own if one.source == WRITTEN and one.model == model), None)
            facts = before.facts if before else None
            made = (str(facts.get("made_from", "")), str(facts.get("revision", ""))) if facts is not None else None
            yield _known(entity, triples.get(row, []), own), made


def _triples(kb: KnowledgeBase, rows: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """Return row -> its (relation, tail) pairs, each once, in the order of the import."""
    sql = (
        "SELECT t.head, r.label, t.tail FROM triples t JOIN relations r USING (relation) "
        f"WHERE t.head IN ({','.join('?' * len(rows))}) ORDER BY t.triple"
    )
    found: dict[int, dict[tuple[str, str], None]] = {}
    for head, relation, tail in kb.select(sql, list(rows)):
        found.setdefault(head, {})[relation, tail] = None
    return {row: list(triples) for row, triples in found.items()}


def _known(entity: Entity, triples: Sequence[tuple[str, str]], texts: Sequence[EntityText]) -> _Known:
    abstract = next((one.text for one in texts if one.source == ABSTRACT), "")
    types = tuple(dict.fromkeys(tail for relation, tail in triples if relation in TYPES))
    record = EntityRecord(
        entity_id=entity.id,
        label=entity.label,
        aliases=entity.aliases,
        types=types,
        triples=tuple(one for one in triples if one[0] not in TYPES),
        text=abstract or entity.description,
    )
    sources = (
        *(entity.label, *entity.aliases, entity.description, abstract),
        *(f"{relation}: {tail}" for relation, tail in triples),
    )
    made_from = hashlib.sha256(json.dumps([record.shown(), record.text]).encode()).hexdigest()[:16]
    return _Known(record=record, sources=tuple(filter(None, sources)), made_from=made_from)
