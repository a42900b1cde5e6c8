"""The card of an encoder that was tuned here: what it was tuned from, and that its bytes are still those.

In: a folder of a model.  Out: its card, or nothing where nobody tuned it.  A tuned folder is laid out as the model it
was tuned from; the card stands beside.  Hashes no weights itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.artifacts import write_json
from localmel.errors import CorruptArtifact, shell_line
from localmel.weights.catalog import MINILM

CARD, VERSION = "encoder.json", 1
CLIP = "clip"
KINDS = (MINILM.name, CLIP)
_KIND = "tuned encoder"


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

    def check(self, folder: Path, sha256: str) -> None:
        """Raise CorruptArtifact unless the bytes are those that were written."""
        if sha256 != self.sha256:
            raise CorruptArtifact(
                f"{folder} holds no encoder as it was tuned: sha256 {sha256}, its card says {self.sha256}",
                hint=shell_line("ls -l", folder, note="localmel train makes it again where its network is removed too"),
            )


def write_tuned_card(folder: Path, card: TunedCard) -> None:
    """Into a folder that is otherwise complete."""
    found = {
        "kind": _KIND,
        "version": VERSION,
        "model": card.model,
        "sha256": card.sha256,
        "tuned_from": dict(card.tuned_from),
        "facts": dict(card.facts),
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
        before, facts = found["tuned_from"], found["facts"]
        if not (isinstance(before, dict) and isinstance(facts, dict) and isinstance(found["sha256"], str)):
            raise ValueError("tuned_from, facts and sha256 are two tables and a text")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptArtifact(f"{path} is no card of a tuned encoder ({error})", hint=shell_line("cat", path)) from None
    return TunedCard(model=found["model"], sha256=found["sha256"], tuned_from=before, facts=facts)


def is_minilm(model: str) -> bool:
    """Whether `[encode] model` means MiniLM: by its name, or by the path of one that was tuned.

    A folder that is not there, or with a card that cannot be read, counts as another; who opens it says why."""
    if model == MINILM.name or "/" not in model:
        return model == MINILM.name
    try:
        card = tuned_card(Path(model).expanduser())
    except (CorruptArtifact, RuntimeError):
        return False
    return card is not None and card.model == MINILM.name
