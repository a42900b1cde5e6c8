"""The engine that a profile names, over the weights that are on this machine.

In: engine settings.  Out: an open engine.  A server has its own weights; for the scripted engine a path is its script,
and with a name it makes its answers up."""

from __future__ import annotations

from pathlib import Path

from localmel.engines.open import open_engine
from localmel.engines.protocol import Engine
from localmel.settings import EngineSettings
from localmel.weights.find import model_folder


def open_model(settings: EngineSettings) -> Engine:
    """Find the weights and start the model.  Raises MissingWeights, MissingExtra or EngineStopped."""
    if settings.engine == "scripted":
        return open_engine(settings, None, script=Path(settings.weights) if "/" in settings.weights else None)
    return open_engine(settings, None if settings.engine == "server" else model_folder(settings.weights))
