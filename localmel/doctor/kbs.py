"""The health of knowledge bases: does the database read, and is what was derived from it of its present state?

In: a profile, and the name of a KB or none.  Out: checks, two for each KB.  Changes nothing; what takes too long is cut
short and said to be."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial

from localmel.doctor.check import Check, from_error, guarded, ok, skip
from localmel.errors import CorruptArtifact, LocalmelError, shell_line
from localmel.kb.places import STARTER, list_kbs, open_kb, starter_folder
from localmel.kb.schema import DATABASE, connect, translated
from localmel.kb.store import KnowledgeBase, is_kb
from localmel.settings import Profile
from localmel.weights.network import network_folder

_SECONDS_EACH, _SECONDS_ALL = 1.0, 2.0
"How long a database is looked through, and all KBs together, unless everything is to be read."
_STEPS = 20_000
"Instructions of SQLite's machine between two looks at the clock."


def look_at_kbs(profile: Profile, kb: str | None, *, readable: bool = True, thorough: bool = False) -> Iterator[Check]:
    """The KB that was named, which is needed; without one, all of this user's, of which none is.

    `readable`: whether numpy and safetensors, which read arrays, can be imported at all."""
    started = time.monotonic()
    for name in list_kbs() if kb is None else [kb]:
        shown = check_name(name)
        if kb is None and not thorough and time.monotonic() - started > _SECONDS_ALL:
            yield skip(
                f"kb.{shown}.readable", f"not looked at for want of time: {shell_line('localmel doctor --kb', name)}"
            )
            continue
        look = partial(one_kb, name, profile, readable=readable, needed=kb is not None, thorough=thorough)
        yield from guarded(f"kb.{shown}.readable", look)


def check_name(kb: str) -> str:
    """A KB in the id of its checks: its name, or the last part of its path."""
    return "".join(char if char.isalnum() or char in "_-" else "-" for char in kb.rstrip("/").rpartition("/")[2]) or "-"


def one_kb(name: str, profile: Profile, *, readable: bool, needed: bool, thorough: bool) -> Iterator[Check]:
    """Readable, then indexed."""
    database, index = (f"kb.{check_name(name)}.{what}" for what in ("readable", "index"))
    if name == STARTER and not is_kb(starter_folder()):
        yield skip(database, "the starter KB is built when it is first used")
        return
    try:
        with open_kb(name) as kb:
            whole = _looked_through(kb, seconds=None if thorough else _SECONDS_EACH)
            part = "" if whole else "; looked through in part, --thorough does it whole"
            yield ok(database, f"{len(kb):,} entities in {kb.folder}{part}")
            if readable:
                yield from guarded(index, partial(_index, index, kb, profile, needed=needed))
            else:
                yield skip(index, "numpy or safetensors, which read it, cannot be imported")
    except LocalmelError as error:
        yield from_error(database, error, needed=needed)


def _looked_through(kb: KnowledgeBase, *, seconds: float | None) -> bool:
    """Whether SQLite could go through the whole database in that time.  Raises CorruptArtifact for what it finds."""
    path, until = kb.folder / DATABASE, time.monotonic() + (seconds or 0)
    with closing(connect(path, writable=False)) as connection:
        if seconds is not None:
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                return False
            raise translated(error, path) from error
        except sqlite3.Error as error:
            raise translated(error, path) from error
    if found != ["ok"]:
        hint = shell_line("localmel kb build", kb.name, note="anew, from the files it was made of")
        raise CorruptArtifact(f"{path} is damaged: {'; '.join(found)[:300]}", hint=hint)
    return True


def _index(name: str, kb: KnowledgeBase, profile: Profile, *, needed: bool) -> Iterator[Check]:
    """Whether vectors and fused vectors for this profile stand, and are of the KB's present state."""
    from localmel.encode.kb_vectors import load_vectors
    from localmel.encode.space import Space
    from localmel.retrieve.entity_index import load_entity_index
    from localmel.retrieve.fused import load_fused, load_network

    try:
        network = load_network(network_folder(profile))
    except LocalmelError:
        yield skip(name, f"profile {profile.name} has no network yet, and an index is made with it")
        return
    space = Space(name=network.space, width=network.settings.text_width, weights_sha256=network.space_sha256)
    try:
        packed, _ = load_vectors(kb, space)
        load_fused(kb, packed, network)
        load_entity_index(kb, packed, network, profile.retrieve.index)
    except LocalmelError as error:
        if kb.name == STARTER:
            yield skip(name, f"{error.fact}; the starter KB is made ready when it is used")
        else:
            again = type(error)(error.fact, hint=shell_line("localmel index", kb.folder, "--profile", profile.name))
            yield from_error(name, again, needed=needed)
        return
    yield ok(name, f"vectors of {space.name}, fused by {profile.retrieve.network}, of the KB as it is")
