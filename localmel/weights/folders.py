"""Where the weights of this user stand, and what their folders may be called.

In: a name.  Out: the folder under the user's home for localmel, whether or not a model is there."""

from __future__ import annotations

import re
from pathlib import Path

from localmel.errors import UsageError
from localmel.settings import home_folder
from localmel.store.artifacts import MANIFEST

INCOMING = ".incoming-"
"How folders begin in which something is not finished; no name of weights begins with a dot."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}")


def weights_home() -> Path:
    """The folder that holds one folder for each installed or adopted model."""
    return home_folder() / "weights"


def is_name(name: object) -> bool:
    """Whether a folder may be called so on every system."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and not name.endswith(".")


def checked_name(name: str) -> str:
    """The name itself.  Raises UsageError where it could not be the name of a folder everywhere."""
    if not is_name(name):
        raise UsageError(f"{name[:100]!r} is no name for weights", hint="use letters, digits, '.', '_', '+' and '-'")
    return name


def place_of(name: str) -> Path:
    """The folder of a model under the user's home.  Raises UsageError."""
    return weights_home() / checked_name(name)


def installed_names() -> list[str]:
    """The names of all installed and adopted models, sorted."""
    return sorted(path.parent.name for path in weights_home().glob(f"*/{MANIFEST}") if is_name(path.parent.name))
