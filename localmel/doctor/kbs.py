"""Check knowledge bases: can the database be read, and are the things derived from it up to date?

In: a profile, and the name of a KB or none.  Out: two checks for each KB; derived data must come from the profile's
encoder, and from its network or matcher.  Changes nothing; a check that takes too long is cut short and says so."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from typing import TYPE_CHECKING

from localmel.doctor.check import Check, from_error, guarded, ok, skip
from localmel.errors import CorruptArtifact, LocalmelError, shell_line
from localmel.kb.locate import STARTER, list_kbs, open_kb, starter_folder
from localmel.kb.schema import DATABASE, connect, translated
from localmel.kb.store import KnowledgeBase, is_kb
from localmel.settings import Profile
from localmel.weights.needed import uses_network

if TYPE_CHECKING:
    from localmel.encode.registry import Encoders

_SECONDS_EACH, _SECONDS_ALL = 1.0, 2.0
"Seconds for one database, and for all KBs together, unless everything is to be read."
_STEPS = 20_000
"SQLite instructions between two looks at the clock."


def look_at_kbs(profile: Profile, kb: str | None, *, readable: bool = True, thorough: bool = False) -> Iterator[Check]:
    """Check the named KB, which is needed; without a name, all KBs of this user, none of which is.

    `readable`: whether numpy and safetensors, which read arrays, can be imported."""
    started, encoders = time.monotonic(), cache(partial(_encoders_of, profile))
    for name in list_kbs() if kb is None else [kb]:
        shown = check_name(name)
        if kb is None and not thorough and time.monotonic() - started > _SECONDS_ALL:
            yield skip(
                f"kb.{shown}.readable", f"not checked for lack of time: {shell_line('localmel doctor --kb', name)}"
            )
            continue
        look = partial(one_kb, name, profile, encoders, readable=readable, needed=kb is not None, thorough=thorough)
        yield from guarded(f"kb.{shown}.readable", look)


def check_name(kb: str) -> str:
    """Return the part of a check's id that names a KB: its name, or the last part of its path."""
    return "".join(char if char.isalnum() or char in "_-" else "-" for char in kb.rstrip("/").rpartition("/")[2]) or "-"


def _encoders_of(profile: Profile) -> Encoders:
    """Return the encoders for their spaces, which takes a hash of their weights; loads none."""
    from localmel.encode.registry import open_encoder

    return open_encoder(profile.encode)


def one_kb(
    name: str, profile: Profile, encoders: Callable[[], Encoders], *, readable: bool, needed: bool, thorough: bool
) -> Iterator[Check]:
    """Check that a KB is readable, then that it is indexed.  `encoders` opens those of the profile."""
    database, index = (f"kb.{check_name(name)}.{what}" for what in ("readable", "index"))
    if name == STARTER and not is_kb(starter_folder()):
        yield skip(database, "the starter KB is built on first use")
        return
    try:
        with open_kb(name) as kb:
            whole = _looked_through(kb, seconds=None if thorough else _SECONDS_EACH)
            part = "" if whole else "; checked in part, --thorough checks it all"
            yield ok(database, f"{len(kb):,} entities in {kb.folder}{part}")
            if readable:
                yield from guarded(index, partial(_index, index, kb, profile, encoders, needed=needed))
            else:
                yield skip(index, "numpy or safetensors, which read it, cannot be imported")
    except LocalmelError as error:
        yield from_error(database, error, needed=needed)


def _looked_through(kb: KnowledgeBase, *, seconds: float | None) -> bool:
    """Check a database; return whether there was time for all of it.  Raises CorruptArtifact for damage."""
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
        hint = shell_line("localmel kb build", kb.name, note="again, from its original files")
        raise CorruptArtifact(f"{path} is damaged: {'; '.join(found)[:300]}", hint=hint)
    return True


def _index(
    name: str, kb: KnowledgeBase, profile: Profile, encoders: Callable[[], Encoders], *, needed: bool
) -> Iterator[Check]:
    """Check that the data by which this profile finds candidates exists and fits the KB's present state."""
    from localmel.matchers.registry import matcher_kind, read_card
    from localmel.retrieve.profile_models import matcher_folder

    own_matcher = not uses_network(profile)
    try:
        matcher = read_card(matcher_folder(profile))
    except LocalmelError:
        what = f"matcher {profile.retrieve.matcher}" if own_matcher else "network"
        yield skip(name, f"profile {profile.name} has no {what} yet, which an index is made with")
        return
    try:
        models = encoders()
    except LocalmelError as error:
        yield skip(name, f"an index needs the encoder {profile.encode.model}, which is not here: {error.fact}")
        return
    text = models.text.space
    try:
        matcher.check_spaces(text, models.image_space)
    except LocalmelError as error:
        yield from_error(name, error, needed=needed)
        return
    try:
        matcher_kind(matcher.kind).check_indexed(kb, matcher, profile.retrieve.index)
    except LocalmelError as error:
        if kb.name == STARTER:
            yield skip(name, f"{error.fact}; the starter KB is prepared on first use")
        else:
            again = type(error)(error.fact, hint=shell_line("localmel index", kb.folder, "--profile", profile.name))
            yield from_error(name, again, needed=needed)
        return
    found_by = f"made ready for {profile.retrieve.matcher}" if own_matcher else f"fused by {profile.retrieve.network}"
    yield ok(name, f"vectors of {text.name}, {found_by}, of the KB as it is")
