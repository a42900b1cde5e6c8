"""Further texts about entities: abstracts that were imported, descriptions that a model wrote.

In: a KB; texts by entity.  Out: the same texts, each with its source, for some entities or for all.  They have a table
of their own, created with the first text; the description of an entity is never changed, and no model overwrites
another's texts.  A trigger deletes them with their entity.  They do not change the KB's fingerprint, because no index
is made from them.  Knows no model."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from localmel.errors import BadInput, CorruptArtifact, UsageError, shell_line
from localmel.kb.schema import batches
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import fold
from localmel.kb.write import move_state, writing
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityText:
    """One text about an entity."""

    source: TextSource
    text: str
    model: str = ""
    "The model that wrote it; empty for an abstract."
    facts: Mapping[str, Any] = field(default_factory=dict)
    "How it was made: `known`, `turns`, `made_from`, and the `names` and `years` in it that no source has."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptText:
    """A text to keep in a KB."""

    entity_id: EntityId
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityTexts:
    """The texts of one entity, each starting with its label."""

    static: str
    "Its abstract, else its description, else only its label."
    written: str
    "The description that a model wrote; empty if none did."


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCount:
    """The number of texts of one source in a KB."""

    source: TextSource
    model: str
    entities: int
    doubtful: int
    "How many of them have a name or a year that no source has."


def prepare_texts(connection: sqlite3.Connection) -> None:
    """Create the table if it is missing, inside an open transaction of `kb.write.writing`."""
    connection.execute(_TABLE)
    connection.execute(_TRIGGER)


def keep_texts(folder: Path, source: TextSource, model: str, texts: Sequence[KeptText]) -> int:
    """Write texts in one transaction and return how many; an entity deleted meanwhile is skipped."""
    if not texts:
        return 0
    with writing(folder) as connection:
        prepare_texts(connection)
        rows = rows_of(connection, [one.entity_id for one in texts])
        values = [(rows[one.entity_id], one.text, one.facts) for one in texts if one.entity_id in rows]
        keep_rows(connection, source, model, values)
    return len(values)


def keep_rows(
    connection: sqlite3.Connection, source: TextSource, model: str, values: Iterable[tuple[int, str, Mapping[str, Any]]]
) -> None:
    """Write (row, text, facts) in the open transaction and change the state of these texts."""
    digest = hashlib.sha256()
    for row, text, facts in values:
        line = (row, source, model, text, json.dumps(dict(facts), ensure_ascii=False, sort_keys=True))
        connection.execute(_KEEP, line)
        digest.update(repr(line).encode())
    move_state(connection, _state_key(source, model), digest)


def rows_of(connection: sqlite3.Connection, ids: Sequence[EntityId]) -> dict[EntityId, int]:
    """Return the rows of those ids that the KB has."""
    found: dict[EntityId, int] = {}
    for some, marks in batches(ids):
        found.update(connection.execute(f"SELECT id, row FROM entities WHERE id IN ({marks})", some).fetchall())
    return found


# --- reading --------------------------------------------------------------------------------------------------------


def has_texts(kb: KnowledgeBase) -> bool:
    """Tell whether this KB has ever held a text."""
    return bool(kb.select("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'texts'"))


def texts_of(kb: KnowledgeBase, entity_id: EntityId) -> list[EntityText]:
    """Return every text about one entity, abstracts first.  Raises BadInput for an unknown id."""
    return texts_at(kb, [kb.row(entity_id)])[0]


def texts_at(kb: KnowledgeBase, rows: Sequence[int]) -> list[list[EntityText]]:
    """Return every text about the entities at these rows, in their order."""
    found: dict[int, list[EntityText]] = {row: [] for row in rows}
    if has_texts(kb):
        sql = "SELECT entity, source, model, text, facts FROM texts WHERE entity IN ({}) ORDER BY source, model"
        for row, source, model, text, facts in kb.select_in(sql, rows):
            found[row].append(EntityText(source=source, model=model, text=text, facts=_facts(kb, facts)))
    return [found[row] for row in rows]


def entity_texts(kb: KnowledgeBase, rows: Sequence[int], *, model: str = "") -> list[EntityTexts]:
    """Return static and written text of the entities at these rows.

    `model` chooses among several models that wrote texts.  Raises UsageError if that choice is not clear."""
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
    """Yield the texts of every entity in row order, in bounded memory."""
    for some, _ in batches([row for (row,) in kb.select("SELECT row FROM entities ORDER BY row")]):
        yield from entity_texts(kb, some, model=model)


def named_texts(kb: KnowledgeBase, source: TextSource, model: str = "") -> Iterator[str]:
    """Yield one source's text of every entity in row order, as in `entity_texts`; empty if it has none."""
    if not has_texts(kb):
        return
    sql = (
        "SELECT e.label, t.text FROM entities e LEFT JOIN texts t "
        "ON t.entity = e.row AND t.source = ? AND t.model = ? ORDER BY e.row"
    )
    for label, text in kb.stream(sql, (source, model)):
        yield _named(label, text) if text else ""


def the_model(kb: KnowledgeBase, model: str = "") -> str:
    """Return the model whose texts to use: the one named or the only one; empty if no model wrote any.

    Raises UsageError for a model that wrote nothing, and for several models if none is named."""
    wrote = [one.model for one in text_counts(kb) if one.source == WRITTEN]
    if model and model not in wrote:
        fact = f"model {model!r} wrote no text in kb {kb.name!r}; models that did: {', '.join(wrote) or 'none'}"
        raise UsageError(fact, hint=shell_line("localmel kb describe", kb.folder))
    if not model and len(wrote) > 1:
        fact = f"{len(wrote)} models wrote texts in kb {kb.name!r}: {', '.join(wrote)}"
        raise UsageError(fact, hint=f"--model {wrote[0]}")
    return model or (wrote[0] if wrote else "")


def text_counts(kb: KnowledgeBase) -> list[TextCount]:
    """Count the texts by source and model."""
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
    """Return a hash that changes with the texts of this source; empty if there are none."""
    found = kb.select("SELECT value FROM meta WHERE key = ?", (_state_key(source, model),))
    return str(found[0][0]) if found else ""


def _state_key(source: TextSource, model: str) -> str:
    return f"texts:{source}:{model}"


def _named(label: str, text: str) -> str:
    if not text:
        return label
    begins = fold(text[: 2 * len(label) + 16])
    return text if f"{begins} ".startswith(f"{fold(label)} ") else f"{label}: {text}"


def _facts(kb: KnowledgeBase, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CorruptArtifact(f"a text of kb {kb.name!r} has facts that are not JSON ({error})") from None
    if not isinstance(found, dict):
        raise BadInput(f"a text of kb {kb.name!r} has facts that are not an object: {text!r:.60}")
    return found
