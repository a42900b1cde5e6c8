"""A trained matcher on disk, of whatever kind, and the spaces it was trained on.

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
"Of the folder of what a matcher makes of a KB's entities (`prepared.py`)."
TUNED = "tuned_encoder"
"In the card of a matcher that was trained together with its encoder: which one, beside its folder."

Opened = TypeVar("Opened", bound=Encoders)
Network = TypeVar("Network")
Module = TypeVar("Module", bound="nn.Module")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatcherCard:
    """The card of a trained matcher: what its folder says about it."""

    folder: Path
    kind: str
    text_space: Space
    "Of whole texts and words."
    image_space: Space | None
    "Of whole pictures and their parts; None where the matcher looks at none."
    sha256: str
    "Of the weights."
    card: Mapping[str, Any]
    "How it was trained."

    def check_spaces(self, text: Space, images: Space | None = None) -> None:
        """Raise BadInput where texts or pictures of these spaces are not what the network was trained on.

        A network that looks at no pictures takes any, and none."""
        given = {"texts": text, "pictures": images if self.image_space else None}
        for what, own in (("texts", self.text_space), ("pictures", self.image_space)):
            if given[what] != own:
                raise BadInput(
                    f"{self.folder} was trained on {what} of {_named(own)}, not of {_named(given[what])}",
                    hint=self._own_encoder() or "localmel config   # shows which encoder the profile names",
                )

    def encoders_of(self, encoders: Opened) -> Opened:
        """Return the encoders as this matcher uses them, without pictures where it looks at none.

        Raises BadInput where it was trained with others."""
        self.check_spaces(encoders.text.space, encoders.image_space)
        return encoders if self.image_space else replace(encoders, image=None)

    def _own_encoder(self) -> str:
        """Which line of a profile names the encoder that was tuned with it; empty where none was."""
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
    """Write the folder, replacing one that stands there.

    settings: a dataclass, of which `read_matcher` makes the network again.  `facts` (data, seed, numbers, command) go
    into its card."""
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
    """Read a matcher's card; its weights are not looked at.  Raises CorruptArtifact."""
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
    """`make` gives a network for settings as they stand in the card, lists as tuples; `title` is the kind in words.

    Raises CorruptArtifact for a folder that holds no such network, or a damaged one."""
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
