"""Examine this machine for one profile, or say in a few words what is missing.

In: the name of a profile, and of a KB or none.  Out: an Examination, its checks in the order in which problems are best
fixed; or names of packages and weights.  Nothing is loaded, fetched or changed; a failure of any kind becomes a failed
check.  Packages are imported in a process of their own while the rest is examined."""

from __future__ import annotations

import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from localmel.doctor.check import Examination, each_once, guarded
from localmel.doctor.gpu import cards, look_at_gpus
from localmel.doctor.installation import look_at_installation, torch_cuda
from localmel.doctor.kbs import look_at_kbs
from localmel.doctor.needs import base_modules, heavy_modules_of, packages_lacking
from localmel.doctor.probe import Probe
from localmel.doctor.surroundings import look_at_surroundings
from localmel.doctor.weights import look_at_weights, matcher_kind_of
from localmel.errors import LocalmelError
from localmel.settings import Profile, load_profile
from localmel.weights.catalog import MINILM
from localmel.weights.find import find_model
from localmel.weights.needed import network_folder, uses_network, weights_of

_SECONDS, _SECONDS_THOROUGH = 20.0, 180.0
"How long the imports may take.  Two are usual; a cold or remote disk needs more."


def examine(profile_name: str, *, kb: str | None = None, thorough: bool = False) -> Examination:
    """Check everything for a profile.  Raises UsageError where there is no such profile, or it cannot be read."""
    started = time.monotonic()
    profile = load_profile(profile_name)
    heavy = _heavy_modules(profile, thorough=thorough)
    seconds = _SECONDS_THOROUGH if thorough else _SECONDS
    with Probe(base_modules(), seconds=seconds) as light_probe, Probe(heavy, seconds=seconds) as heavy_probe:
        around = [*guarded("doctor.surroundings", partial(look_at_surroundings, profile))]
        light = light_probe.result()
        readable = {"numpy", "safetensors"} <= light.works
        weights = guarded("doctor.weights", partial(look_at_weights, profile, readable=readable, thorough=thorough))
        kbs = guarded("doctor.kbs", partial(look_at_kbs, profile, kb, readable=readable, thorough=thorough))
        around = [*weights, *around, *kbs]
        probed = light | heavy_probe.result()
    installation = guarded("doctor.installation", partial(look_at_installation, profile, probed))
    gpus = guarded("doctor.gpus", lambda: look_at_gpus(profile, cards(probed)))
    return Examination(
        profile=profile.name,
        localmel=_version(),
        checks=each_once([*installation, *gpus, *around]),
        seconds=time.monotonic() - started,
    )


def _heavy_modules(profile: Profile, *, thorough: bool) -> tuple[str, ...]:
    """Return the modules worth their seconds: none where packages lack; torchvision only with a torch for CPUs."""
    if packages_lacking(profile):
        return ()
    without = {"torchvision"} if torch_cuda() and not thorough else set()
    return tuple(module for module in heavy_modules_of(profile, thorough=thorough) if module not in without)


def _version() -> str:
    try:
        return version("localmel")
    except PackageNotFoundError:
        return "?"


def lacks(profile: Profile) -> tuple[str, ...]:
    """Return the packages, weights and network of a profile that are missing or unusable, within milliseconds.

    Reads only notes, names and sizes; `examine` looks closer."""
    found = [f"{need.names[0]} (package)" for need in packages_lacking(profile)]
    for name in weights_of(profile):
        try:
            if name == MINILM.name:  # hashing it would take as long as everything else
                if find_spec(MINILM.package) is None:
                    found.append(f"{name} (weights)")
            else:
                find_model(name)
        except (LocalmelError, OSError):
            found.append(f"{name} (weights)")
    wanted = profile.retrieve.network if uses_network(profile) else profile.retrieve.matcher
    try:
        network_folder(profile) if uses_network(profile) else matcher_kind_of(profile)
    except (LocalmelError, OSError):
        found.append(f"{wanted} (network, to be trained)")
    return tuple(found)
