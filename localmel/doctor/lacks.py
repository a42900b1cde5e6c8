"""What of a profile's needs is not on this machine, in a few words and a few milliseconds.

In: a profile.  Out: names of packages and weights.  Looks at notes, names and sizes only; `examine` looks closer."""

from __future__ import annotations

from importlib.util import find_spec

from localmel.doctor.needs import PackageNeed, packages_of
from localmel.doctor.versions import fits, installed
from localmel.doctor.weights import matcher_kind_of
from localmel.errors import LocalmelError
from localmel.settings import Profile
from localmel.weights.catalog import MINILM
from localmel.weights.find import model_folder
from localmel.weights.needed import uses_network, weights_of
from localmel.weights.network import network_folder


def lacks(profile: Profile) -> tuple[str, ...]:
    """Packages, weights and network that are not here, or not as they should be."""
    found = [f"{need.names[0]} (package)" for need in packages_lacking(profile)]
    for name in weights_of(profile):
        try:
            if name == MINILM.name:  # hashing it takes as long as all the rest
                if find_spec(MINILM.package) is None:
                    found.append(f"{name} (weights)")
            else:
                model_folder(name)
        except (LocalmelError, OSError):
            found.append(f"{name} (weights)")
    wanted = profile.retrieve.network if uses_network(profile) else profile.retrieve.matcher
    try:
        network_folder(profile) if uses_network(profile) else matcher_kind_of(profile)
    except (LocalmelError, OSError):
        found.append(f"{wanted} (network, to be trained)")
    return tuple(found)


def packages_lacking(profile: Profile) -> tuple[PackageNeed, ...]:
    """What the profile needs beyond the default installation and pip has no fitting notes on."""
    return tuple(need for need in packages_of(profile) if not fits(installed(*need.names), need.wanted))
