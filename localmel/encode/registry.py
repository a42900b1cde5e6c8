"""The encoders that a profile names.

In: settings.  Out: what makes vectors of texts, and what makes them of pictures where the model can.  Loads nothing
heavy until something is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localmel.encode.space import ImageEncoder, TextEncoder
from localmel.errors import CorruptArtifact, MissingWeights
from localmel.settings import EncodeSettings
from localmel.weights.catalog import MINILM
from localmel.weights.tuned import CARD, MADE_AGAIN, folder_named, looks_tuned, tuned_card

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

    Raises MissingWeights or CorruptArtifact for a tuned encoder, of whatever kind, that is not there as a whole."""
    if settings.model == MINILM.name or (folder := folder_named(settings.model)) is None:
        return None
    if not looks_tuned(folder):
        return None
    if "/" in settings.model:
        return _as_tuned(folder)
    from localmel.weights.find import model_folder

    card = tuned_card(model_folder(settings.model))  # which holds the files against what was installed
    return folder if card and card.model == MINILM.name else None


def _as_tuned(folder: Path) -> Path | None:
    """Of a folder that training wrote, as the errors say; None where CLIP reads it."""
    from localmel.weights.complete import OPEN_CLIP, whole_model

    card = tuned_card(folder)
    if card and card.model == MINILM.name:
        return folder  # MiniLM looks at every byte itself
    if card is None and (folder / OPEN_CLIP).is_file():
        return None  # a published CLIP may be called so too
    try:
        whole_model(folder)
    except (MissingWeights, CorruptArtifact) as error:
        raise type(error)(error.fact, hint=MADE_AGAIN) from None
    if card is None:
        raise MissingWeights(f"{folder} holds no tuned encoder: {CARD} is missing", hint=MADE_AGAIN)
    card.check_files(folder)
    return None
