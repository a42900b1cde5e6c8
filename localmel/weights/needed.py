"""Find everything with weights that a profile names: its models, and its fusion network.

In: a profile.  Out: names and folders, or one error that names all that is missing, so that a lab carries everything
over in one go.  Networks for encoders other than MiniLM do not ship: the error says how to train one.  Reads headers
and sizes, no weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights, shell_line
from localmel.settings import Profile, RetrieveSettings
from localmel.settings.shipped import weights_folder
from localmel.weights.catalog import MINILM
from localmel.weights.find import INSTALL, find_model
from localmel.weights.folders import is_name, weights_home

LOCAL_ENGINES = ("vllm", "transformers")
"Engines that load weights themselves."


def weights_of(profile: Profile) -> tuple[str, ...]:
    """Return the names or paths of all models that must be on this machine, in the order of the stages, each once."""
    asked = []
    if profile.generate.backend == "vlm":
        asked.append(profile.generate.model)
    if profile.rerank.backend == "llm":
        asked.append(profile.rerank.model)
    large = [model.weights for model in asked if model.engine in LOCAL_ENGINES]
    return tuple(dict.fromkeys([*large, profile.encode.model]))


def uses_network(profile: Profile) -> bool:
    """Say whether the fusion network finds candidates, not another matcher."""
    return profile.retrieve.matcher == RetrieveSettings().matcher


def network_folder(profile: Profile) -> Path:
    """Return the folder of a profile's network: one that ships, one of this user's, or one given by its path.

    Raises MissingWeights; CorruptArtifact where the one that ships is gone."""
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
        f"profile {profile.name} needs the fusion network {wanted!r}, which is not here: you train it on your own data",
        hint=training_line(profile),
    )


def training_line(profile: Profile) -> str:
    """Return the command that trains a network for a profile and puts it where the profile looks for it."""
    wanted, run = profile.retrieve.network, f"runs/{profile.name}"
    train = shell_line("localmel train FOLDER --kb KB --profile", profile.name, "--out", run)
    if not is_name(wanted):
        return train
    return f"{train} && {shell_line('cp -r', f'{run}/seed-0/network', weights_home() / wanted)}"


def check_weights(profile: Profile) -> None:
    """Look for all models of a profile and its network.

    Raises the error of one that cannot be used; where several are missing, one MissingWeights that names them all."""
    looks: dict[str, Callable[[], object]] = {
        name: partial(find_model, name) for name in weights_of(profile) if name != MINILM.name
    }
    if uses_network(profile):
        looks[profile.retrieve.network] = partial(network_folder, profile)
    problems: dict[str, LocalmelError] = {}
    for name, look in looks.items():
        try:
            look()
        except LocalmelError as error:
            problems[name] = error
    if not problems:
        return
    first = next((error for error in problems.values() if not isinstance(error, MissingWeights)), None)
    if first or len(problems) == 1:
        raise first or next(iter(problems.values()))
    network = profile.retrieve.network
    named = [f"{name} (trained on your own data)" if name == network else name for name in problems]
    raise MissingWeights(
        f"profile {profile.name!r} needs what is not on this machine: {', '.join(named)}",
        hint=f"{INSTALL}   # the next command for each: localmel doctor --profile {profile.name}",
    )
