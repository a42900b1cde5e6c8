"""The folders of this user's weights: where they are, what they may be called, and the lock on them.

In: a name.  Out: its folder under the user's home for localmel, whether or not a model is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from localmel.errors import BadInput, UsageError
from localmel.settings import home_folder
from localmel.store.artifacts import MANIFEST, failed_writes_are_reported

INCOMING = ".incoming-"
"Prefix of folders that are not finished; no name of weights begins with a dot."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}")


def weights_home() -> Path:
    """Return the folder that holds one folder for each installed or adopted model."""
    return home_folder() / "weights"


def is_name(name: object) -> bool:
    """Say whether a folder may have this name on every system."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and not name.endswith(".")


def checked_name(name: str) -> str:
    """Return the name itself.  Raises UsageError where some system could not have a folder of that name."""
    if not is_name(name):
        raise UsageError(f"{name[:100]!r} is not a name for weights", hint="use letters, digits, '.', '_', '+' and '-'")
    return name


def place_of(name: str) -> Path:
    """Return the folder of a model under the user's home.  Raises UsageError."""
    return weights_home() / checked_name(name)


def installed_names() -> list[str]:
    """Return the names of all installed and adopted models, sorted."""
    return sorted(path.parent.name for path in weights_home().glob(f"*/{MANIFEST}") if is_name(path.parent.name))


@contextmanager
def exclusive() -> Iterator[None]:
    """Let only one process at a time change installed weights.  Raises BadInput while another one does."""
    home = weights_home()
    with failed_writes_are_reported(home):
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BadInput(f"another process is changing {home}", hint="wait until it has ended") from None
        try:
            yield
        finally:
            lock.release()
