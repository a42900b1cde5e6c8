"""Estimate how much memory a model needs, see how much is free, and name settings that would fit.

In: a model's folder or its catalog entry, and settings.  Out: bytes, and settings in words.  Needs are estimates from
the configuration (weights as stored or quantised, keys and values of the requests under way, a fixed part for the rest)
and are called so where they are printed.  Loads nothing; asks the driver's own tool about GPUs, which takes no memory
on them."""

from __future__ import annotations

import math
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from localmel.errors import EngineStopped, LocalmelError
from localmel.settings import EngineSettings
from localmel.weights.catalog import CatalogEntry, catalog
from localmel.weights.find import find_model
from localmel.weights.model_folder import ModelFolder

GIB = 1 << 30
_SHARE = {"4bit": 0.32, "8bit": 0.56, "fp8": 0.56}
"Share of the 16-bit weights, including the parts that stay unquantised (embeddings, vision tower, scales)."
_PACKED_TO_4_BIT = ("awq", "gptq", "compressed-tensors")
_CONTEXTS = (32_768, 16_384, 8192, 4096, 2048)
_USUAL = 4096
"Tokens that a request is assumed to take where its context is longer: few fill it."
_REST = {"cuda": 1_500_000_000, "cpu": 700_000_000}
"Bytes for kernels, activations and the libraries themselves."


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of the device that a model runs on."""

    device: str
    "The GPU's name, or main memory."
    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.device}: {gib(self.free)} of {gib(self.total)} free"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """An estimate of the memory that one model takes on each of the devices it is spread over."""

    bytes: int
    source: str
    "The basis of the estimate, in words."
    folder: ModelFolder | None
    "None where the model is not here."

    def __str__(self) -> str:
        return f"about {gib(self.bytes)} (estimated from {self.source})"


def gib(size: float) -> str:
    """Return bytes in words: 14.2 GiB, 90.9 MiB."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):.1f} MiB"


def quantization_kind(settings: EngineSettings) -> str:
    """Return the catalog's name for a quantisation."""
    return "4bit" if settings.quantization in _PACKED_TO_4_BIT else settings.quantization or "16bit"


def memory_need(settings: EngineSettings, device: str) -> MemoryNeed | None:
    """Estimate the need on `cuda` or `cpu` from the model's own files or, where it is not here, from the catalog.

    Returns None for a model that is neither here nor in the catalog."""
    try:
        folder = find_model(settings.weights).folder
        return MemoryNeed(bytes=needed_bytes(folder, settings, device), source="its files", folder=folder)
    except (LocalmelError, OSError):  # missing, incomplete or unreadable: loading it reports that
        pass
    entry: CatalogEntry | None = catalog().get(settings.weights)
    if entry is None:
        return None
    estimate = entry.memory(quantization_kind(settings), tokens=settings.context or entry.context)
    size = (estimate.weights + estimate.cache) // _n_cards(settings) + estimate.rest
    return MemoryNeed(bytes=size, source="the catalog", folder=None)


def weight_bytes(folder: ModelFolder, settings: EngineSettings, device: str) -> int:
    """Return the bytes of the weights once they are loaded with these settings, over all cards."""
    if folder.quantized_as:
        return folder.weight_bytes
    n_numbers = folder.weight_bytes / folder.bytes_per_number
    if settings.quantization in _SHARE:
        return int(2 * n_numbers * _SHARE[settings.quantization])
    each = {"float32": 4, "float16": 2, "bfloat16": 2, "auto": 4 if device == "cpu" else folder.bytes_per_number}
    return int(n_numbers * each[settings.dtype])


def needed_bytes(folder: ModelFolder, settings: EngineSettings, device: str) -> int:
    """Estimate the bytes that a model takes with these settings, per card where it is split."""
    context = settings.context or folder.context or _USUAL
    if settings.engine == "vllm":  # pages are shared; it starts only with room for one request of full length
        tokens = max(context, min(context, _USUAL) * min(settings.at_once, 4))
    else:
        tokens = min(context, _USUAL) * settings.at_once
    cache = tokens * folder.cache_bytes_per_token
    return int((weight_bytes(folder, settings, device) + cache) / _n_cards(settings)) + _REST[device]


def _n_cards(settings: EngineSettings) -> int:
    return settings.tensor_parallel * settings.pipeline_parallel


# --- what is here ---------------------------------------------------------------------------------------------------


def has_gpu() -> bool:
    """Say whether an NVIDIA driver is loaded and sees a card; asks no library."""
    return Path("/proc/driver/nvidia/version").exists() and bool(_gpus())


def device_of(settings: EngineSettings) -> str:
    """Return the device a model will run on: `auto` is a GPU where there is one."""
    return settings.device if settings.device != "auto" else "cuda" if has_gpu() else "cpu"


