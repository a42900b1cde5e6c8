"""A trained M3EL network on disk, and the spaces it was trained on.

In: weights, settings, spaces.  Out: a folder with matcher.safetensors and matcher.json.  Refuses vectors of other
spaces, damaged weights, and a card that does not fit them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from localmel.artifacts import replace_folder, sha256_of, temporary_folder, write_json
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.retrieve.matchers.m3el import M3el
from localmel.retrieve.matchers.m3el_settings import M3elSettings

VERSION, KIND = 1, "m3el"
_WEIGHTS, _CARD = "matcher.safetensors", "matcher.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class M3elFolder:
    """A network at rest, as it stands on disk."""

    folder: Path
    network: M3el
    text_space: Space
    "Of whole texts and words."
    image_space: Space | None
    "Of whole pictures and patches; None where none are looked at."
    sha256: str
    "Of the weights."
    card: Mapping[str, Any]

    def check_spaces(self, text: Space, images: Space | None = None) -> None:
        """Raise BadInput where texts or pictures of these spaces are not what the network was trained on.

        A network that looks at no pictures takes any, and none."""
        given = {"texts": text, "pictures": images if self.image_space else None}
        for what, own in (("texts", self.text_space), ("pictures", self.image_space)):
            if given[what] != own:
                raise BadInput(
                    f"{self.folder} was trained on {what} of {_named(own)}, not of {_named(given[what])}",
                    hint="localmel config   # shows which encoder the profile names",
                )


def save_m3el(
    folder: Path, network: M3el, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
) -> None:
    """Write the folder, replacing one that stands there.  `facts` (data, seed, numbers, command) go into its card."""
    from safetensors.torch import save

    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with temporary_folder(folder) as temporary:
        (temporary / _WEIGHTS).write_bytes(save(weights))
        card = {
            "kind": KIND,
            "version": VERSION,
            "settings": asdict(network.settings),
            "text_space": asdict(text_space),
            "image_space": asdict(image_space) if image_space else None,
            "weights_sha256": sha256_of(temporary / _WEIGHTS),
            "facts": dict(facts),
        }
        write_json(temporary / _CARD, card)
        replace_folder(temporary, folder)


def load_m3el(folder: Path) -> M3elFolder:
    """Raises CorruptArtifact for a folder that holds no such network, or a damaged one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if (card["kind"], card["version"]) != (KIND, VERSION):
            raise ValueError(f"{card['kind']} version {card['version']}; this is read as {KIND} version {VERSION}")
        sha256 = sha256_of(folder / _WEIGHTS)
        if sha256 != card["weights_sha256"]:
            raise ValueError(f"its weights have sha256 {sha256}, its card says {card['weights_sha256']}")
        settings = card["settings"]
        lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
        network = M3el(M3elSettings(**{**settings, **lists}))
        weights = load_file(folder / _WEIGHTS)
        if wrong := sorted(name for name, value in weights.items() if not torch.isfinite(value).all()):
            raise ValueError(f"values that are no numbers in {', '.join(wrong)}")
        network.load_state_dict(weights)
        image_space = Space(**card["image_space"]) if card["image_space"] else None
        return M3elFolder(
            folder=folder,
            network=network.eval(),
            text_space=Space(**card["text_space"]),
            image_space=image_space,
            sha256=sha256,
            card=card["facts"],
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, BadInput, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CorruptArtifact(f"{folder} holds no M3EL network ({reason})", hint=shell_line("ls", folder)) from None


def _named(space: Space | None) -> str:
    return f"{space.name} (weights {space.weights_sha256[:12]})" if space else "no space at all"
