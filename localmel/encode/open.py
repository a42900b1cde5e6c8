"""The encoders that a profile names.

In: settings.  Out: what makes vectors of texts, and what makes them of pictures where the model can.  Loads nothing
heavy until something is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localmel.encode.space import ImageEncoder, TextEncoder
from localmel.settings import EncodeSettings
from localmel.weights.catalog import MINILM
from localmel.weights.tuned import tuned_card

if TYPE_CHECKING:
    from localmel.encode.minilm import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """What makes the vectors of one profile."""

    text: TextEncoder
    image: ImageEncoder | None
    "None where the model reads texts only."


def open_encoder(settings: EncodeSettings, *, method: Method | None = None) -> Encoders:
    """Find the model and check its files.  `method` is MiniLM's, published or tuned; CLIP has one way only.

    Raises MissingWeights for a model that is not here, CorruptArtifact for one that cannot be used as it is."""
    folder = folder_of_tuned_minilm(settings)
    if folder or settings.model == MINILM.name:
        from localmel.encode.minilm import MiniLM

        return Encoders(text=MiniLM(method=method, tuned=folder), image=None)
    from localmel.encode.clip import Clip
    from localmel.weights.find import model_folder

    clip = Clip(model_folder(settings.model))
    return Encoders(text=clip, image=clip)


def folder_of_tuned_minilm(settings: EncodeSettings) -> Path | None:
    """Where the settings name a MiniLM that was tuned; None for the published one, and for CLIP.

    Raises CorruptArtifact where a card is there that cannot be read."""
    if "/" not in settings.model:
        return None
    try:
        folder = Path(settings.model).expanduser()
    except RuntimeError:  # a home that nobody has; who looks for the model says so
        return None
    card = tuned_card(folder)
    return folder if card and card.model == MINILM.name else None
