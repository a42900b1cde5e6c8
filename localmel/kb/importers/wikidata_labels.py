"""The labels of a whole Wikidata dump, kept on disk while it is read.

In: ids with labels, in the order of the dump.  Out: labels by id.  Memory is bounded; the file has no name and goes
with the object.  Properties that the dump does not label have their English label from the table beside this file."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from localmel.kb.schema import translated

_ROWS_AT_ONCE = 4096
_IDS_AT_ONCE = 500


class Labels:
    """Write with `add`, then `finish`, then read."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, str, int]] = []
        self._connection = sqlite3.connect("", isolation_level=None)  # "": a temporary file of SQLite's own
        for statement in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            self._connection.execute(f"PRAGMA {statement}")
        self._connection.execute("CREATE TABLE labels(number INTEGER, label TEXT, line INTEGER)")

    def add(self, entity_id: str, label: str, line: int) -> None:
        """Remember a label ("" for an entity without one).  Where an id comes again, the first time counts."""
        self._waiting.append((_number(entity_id), label, line))
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._write()

    def finish(self) -> None:
        """Make what was added ready to be read."""
        self._write()
        self._execute("CREATE INDEX by_number ON labels(number)")

    def of(self, ids: Iterable[str]) -> dict[str, str]:
        """The labels of those ids that have one, in the dump or (properties) in the shipped table."""
        wanted = {_number(entity_id): entity_id for entity_id in ids}
        numbers = list(wanted)
        found: dict[str, str] = {}
        for start in range(0, len(numbers), _IDS_AT_ONCE):
            batch = numbers[start : start + _IDS_AT_ONCE]
            marks = ",".join("?" * len(batch))
            sql = f"SELECT number, label FROM labels WHERE number IN ({marks}) ORDER BY rowid DESC"
            for number, label in self._execute(sql, batch):
                found[wanted[number]] = label
        shipped = shipped_property_labels()
        named = ((entity_id, found.get(entity_id) or shipped.get(entity_id)) for entity_id in wanted.values())
        return {entity_id: label for entity_id, label in named if label}

    def first_line(self, entity_id: str) -> int:
        """Where the id stood first; 0 for one that was never added."""
        rows = self._execute("SELECT min(line) FROM labels WHERE number = ?", (_number(entity_id),))
        return int(rows[0][0] or 0)

    def _write(self) -> None:
        try:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT INTO labels VALUES (?, ?, ?)", self._waiting)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise translated(error, _place()) from error
        self._waiting.clear()

    def _execute(self, sql: str, values: Iterable[int] = ()) -> list[tuple[int, str]]:
        try:
            return self._connection.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise translated(error, _place()) from error


@cache
def shipped_property_labels() -> dict[str, str]:
    """The English labels of the most used properties of Wikidata."""
    text = Path(__file__).with_name("wikidata_properties.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in text.splitlines()[1:])


def _number(entity_id: str) -> int:
    """Items count upwards from 1, properties downwards from -1."""
    number = int(entity_id[1:])
    return number if entity_id[0] == "Q" else -number


def _place() -> Path:
    return Path(tempfile.gettempdir()) / "labels of the dump"
