"""The encoders that a profile names.

In: settings.  Out: what makes vectors of texts, and what makes them of pictures where the model can.  Loads nothing
heavy until something is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localmel.encode.space import ImageEncoder, TextEncoder
from localmel.settings import EncodeSettings
from localmel.weights.catalog import MINILM

if TYPE_CHECKING:
    from localmel.encode.minilm import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """What makes the vectors of one profile."""

    text: TextEncoder
    image: ImageEncoder | None
    "None where the model reads texts only."


def open_encoder(settings: EncodeSettings, *, method: Method | None = None) -> Encoders:
    """Find the model and check its files.  `method` is MiniLM's; CLIP has one way only.

    Raises MissingWeights for a model that is not here, CorruptArtifact for one that cannot be used as it is."""
    if settings.model == MINILM.name:
        from localmel.encode.minilm import MiniLM

        return Encoders(text=MiniLM(method=method), image=None)
    from localmel.encode.clip import Clip
    from localmel.weights.find import model_folder

    clip = Clip(model_folder(settings.model))
    return Encoders(text=clip, image=clip)
