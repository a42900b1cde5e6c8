"""A trained fusion network on disk.

In: weights by name, settings, the spaces it was trained on.  Out: a folder with network.safetensors and network.json,
and the same loaded, ready to fuse a few mentions at a time.  Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.matchers.kgmel.inference import FusedEncoder
from localmel.matchers.kgmel.settings import FusionSettings
from localmel.matchers.trained import TrainedMatcher
from localmel.store.artifacts import replace_folder, sha256_of, temporary_folder, write_json

KIND, VERSION = "kgmel", 1
CARD = "network.json"
_WEIGHTS = "network.safetensors"

KgmelMatcher: TypeAlias = TrainedMatcher[FusedEncoder]


def load_network(folder: Path) -> KgmelMatcher:
    """Load the network of a folder.  Raises CorruptArtifact if it is damaged or contains no network."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if card["version"] != VERSION:
            raise ValueError(f"version {card['version']}; this localmel reads {VERSION}")
        settings = FusionSettings(**card["fusion"])
        weights = load_file(folder / _WEIGHTS)
        sha256 = sha256_of(folder / _WEIGHTS)
        if sha256 != card["weights_sha256"]:
            raise ValueError(f"its weights have sha256 {sha256}, its card says {card['weights_sha256']}")
        return TrainedMatcher(
            folder=folder,
            kind=KIND,
            network=FusedEncoder(weights, settings),
            text_space=Space(name=card["space"], width=settings.text_width, weights_sha256=card["space_sha256"]),
            image_space=_image_space(card, settings),
            sha256=sha256,
            card=card,
        )
    except (OSError, ValueError, KeyError, TypeError, BadInput, CorruptArtifact, SafetensorError) as error:
        raise CorruptArtifact(f"{folder} holds no fusion network ({error})", hint=shell_line("ls", folder)) from None


def save_network(
    folder: Path,
    weights: Mapping[str, NDArray[Any]],
    settings: FusionSettings,
    space: Space,
    facts: Mapping[str, Any],
    *,
    images: Space | None = None,
) -> None:
    """Write a network's folder; `facts` (data, seed, numbers, command) are added to its card.

    images: the image space it was trained on, for settings with an image_width."""
    from safetensors.numpy import save

    with temporary_folder(folder) as temporary:
        (temporary / _WEIGHTS).write_bytes(save(dict(weights)))
        card = {
            "version": VERSION,
            "fusion": asdict(settings),
            "space": space.name,
            "space_sha256": space.weights_sha256,
            "weights_sha256": sha256_of(temporary / _WEIGHTS),
            **({"image_space": {"name": images.name, "sha256": images.weights_sha256}} if images else {}),
            **facts,
        }
        write_json(temporary / CARD, card)
        replace_folder(temporary, folder)


def _image_space(card: Mapping[str, Any], settings: FusionSettings) -> Space | None:
    if not settings.image_width:
        return None
    named = card["image_space"]
    return Space(name=named["name"], width=settings.image_width, weights_sha256=named["sha256"])
