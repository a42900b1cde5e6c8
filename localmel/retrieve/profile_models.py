"""The encoders and the fusion network that a profile names, found and fitting each other.

In: a profile.  Out: what makes vectors of texts and pictures, and what fuses them.  Loads no model yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localmel.encode.open import Encoders, open_encoder
from localmel.retrieve.fused import Network, load_network
from localmel.settings import Profile
from localmel.weights.network import network_folder

if TYPE_CHECKING:
    from localmel.encode.minilm import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileModels:
    """What makes the vectors of one profile."""

    encoders: Encoders
    network: Network


def open_models(profile: Profile, *, method: Method | None = None) -> ProfileModels:
    """Find both and hold them against each other.  `method` is MiniLM's.

    Raises MissingWeights with the command that brings or trains them, BadInput for a network of other vectors."""
    encoders = open_encoder(profile.encode, method=method)
    network = load_network(network_folder(profile))
    network.check_space(encoders.text.space, encoders.image.image_space if encoders.image else None)
    return ProfileModels(encoders=encoders, network=network)
