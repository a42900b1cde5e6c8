"""The tables of a KB, their version, and the checks made when one is opened.

In: a path.  Out: an open, checked database.  Labels and aliases share the table `names`, since a mention may use
either; the label is marked.  `name_words` (FTS5) finds the words of a name; `words` lists them forwards and backwards,
so that a misspelt word is found by its beginning or its end."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from localmel.errors import BadInput, CorruptArtifact, KbBusy, LocalmelError, OutOfSpace, shell_line

APPLICATION_ID = 0x6C6D656C
VERSION = 1
DATABASE = "kb.sqlite"
BUSY_SECONDS = 5.0
"How long a writer waits for another one to finish."
_BATCH = 500  # values per IN (...) list; SQLite allows 32,766

T = TypeVar("T")

TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE entities(
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, label TEXT NOT NULL, description TEXT NOT NULL,
    popularity REAL, n_triples INTEGER NOT NULL DEFAULT 0);
CREATE TABLE names(
    name INTEGER PRIMARY KEY, entity INTEGER NOT NULL, text TEXT NOT NULL, folded TEXT NOT NULL,
    is_label INTEGER NOT NULL);
CREATE TABLE relations(
    relation INTEGER PRIMARY KEY, predicate TEXT NOT NULL, label TEXT NOT NULL, UNIQUE(predicate, label));
CREATE TABLE triples(
    triple INTEGER PRIMARY KEY, head INTEGER NOT NULL, relation INTEGER NOT NULL,
    tail_id TEXT NOT NULL, tail TEXT NOT NULL);
CREATE TABLE images(entity INTEGER PRIMARY KEY, path TEXT NOT NULL);
CREATE VIRTUAL TABLE name_words USING fts5(
    folded, content='names', content_rowid='name', tokenize='unicode61 remove_diacritics 0');
CREATE TABLE words(word TEXT PRIMARY KEY, backwards TEXT NOT NULL) WITHOUT ROWID;
"""
INDEXES = """
CREATE INDEX names_folded ON names(folded);
CREATE INDEX names_entity ON names(entity);
CREATE INDEX triples_head ON triples(head);
CREATE INDEX words_backwards ON words(backwards);
"""


def create(path: Path, shown: Path) -> sqlite3.Connection:
    """Create an empty database without indexes (they follow the first bulk load).  Errors name the path `shown`."""
    connection = None
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.executescript(TABLES)
    except sqlite3.Error as error:
        if connection:
            connection.close()
        raise translated(error, shown) from error
    return connection


def connect(path: Path, *, writable: bool, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open an existing database; check that it is a whole KB of a version this code reads."""
    mode = "mode=rw" if writable else "mode=ro&immutable=1" if _is_at_rest(path) else "mode=ro"
    place, connection = f"{path.resolve().as_uri()}?{mode}", None
    try:
        connection = sqlite3.connect(
            place, uri=True, isolation_level=None, timeout=busy_seconds, check_same_thread=False
        )
        _check(connection, path)
    except (sqlite3.Error, CorruptArtifact) as error:
        if connection:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise translated(error, path) from error
        raise
    return connection


def batches(values: Sequence[T]) -> Iterator[tuple[Sequence[T], str]]:
    """Yield the values some at a time, each time with the question marks of an `IN (...)` list."""
    for start in range(0, len(values), _BATCH):
        batch = values[start : start + _BATCH]
        yield batch, ",".join("?" * len(batch))


def _is_at_rest(path: Path) -> bool:
    """Tell whether this process cannot write next to the KB (a CD, a read-only mount) and nobody else is writing it.

    To share a database with a writer, SQLite must write next to it; only here it need not."""
    return not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise CorruptArtifact(
            f"cannot open KB: {path} is not a localmel KB", hint="localmel kb build NAME --entities FILE --triples FILE"
        )
    if version != VERSION:
        raise CorruptArtifact(
            f"cannot open KB: {path} has schema version {version}; this localmel reads version {VERSION}",
            hint="pip install --upgrade localmel" if version > VERSION else "localmel kb build NAME --replace ...",
        )
    connection.execute("SELECT count(*) FROM meta").fetchone()


_NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_SHMMAP")
"SQLite's names for a full disk, a used-up quota, or a limit on the size of a file."


def translated(error: sqlite3.Error, path: Path) -> LocalmelError:
    """Return the localmel error for what SQLite reports about the database at `path`."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return KbBusy(
            f"another process is writing {path}", hint="wait until it finishes, then run the same command again"
        )
    if name in _NO_ROOM:
        return OutOfSpace(
            f"the disk that holds {path} is full ({error}); the KB is unchanged",
            hint=shell_line("df -h", path.parent, note="free some space, then run the same command again"),
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR")):
        return CorruptArtifact(
            f"{path} is damaged ({error})", hint="localmel kb build NAME ...   # from the files it was built from"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return BadInput(f"cannot open {path}: {error}", hint=shell_line("ls -l", path.parent))
    return CorruptArtifact(f"cannot read {path} as a KB: {error}", hint=shell_line("localmel kb info", path.parent))
