"""Save and load trained matchers of any kind, with the spaces they were trained on.

In: weights, settings, spaces.  Out: a folder with matcher.safetensors and matcher.json.  Refuses vectors of other
spaces, damaged weights, and a card that does not fit them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.store.artifacts import replace_folder, sha256_of, temporary_folder, write_json

if TYPE_CHECKING:
    from torch import nn

VERSION = 1
WEIGHTS, CARD = "matcher.safetensors", "matcher.json"
SIDES_KIND, SIDES_VERSION = "matcher's entities", 1
"Kind and version of the folder with a matcher's vectors of a KB's entities (`prepared.py`)."
TUNED = "tuned_encoder"
"Key in the card of a matcher trained together with its encoder: the encoder, stored next to the matcher's folder."

Opened = TypeVar("Opened", bound=Encoders)
Network = TypeVar("Network")
Module = TypeVar("Module", bound="nn.Module")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatcherCard:
    """The card of a trained matcher, read from its folder."""

    folder: Path
    kind: str
    text_space: Space
    "Space of whole texts and words."
    image_space: Space | None
    "Space of whole pictures and their parts; None if the matcher does not use pictures."
    sha256: str
    "Hash of the weights."
    card: Mapping[str, Any]
    "A record of the training."

    def check_spaces(self, text: Space, images: Space | None = None) -> None:
        """Raise BadInput if the network was not trained on texts or pictures of these spaces.

        A network without pictures accepts any image space, or none."""
        given = {"texts": text, "pictures": images if self.image_space else None}
        for what, own in (("texts", self.text_space), ("pictures", self.image_space)):
            if given[what] != own:
                raise BadInput(
                    f"{self.folder} was trained on {what} of {_named(own)}, not of {_named(given[what])}",
                    hint=self._own_encoder() or "localmel config   # shows which encoder the profile names",
                )

    def encoders_of(self, encoders: Opened) -> Opened:
        """Return the encoders as this matcher uses them, without pictures if it does not use any.

        Raises BadInput if it was trained with other encoders."""
        self.check_spaces(encoders.text.space, encoders.image_space)
        return encoders if self.image_space else replace(encoders, image=None)

    def _own_encoder(self) -> str:
        """Return the profile line that names the encoder tuned with it; empty if none was."""
        tuned = self.card.get(TUNED)
        if not isinstance(tuned, dict):
            return ""
        return f'[encode] model = "{self.folder.with_name(str(tuned.get("folder", "encoder")))}" in the profile'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedMatcher(MatcherCard, Generic[Network]):
    """A trained matcher of any kind, loaded."""

    network: Network


def save_matcher(
    folder: Path,
    kind: str,
    network: nn.Module,
    settings: Any,
    text_space: Space,
    image_space: Space | None,
    facts: Mapping[str, Any],
) -> None:
    """Write the folder, replacing an existing one.

    settings: a dataclass, from which `read_matcher` rebuilds the network. `facts` (data, seed, numbers, command) are
    added to its card."""
    from safetensors.torch import save

    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with temporary_folder(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(save(weights))
        card = {
            "kind": kind,
            "version": VERSION,
            "settings": asdict(settings),
            "text_space": asdict(text_space),
            "image_space": asdict(image_space) if image_space else None,
            "weights_sha256": sha256_of(temporary / WEIGHTS),
            "facts": dict(facts),
        }
        write_json(temporary / CARD, card)
        replace_folder(temporary, folder)


def read_card(folder: Path) -> MatcherCard:
    """Return a matcher's card without reading its weights.  Raises CorruptArtifact."""
    try:
        return MatcherCard(folder=folder, **_described(json.loads((folder / CARD).read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"{folder} holds no matcher ({error!r})", hint=shell_line("ls", folder)) from None


def _described(card: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        kind=card["kind"],
        text_space=Space(**card["text_space"]),
        image_space=Space(**card["image_space"]) if card["image_space"] else None,
        sha256=card["weights_sha256"],
        card=dict(card["facts"]),
    )


def read_matcher(
    folder: Path, kind: str, make: Callable[[dict[str, Any]], Module], *, title: str
) -> TrainedMatcher[Module]:
    """Load a matcher whose network `make` builds from the card's settings, with lists as tuples.

    title: the kind in words. Raises CorruptArtifact if the folder contains no such network, or a damaged one."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if (card["kind"], card["version"]) != (kind, VERSION):
            raise ValueError(f"{card['kind']} version {card['version']}; this is read as {kind} version {VERSION}")
        sha256 = sha256_of(folder / WEIGHTS)
        if sha256 != card["weights_sha256"]:
            raise ValueError(f"its weights have sha256 {sha256}, its card says {card['weights_sha256']}")
        settings = card["settings"]
        lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
        network = make({**settings, **lists})
        weights = load_file(folder / WEIGHTS)
        if wrong := sorted(name for name, value in weights.items() if not torch.isfinite(value).all()):
            raise ValueError(f"values that are no numbers in {', '.join(wrong)}")
        network.load_state_dict(weights)
        return TrainedMatcher(folder=folder, network=network.eval(), **_described(card))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, BadInput, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CorruptArtifact(f"{folder} holds no {title} network ({reason})", hint=shell_line("ls", folder)) from None


def _named(space: Space | None) -> str:
    return f"{space.name} (weights {space.weights_sha256[:12]})" if space else "no space at all"