def free_memory(device: str) -> Memory:
    """Return the memory of `cuda`, the card with the least free, or of `cpu`, within a container's limit."""
    if device == "cuda" and (gpus := _gpus()):
        return min(gpus, key=lambda gpu: gpu.free)
    total, free = _main_memory()
    limit, used = _container()
    if limit < total:
        limited = int(limit)
        return Memory(device="main memory of the container", free=max(0, min(free, limited - used)), total=limited)
    return Memory(device="main memory", free=free, total=total)


def peak_bytes(device: str) -> int:
    """Return the most memory this process has held: on a GPU, torch's share; else resident memory."""
    if device == "cuda":
        import torch

        return sum(torch.cuda.max_memory_reserved(number) for number in range(torch.cuda.device_count()))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _gpus() -> list[Memory]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
        rows = [line.rsplit(",", 2) for line in said.strip().splitlines()]
        return [
            Memory(device=name.strip(), free=int(free) * 2**20, total=int(total) * 2**20) for name, free, total in rows
        ]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _main_memory() -> tuple[int, int]:
    """Return total and available bytes."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(rows["MemTotal"].split()[0]) * 1024, int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page // 2


def _container() -> tuple[float, int]:
    """Return limit and use of the control group, in bytes; without a limit, infinity."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return (math.inf if limit == "max" else int(limit)), int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return math.inf, 0


# --- what would fit -------------------------------------------------------------------------------------------------


def check_room(folder: ModelFolder, settings: EngineSettings) -> None:
    """Raise EngineStopped where the weights alone exceed free memory, before the system kills the process for it."""
    device = device_of(settings)
    memory = free_memory(device)
    weights = weight_bytes(folder, settings, device) / _n_cards(settings)
    if weights > memory.free:
        fit = settings_that_fit(folder, settings, memory, device)
        raise EngineStopped(
            f"the weights of {folder.path.name} take about {gib(weights)} with quantization "
            f"{settings.quantization or 'as stored'} and dtype {settings.dtype}; {memory}",
            hint=f"in the profile's model: {fit}",
        )


def settings_that_fit(folder: ModelFolder, settings: EngineSettings, memory: Memory, device: str) -> str:
    """Describe the mildest change under which the model would fit and what it would need, or say that none would."""
    room = memory.free if settings.engine != "vllm" or device == "cpu" else memory.total * settings.memory_share
    if settings.engine == "vllm" and device == "cuda" and memory.free < room:
        share = math.floor(max(memory.free / memory.total - 0.02, 0) * 100) / 100
        shared = replace(settings, memory_share=share)
        if needed_bytes(folder, shared, device) <= memory.total * share:
            return f"memory_share = {share} (others use {gib(memory.total - memory.free)} of the card)"
        room = min(room, memory.free)
    others = [(changed, needed_bytes(folder, changed, device)) for changed in _milder(folder, settings, device)]
    for changed, needed in others:
        if needed <= room and changed != settings:
            return f"{_difference(settings, changed)} (about {gib(needed)})"
    least = min(needed for _, needed in others)
    return f"none: even the smallest needs about {gib(least)}; use a smaller model"


def _milder(folder: ModelFolder, settings: EngineSettings, device: str) -> list[EngineSettings]:
    """Return other settings, mildest first: fewer at once, a shorter context, fewer bits, and all of them together."""
    fewer = [replace(settings, at_once=settings.at_once >> shift) for shift in range(1, settings.at_once.bit_length())]
    room = settings.context or folder.context or _USUAL
    shorter = [replace(settings, context=context) for context in _CONTEXTS if context < room]
    kinds = ("8bit", "4bit") if settings.engine == "transformers" else ("fp8", "4bit") if device == "cuda" else ()
    if settings.quantization or folder.quantized_as:
        kinds = ()
    quantized = [replace(settings, quantization=kind) for kind in kinds]
    halved = device == "cpu" and settings.dtype in ("auto", "float32") and not settings.quantization
    lighter = [replace(settings, dtype="bfloat16")] if halved else []
    alone = [replace(one, at_once=1) for one in (*shorter, *lighter, *quantized)]
    smallest = replace((lighter or [settings])[0], at_once=1, context=min(room, _CONTEXTS[-1]))
    all_of_it = [replace(smallest, quantization=kind) for kind in kinds]
    return [*fewer, *shorter, *lighter, *quantized, *alone, smallest, *all_of_it]


def _difference(one: EngineSettings, other: EngineSettings) -> str:
    names = ("at_once", "context", "dtype", "quantization")
    changed = ((name, getattr(other, name)) for name in names if getattr(one, name) != getattr(other, name))
    return ", ".join(
        f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in changed
    )
