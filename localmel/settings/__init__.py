"""Settings and profiles, the folders of a user's files, and the switches that keep every library offline."""

from localmel.settings.checks import profile_from
from localmel.settings.fields import (
    EncodeSettings,
    EngineSettings,
    GenerateSettings,
    Profile,
    RerankSettings,
    RetrieveSettings,
)
from localmel.settings.home import CONFIG, HOME, config_folder, home_folder
from localmel.settings.offline import OFFLINE, go_offline
from localmel.settings.profiles import (
    ProfileFile,
    Setting,
    load_profile,
    profile_files,
    profile_names,
    settings_in_force,
)

__all__ = [
    "CONFIG",
    "HOME",
    "OFFLINE",
    "EncodeSettings",
    "EngineSettings",
    "GenerateSettings",
    "Profile",
    "ProfileFile",
    "RerankSettings",
    "RetrieveSettings",
    "Setting",
    "config_folder",
    "go_offline",
    "home_folder",
    "load_profile",
    "profile_files",
    "profile_from",
    "profile_names",
    "settings_in_force",
]
