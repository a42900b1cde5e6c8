"""How much memory a model takes when it runs: estimated before anything is loaded, from what is known of it.

In: the settings of an engine.  Out: bytes per device, and where the figure comes from: the model's own files where it
is here, the catalog where it is not.  Also the settings under which it would fit."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.engines.memory import Memory, needed_bytes, settings_that_fit
from localmel.engines.model_folder import ModelFolder, model_folder
from localmel.errors import LocalmelError
from localmel.settings import EngineSettings
from localmel.weights import find
from localmel.weights.catalog import catalog
from localmel.weights.memory_estimate import estimated_memory

GIB = 1 << 30
_PACKED_TO_4_BIT = ("awq", "gptq", "compressed-tensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What one model takes on each of the devices it is spread over: an estimate."""

    bytes: int
    source: str
    "In words."
    folder: ModelFolder | None
    "None where the model is not here."

    def __str__(self) -> str:
        return f"about {gib(self.bytes)} (estimated from {self.source})"


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):.1f} MiB"


def memory_need(engine: EngineSettings, device: str) -> MemoryNeed | None:
    """The estimate on `cuda` or `cpu`; None where the model is neither here nor in the catalog."""
    try:
        folder = model_folder(find.model_folder(engine.weights))
        return MemoryNeed(bytes=needed_bytes(folder, engine, device), source="its files", folder=folder)
    except (LocalmelError, OSError):  # not here, not whole, not to be read: another check says so
        pass
    entry = catalog().get(engine.weights)
    if entry is None:
        return None
    quantization = "4bit" if engine.quantization in _PACKED_TO_4_BIT else engine.quantization or "16bit"
    estimate = estimated_memory(entry, quantization, tokens=engine.context or entry.context)
    devices = engine.tensor_parallel * engine.pipeline_parallel
    size = (estimate.weights + estimate.cache) // devices + estimate.rest
    return MemoryNeed(bytes=size, source="the catalog", folder=None)


def what_would_fit(need: MemoryNeed, engine: EngineSettings, memory: Memory, device: str) -> str:
    """Settings under which the model would run there, in words; empty where its files are needed to tell."""
    return settings_that_fit(need.folder, engine, memory, device) if need.folder else ""
