"""The card of an encoder that was tuned here: what it was tuned from, and that its bytes are still those.

In: a folder of a model, or what a profile calls it.  Out: its card, or nothing where nobody tuned it.  A tuned folder
is laid out as the model it was tuned from; the card stands beside.  Hashes no weights itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights
from localmel.store.artifacts import sha256_of, write_json
from localmel.weights.catalog import MINILM
from localmel.weights.folders import place_of
from localmel.weights.manifest import holds_record, read_record

CARD, VERSION = "encoder.json", 1
CLIP = "clip"
KINDS = (MINILM.name, CLIP)
_KIND = "tuned encoder"
FOLDER = "encoder"
"How training calls the folder."
MADE_AGAIN = (
    "localmel train DATA --kb KB --matcher m3el --tune-encoder --out runs/NAME   # makes one; or copy the folder again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedCard:
    """What the card says."""

    model: str
    "Of KINDS: how the folder is read."
    sha256: str
    "Of what its vectors depend on; the `weights_sha256` of its space."
    tuned_from: Mapping[str, Any]
    "Name, sha256 and licence of the encoder it was before."
    facts: Mapping[str, Any]
    "Of the run: data, seed, rates, command."
    files: Mapping[str, str] = field(default_factory=dict)
    "sha256 of configuration and tokenizer, file by file; a card of the first days has none."

    def check(self, folder: Path, sha256: str) -> None:
        """Raise CorruptArtifact unless all bytes are as they were written, MissingWeights for a file that is gone."""
        if sha256 != self.sha256:
            raise _changed(str(folder), sha256, self.sha256)
        self.check_files(folder)

    def check_files(self, folder: Path) -> None:
        """The same, without the weights."""
        for name, expected in self.files.items():
            if not (folder / name).is_file():
                raise MissingWeights(f"{folder} is incomplete: {name} is missing", hint=MADE_AGAIN)
            if (found := sha256_of(folder / name)) != expected:
                raise _changed(str(folder / name), found, expected)


def write_tuned_card(folder: Path, card: TunedCard) -> None:
    """Into a folder that is otherwise complete."""
    found = {
        "kind": _KIND,
        "version": VERSION,
        "model": card.model,
        "sha256": card.sha256,
        "tuned_from": dict(card.tuned_from),
        "facts": dict(card.facts),
        "files": dict(card.files),
    }
    write_json(folder / CARD, found)


def tuned_card(folder: Path) -> TunedCard | None:
    """None for a folder without one.  Raises CorruptArtifact for a card that cannot be read."""
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found["kind"], found["version"]) != (_KIND, VERSION):
            raise ValueError(f"{found['kind']!r} version {found['version']!r}")
        if found["model"] not in KINDS:
            raise ValueError(f"model {found['model']!r}; this version reads {', '.join(KINDS)}")
        before, facts, files = found["tuned_from"], found["facts"], found.get("files", {})
        if not (isinstance(before, dict) and isinstance(facts, dict) and isinstance(found["sha256"], str)):
            raise ValueError("tuned_from, facts and sha256 are two tables and a text")
        if not isinstance(files, dict) or any("/" in name or not isinstance(own, str) for name, own in files.items()):
            raise ValueError("files is a table of names and texts")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptArtifact(f"{path} is no card of a tuned encoder ({error})", hint=MADE_AGAIN) from None
    return TunedCard(model=found["model"], sha256=found["sha256"], tuned_from=before, facts=facts, files=files)


def folder_named(model: str) -> Path | None:
    """Where a model stands by its path, or by the name under which it was installed or adopted; None for no such name.

    Raises CorruptArtifact for a record that cannot be read."""
    try:
        folder = Path(model).expanduser() if "/" in model else place_of(model)
    except (RuntimeError, LocalmelError):  # a home that nobody has, or no name at all; who looks for the model says so
        return None
    if holds_record(folder):
        return Path(read_record(folder).adopted or folder)
    return folder if "/" in model else None


def looks_tuned(folder: Path) -> bool:
    """Whether a folder, whole or not, is meant to be one of a tuned encoder: by its card, or as training calls it."""
    return (folder / CARD).exists() or folder.name == FOLDER


def is_minilm(model: str) -> bool:
    """Whether `[encode] model` means MiniLM: by its name, or by the name or path of one that was tuned.

    A folder that is not there, or with a card that cannot be read, counts as another; who opens it says why."""
    if model == MINILM.name:
        return True
    try:
        folder = folder_named(model)
        card = tuned_card(folder) if folder else None
    except LocalmelError:
        return False
    return card is not None and card.model == MINILM.name


def _changed(what: str, found: str, expected: str) -> CorruptArtifact:
    fact = f"{what} is not as it was tuned: sha256 {found}, its card says {expected}"
    return CorruptArtifact(fact, hint=MADE_AGAIN)
