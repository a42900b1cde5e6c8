"""The whole examination: everything that is looked at for one profile, in the order in which it is best mended.

In: the name of a profile, and of a KB or none.  Out: an Examination.  Nothing is loaded, fetched or changed; whatever
is broken becomes a failed check.  Packages are imported in a process of their own while the rest is looked at."""

from __future__ import annotations

import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from localmel.doctor.check import Examination, each_once, guarded
from localmel.doctor.gpu import cards, look_at_gpus
from localmel.doctor.installation import look_at_installation, torch_cuda
from localmel.doctor.kbs import look_at_kbs
from localmel.doctor.lacks import packages_lacking
from localmel.doctor.needs import base_modules, heavy_modules_of
from localmel.doctor.probe import Probe
from localmel.doctor.surroundings import look_at_surroundings
from localmel.doctor.weights import look_at_weights
from localmel.settings import Profile, load_profile

_SECONDS, _SECONDS_THOROUGH = 20.0, 180.0
"How long the imports may take.  Usually it is two seconds; a disk that is cold or far away needs more."


def examine(profile_name: str, *, kb: str | None = None, thorough: bool = False) -> Examination:
    """Look everything over for a profile.  Raises UsageError where there is no such profile, or it cannot be read."""
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
    """What is worth its seconds: nothing where packages lack anyway; torchvision beside a torch for the CPU only."""
    if packages_lacking(profile):
        return ()
    without = {"torchvision"} if torch_cuda() and not thorough else set()
    return tuple(module for module in heavy_modules_of(profile, thorough=thorough) if module not in without)


def _version() -> str:
    try:
        return version("localmel")
    except PackageNotFoundError:
        return "?"
