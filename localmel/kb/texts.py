"""Texts about entities beside their descriptions: abstracts that were imported, descriptions that a model wrote.

In: a KB; texts by entity.  Out: the same texts, each with its source, whole or by pieces.  They stand in a table of
their own, made when the first text is kept, which a KB without texts lacks; the description of an entity is never
touched, and what one model wrote not by another.  They go with their entity (a trigger of the database sees to it) and
do not move the KB's fingerprint: no index is made from them.  Knows no model."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from localmel.errors import BadInput, CorruptArtifact, UsageError, shell_line
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import fold
from localmel.kb.write import writing
from localmel.records import EntityId

TextSource = Literal["abstract", "written"]
ABSTRACT: TextSource = "abstract"
WRITTEN: TextSource = "written"
_TABLE = """
CREATE TABLE IF NOT EXISTS texts(
    number INTEGER PRIMARY KEY, entity INTEGER NOT NULL, source TEXT NOT NULL, model TEXT NOT NULL,
    text TEXT NOT NULL, facts TEXT NOT NULL, UNIQUE(entity, source, model))
"""
_TRIGGER = """
CREATE TRIGGER IF NOT EXISTS texts_go_with_their_entity AFTER DELETE ON entities
BEGIN DELETE FROM texts WHERE entity = old.row; END
"""
_KEEP = (
    "INSERT INTO texts(entity, source, model, text, facts) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT(entity, source, model) DO UPDATE SET text = excluded.text, facts = excluded.facts"
)
_AT_ONCE = 500
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityText:
    """One text about an entity."""

    source: TextSource
    text: str
    model: str = ""
    "Who wrote it; empty for an abstract."
    facts: Mapping[str, Any] = field(default_factory=dict)
    "How it came about: `known`, `turns`, `names` and `years` in it that stand in no source, `made_from`."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptText:
    """A text on its way into a KB."""

    entity_id: EntityId
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityTexts:
    """What is said of one entity, each part with its label before it unless it begins with it."""

    static: str
    "Its abstract, else its description, else its label alone."
    written: str
    "What a model wrote; empty where none did."


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCount:
    """How many texts of one source a KB holds."""

    source: TextSource
    model: str
    entities: int
    doubtful: int
    "Of them with a name or a year that stands in no source."


def prepare_texts(connection: sqlite3.Connection) -> None:
    """Make the table where there is none, inside an open transaction of `kb.write.writing`."""
    connection.execute(_TABLE)
    connection.execute(_TRIGGER)


def keep_texts(folder: Path, source: TextSource, model: str, texts: Sequence[KeptText]) -> int:
    """Write texts in one transaction.  Returns how many; an entity that is gone meanwhile is passed over."""
    if not texts:
        return 0
    with writing(folder) as connection:
        prepare_texts(connection)
        rows = rows_of(connection, [one.entity_id for one in texts])
        values = [(rows[one.entity_id], one.text, one.facts) for one in texts if one.entity_id in rows]
        keep_rows(connection, source, model, values)
    return len(values)


def keep_rows(
    connection: sqlite3.Connection,
    source: TextSource,
    model: str,
    values: Iterable[tuple[int, str, Mapping[str, Any]]],
) -> None:
    """Keep (row, text, facts) in the open transaction, and let the state of these texts move."""
    digest = hashlib.sha256()
    for row, text, facts in values:
        line = (row, source, model, text, json.dumps(dict(facts), ensure_ascii=False, sort_keys=True))
        connection.execute(_KEEP, line)
        digest.update(repr(line).encode())
    key = _state_key(source, model)
    old = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    moved = hashlib.sha256(((old[0] if old else "") + digest.hexdigest()).encode()).hexdigest()
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, moved))


def rows_of(connection: sqlite3.Connection, ids: Sequence[EntityId]) -> dict[EntityId, int]:
    """Id -> row, for those that the KB has."""
    found: dict[EntityId, int] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        sql = f"SELECT id, row FROM entities WHERE id IN ({','.join('?' * len(some))})"
        found.update(connection.execute(sql, list(some)).fetchall())
    return found


# --- reading --------------------------------------------------------------------------------------------------------


def has_texts(kb: KnowledgeBase) -> bool:
    """Whether a text was ever kept in this KB."""
    return bool(kb.select("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'texts'"))


def texts_of(kb: KnowledgeBase, entity_id: EntityId) -> list[EntityText]:
    """Every text about one entity, abstracts first.  Raises BadInput for an unknown id."""
    return texts_at(kb, [kb.row(entity_id)])[0]


def texts_at(kb: KnowledgeBase, rows: Sequence[int]) -> list[list[EntityText]]:
    """Every text about the entities at these rows, in their order."""
    found: dict[int, list[EntityText]] = {row: [] for row in rows}
    if has_texts(kb):
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            sql = (
                "SELECT entity, source, model, text, facts FROM texts "
                f"WHERE entity IN ({','.join('?' * len(some))}) ORDER BY source, model"
            )
            for row, source, model, text, facts in kb.select(sql, some):
                found[row].append(EntityText(source=source, model=model, text=text, facts=_facts(kb, facts)))
    return [found[row] for row in rows]


def entity_texts(kb: KnowledgeBase, rows: Sequence[int], *, model: str = "") -> list[EntityTexts]:
    """Static and written text of the entities at these rows; memory is that of what is returned.

    `model` says whose texts are meant where several have written.  Raises UsageError where that is not clear."""
    chosen = the_model(kb, model)
    every = texts_at(kb, rows)
    result = []
    for entity, texts in zip(kb.entities_at(rows), every, strict=True):
        abstract = next((one.text for one in texts if one.source == ABSTRACT), "")
        written = next((one.text for one in texts if one.source == WRITTEN and one.model == chosen), "")
        static = _named(entity.label, abstract or entity.description)
        result.append(EntityTexts(static=static, written=_named(entity.label, written) if written else ""))
    return result


def all_entity_texts(kb: KnowledgeBase, *, model: str = "") -> Iterator[EntityTexts]:
    """Those of every entity in row order, in bounded memory."""
    rows = iter([row for (row,) in kb.select("SELECT row FROM entities ORDER BY row")])
    while some := list(islice(rows, _AT_ONCE)):
        yield from entity_texts(kb, some, model=model)


def named_texts(kb: KnowledgeBase, source: TextSource, model: str = "") -> Iterator[str]:
    """The text of one source of every entity in row order, as `entity_texts` gives it; empty where there is none."""
    if not has_texts(kb):
        return
    sql = (
        "SELECT e.label, t.text FROM entities e LEFT JOIN texts t "
        "ON t.entity = e.row AND t.source = ? AND t.model = ? ORDER BY e.row"
    )
    for label, text in kb.stream(sql, (source, model)):
        yield _named(label, text) if text else ""


def the_model(kb: KnowledgeBase, model: str = "") -> str:
    """The model whose texts are meant: the one named, or the only one; empty where none has written.

    Raises UsageError for a name that wrote nothing, and for several without a name."""
    wrote = [one.model for one in text_counts(kb) if one.source == WRITTEN]
    if model and model not in wrote:
        fact = f"no text in kb {kb.name!r} was written by {model!r}; written have: {', '.join(wrote) or 'none'}"
        raise UsageError(fact, hint=shell_line("localmel kb describe", kb.folder))
    if not model and len(wrote) > 1:
        fact = f"{len(wrote)} models wrote texts in kb {kb.name!r}: {', '.join(wrote)}"
        raise UsageError(fact, hint=f"--model {wrote[0]}")
    return model or (wrote[0] if wrote else "")


def text_counts(kb: KnowledgeBase) -> list[TextCount]:
    """What there is, by source and model."""
    if not has_texts(kb):
        return []
    sql = (
        "SELECT source, model, count(*), sum(coalesce(json_array_length(facts, '$.names'), 0) "
        "+ coalesce(json_array_length(facts, '$.years'), 0) > 0) FROM texts GROUP BY source, model ORDER BY 1, 2"
    )
    return [
        TextCount(source=source, model=model, entities=entities, doubtful=doubtful)
        for source, model, entities, doubtful in kb.select(sql)
    ]


def texts_state(kb: KnowledgeBase, source: TextSource, model: str = "") -> str:
    """A hash that moves when texts of this source change; empty where there are none."""
    found = kb.select("SELECT value FROM meta WHERE key = ?", (_state_key(source, model),))
    return str(found[0][0]) if found else ""


def _state_key(source: TextSource, model: str) -> str:
    return f"texts:{source}:{model}"


def _named(label: str, text: str) -> str:
    if not text:
        return label
    begins = fold(text[: 2 * len(label) + 16])
    return text if f"{begins} ".startswith(f"{fold(label)} ") else f"{label}: {text}"


def _facts(kb: KnowledgeBase, text: str) -> Json:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CorruptArtifact(f"a text of kb {kb.name!r} has facts that are no JSON ({error})") from None
    if not isinstance(found, dict):
        raise BadInput(f"a text of kb {kb.name!r} has facts that are no object: {text!r:.60}")
    return found
