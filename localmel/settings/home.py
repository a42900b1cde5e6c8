"""Find this user's files: KBs and caches in one folder, own profiles in another."""

from __future__ import annotations

import os
from pathlib import Path

from localmel.errors import UsageError

HOME = "LOCALMEL_HOME"
"Environment variable with the folder of KBs and caches; by default the usual folder of the platform."

CONFIG = "LOCALMEL_CONFIG"
"Environment variable with the folder of `profiles/NAME.toml`; by default the usual folder of the platform."


def home_folder() -> Path:
    """Return the folder of this user's KBs and caches.  Raises UsageError if LOCALMEL_HOME is not a path."""
    if chosen := os.environ.get(HOME):
        return _path(HOME, chosen)
    from platformdirs import user_data_path

    return user_data_path("localmel", appauthor=False)


def config_folder() -> Path:
    """Return the folder that holds this user's `profiles/`.  Raises UsageError if LOCALMEL_CONFIG is not a path."""
    if chosen := os.environ.get(CONFIG):
        return _path(CONFIG, chosen)
    from platformdirs import user_config_path

    return user_config_path("localmel", appauthor=False)


def _path(variable: str, chosen: str) -> Path:
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"cannot use {variable}: {chosen!r} is not a path ({error})", hint=f"export {variable}=/a/folder/of/yours"
        ) from None
