"""Where the fusion network of a profile is: one that ships, one of this user's, or one given by its path.

In: a profile.  Out: a folder that is there.  Networks for other encoders than MiniLM do not ship: they are trained, and
the error says how."""

from __future__ import annotations

from pathlib import Path

from localmel.errors import CorruptArtifact, MissingWeights, shell_line
from localmel.settings import Profile, RetrieveSettings
from localmel.settings.shipped import weights_folder
from localmel.weights.folders import is_name, weights_home


def network_folder(profile: Profile) -> Path:
    """The folder of a profile's network.  Raises MissingWeights; CorruptArtifact where the one that ships is gone."""
    wanted = profile.retrieve.network
    try:
        folder = weights_folder(wanted)
    except CorruptArtifact:
        if wanted == RetrieveSettings().network:
            raise
        folder = weights_home() / wanted if is_name(wanted) else Path(wanted)
    if folder.is_dir():
        return folder
    raise MissingWeights(
        f"the fusion network {wanted!r} of profile {profile.name} is not here: it is trained on your own data",
        hint=training_line(profile),
    )


def training_line(profile: Profile) -> str:
    """The command that trains a network for a profile, and where the profile will look for it."""
    wanted, run = profile.retrieve.network, f"runs/{profile.name}"
    train = shell_line("localmel train FOLDER --kb KB --profile", profile.name, "--out", run)
    if not is_name(wanted):
        return train
    return f"{train} && {shell_line('cp -r', f'{run}/seed-0/network', weights_home() / wanted)}"
