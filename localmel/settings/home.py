"""Where this user's files stand: KBs and caches in one folder, profiles of their own in another."""

from __future__ import annotations

import os
from pathlib import Path

from localmel.errors import UsageError

HOME = "LOCALMEL_HOME"
"The variable that says where KBs and caches stand; without it, the usual folder of the platform."

CONFIG = "LOCALMEL_CONFIG"
"The variable that says where `profiles/NAME.toml` of this user stand; without it, the usual folder of the platform."


def home_folder() -> Path:
    """Where KBs and derived files of this user stand.  Raises UsageError where LOCALMEL_HOME is no path."""
    if chosen := os.environ.get(HOME):
        return _path(HOME, chosen)
    from platformdirs import user_data_path

    return user_data_path("localmel", appauthor=False)


def config_folder() -> Path:
    """Where this user's own profiles stand, under `profiles/`.  Raises UsageError where LOCALMEL_CONFIG is no path."""
    if chosen := os.environ.get(CONFIG):
        return _path(CONFIG, chosen)
    from platformdirs import user_config_path

    return user_config_path("localmel", appauthor=False)


def _path(variable: str, chosen: str) -> Path:
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{variable} is {chosen!r} ({error})", hint=f"export {variable}=/a/folder/of/yours") from None
