"""The card of an encoder that was tuned here: what it was tuned from, and whether its bytes are unchanged.

In: a folder of a model, or its name in a profile.  Out: its card, or None for a folder that was not tuned.  A tuned
folder has the layout of the model it was tuned from, and the card in addition.  Hashes no weights itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights
from localmel.store.artifacts import sha256_of, write_json
from localmel.store.codec import from_json, to_json
from localmel.weights.catalog import MINILM
from localmel.weights.folders import place_of
from localmel.weights.manifest import holds_record, read_record

CARD, VERSION = "encoder.json", 1
CLIP = "clip"
KINDS = (MINILM.name, CLIP)
_KIND = "tuned encoder"
FOLDER = "encoder"
"The name that training gives the folder."
MADE_AGAIN = (
    "localmel train DATA --kb KB --matcher m3el --tune-encoder --out runs/NAME   # makes one; or copy the folder again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedCard:
    """The content of the card."""

    model: str
    "One of KINDS: how to read the folder."
    sha256: str
    "Hash over everything its vectors depend on; the `weights_sha256` of its space."
    tuned_from: Mapping[str, Any]
    "Name, sha256 and licence of the original encoder."
    facts: Mapping[str, Any]
    "Facts about the run: data, seed, rates, command."
    files: Mapping[str, str] = field(default_factory=dict)
    "sha256 of configuration and tokenizer, file by file; the oldest cards have none."

    def check(self, folder: Path, sha256: str) -> None:
        """Check that all bytes are unchanged.  Raises CorruptArtifact, or MissingWeights for a file that is gone."""
        if sha256 != self.sha256:
            raise _changed(str(folder), sha256, self.sha256)
        self.check_files(folder)

    def check_files(self, folder: Path) -> None:
        """Check everything but the weights, with the same errors."""
        for name, expected in self.files.items():
            if not (folder / name).is_file():
                raise MissingWeights(f"{folder} is incomplete: {name} is missing", hint=MADE_AGAIN)
            if (found := sha256_of(folder / name)) != expected:
                raise _changed(str(folder / name), found, expected)


def write_tuned_card(folder: Path, card: TunedCard) -> None:
    """Write a card into a folder that is otherwise complete."""
    write_json(folder / CARD, {"kind": _KIND, "version": VERSION, **to_json(card)})


def tuned_card(folder: Path) -> TunedCard | None:
    """Return the card of a folder; None where it has none.  Raises CorruptArtifact for a card that cannot be read."""
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found["kind"], found["version"]) != (_KIND, VERSION):
            raise ValueError(f"it has kind {found['kind']!r} version {found['version']!r}")
        card = from_json(TunedCard, found, where=path, again=MADE_AGAIN, more=True)
        if card.model not in KINDS:
            raise ValueError(f"its model is {card.model!r}; this version reads {', '.join(KINDS)}")
        if outside := [name for name in card.files if "/" in name]:
            raise ValueError(f"it names {outside[0]!r}, which is not in its folder")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptArtifact(f"cannot read {path}: {error}", hint=MADE_AGAIN) from None
    return card


def folder_named(model: str) -> Path | None:
    """Return the folder of a model given by path or by the name it was installed or adopted under; None for no such.

    Raises CorruptArtifact for a record that cannot be read."""
    try:
        folder = Path(model).expanduser() if "/" in model else place_of(model)
    except (RuntimeError, LocalmelError):  # no such home, or not a name: loading the model reports it
        return None
    if holds_record(folder):
        return Path(read_record(folder).adopted or folder)
    return folder if "/" in model else None


def looks_tuned(folder: Path) -> bool:
    """Say whether a folder, complete or not, should hold a tuned encoder, by its card or its name."""
    return (folder / CARD).exists() or folder.name == FOLDER


def is_minilm(model: str) -> bool:
    """Say whether `[encode] model` means MiniLM: by its name, or by the name or path of a tuned one.

    A folder that is missing, or whose card cannot be read, counts as another model; opening it raises the error."""
    if model == MINILM.name:
        return True
    try:
        folder = folder_named(model)
        card = tuned_card(folder) if folder else None
    except LocalmelError:
        return False
    return card is not None and card.model == MINILM.name


def _changed(what: str, found: str, expected: str) -> CorruptArtifact:
    fact = f"{what} has changed since it was tuned: sha256 {found}, its card says {expected}"
    return CorruptArtifact(fact, hint=MADE_AGAIN)
