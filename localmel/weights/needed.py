"""Everything with weights that a profile names, looked for at once.

In: a profile.  Out: the names of it, or one error that names all that is not here, so that a lab carries over in one go
what it lacks.  Reads headers and sizes, no weights."""

from __future__ import annotations

from functools import partial

from localmel.errors import LocalmelError, MissingWeights
from localmel.settings import Profile, RetrieveSettings
from localmel.weights.catalog import MINILM
from localmel.weights.find import INSTALL, model_folder
from localmel.weights.network import network_folder

LOCAL_ENGINES = ("vllm", "transformers")
"Engines that load weights themselves."


def weights_of(profile: Profile) -> tuple[str, ...]:
    """Names or paths of all models whose weights are to be on this machine, in the order of the stages, each once."""
    asked = []
    if profile.generate.backend == "vlm":
        asked.append(profile.generate.model)
    if profile.rerank.backend == "llm":
        asked.append(profile.rerank.model)
    large = [model.weights for model in asked if model.engine in LOCAL_ENGINES]
    return tuple(dict.fromkeys([*large, profile.encode.model]))


def uses_network(profile: Profile) -> bool:
    """Whether candidates are found by the fusion network, not by another matcher."""
    return profile.retrieve.matcher == RetrieveSettings().matcher


def check_weights(profile: Profile) -> None:
    """Look for all models of a profile and its network.

    Raises the one error where one of them cannot be used, MissingWeights that names all where several are missing."""
    looks = {name: partial(model_folder, name) for name in weights_of(profile) if name != MINILM.name}
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
