"""How much memory a model needs, how much is free, and which settings would fit.

In: a model's folder and settings.  Out: bytes, and settings in words.  The needs are estimates from the configuration
(weights as stored or quantised, keys and values of what is under way, a fixed part for everything else) and are called
so where they are printed.  Loads nothing; asks the driver's own tool about GPUs, so that no memory is taken on them."""

from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from localmel.engines.model_folder import ModelFolder
from localmel.errors import EngineStopped
from localmel.settings import EngineSettings

_SHARE = {"4bit": 0.32, "8bit": 0.56, "fp8": 0.56}
"Of 16-bit weights; what stays unquantised (embeddings, vision tower, scales) counted in."
_CONTEXTS = (32_768, 16_384, 8192, 4096, 2048)
_USUAL = 4096
"Tokens that a request is taken to have where its context is longer: few fill it."
_BESIDE = {"cuda": 1_500_000_000, "cpu": 700_000_000}
"Bytes for kernels, activations and the libraries themselves."


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of the device a model runs on."""

    device: str
    "In words: the GPU's name, or main memory."
    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.device}: {gigabytes(self.free)} of {gigabytes(self.total)} free"


def gigabytes(n_bytes: float) -> str:
    """Two figures that a person compares: 14 GB, 0.62 GB."""
    value = n_bytes / 1e9
    return f"{value:.0f} GB" if value >= 10 else f"{value:.1f} GB" if value >= 1 else f"{value:.2f} GB"


def has_gpu() -> bool:
    """Whether an NVIDIA driver is loaded and sees a card; asks no library."""
    return Path("/proc/driver/nvidia/version").exists() and bool(_gpus())


def free_memory(device: str) -> Memory:
    """`cuda`: of the card with the least; `cpu`: of main memory, a container's limit counted in."""
    if device == "cuda" and (gpus := _gpus()):
        return min(gpus, key=lambda gpu: gpu.free)
    total, free = _main_memory()
    limit, used = _container()
    if limit < total:
        limited = int(limit)
        return Memory(device="main memory of the container", free=max(0, min(free, limited - used)), total=limited)
    return Memory(device="main memory", free=free, total=total)


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
    """Total and available bytes."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(rows["MemTotal"].split()[0]) * 1024, int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        import os

        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page // 2


def _container() -> tuple[float, int]:
    """Limit and use of the control group, in bytes; no limit is infinite."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return (math.inf if limit == "max" else int(limit)), int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return math.inf, 0


def weight_bytes(folder: ModelFolder, settings: EngineSettings, device: str) -> int:
    """What the weights take once they are loaded with these settings, over all cards."""
    if folder.quantized_as:
        return folder.weight_bytes
    n_numbers = folder.weight_bytes / folder.bytes_per_number
    if settings.quantization in _SHARE:
        return int(2 * n_numbers * _SHARE[settings.quantization])
    each = {"float32": 4, "float16": 2, "bfloat16": 2, "auto": 4 if device == "cpu" else folder.bytes_per_number}
    return int(n_numbers * each[settings.dtype])


def needed_bytes(folder: ModelFolder, settings: EngineSettings, device: str) -> int:
    """About what a model takes with these settings, per card where it is split."""
    context = settings.context or folder.context or _USUAL
    if settings.engine == "vllm":  # pages are shared; one request of full length is the least it starts with
        tokens = max(context, min(context, _USUAL) * min(settings.at_once, 4))
    else:
        tokens = min(context, _USUAL) * settings.at_once
    cards = settings.tensor_parallel * settings.pipeline_parallel
    cache = tokens * folder.cache_bytes_per_token
    return int((weight_bytes(folder, settings, device) + cache) / cards) + _BESIDE[device]


def device_of(settings: EngineSettings) -> str:
    """Where a model will run: `auto` is a GPU where there is one."""
    return settings.device if settings.device != "auto" else "cuda" if has_gpu() else "cpu"


def check_room(folder: ModelFolder, settings: EngineSettings) -> None:
    """Raises EngineStopped where the weights alone are more than is free; better now than when the system kills."""
    device = device_of(settings)
    memory = free_memory(device)
    weights = weight_bytes(folder, settings, device) / (settings.tensor_parallel * settings.pipeline_parallel)
    if weights > memory.free:
        fit = settings_that_fit(folder, settings, memory, device)
        raise EngineStopped(
            f"the weights of {folder.path.name} take about {gigabytes(weights)} with quantization "
            f"{settings.quantization or 'as stored'} and dtype {settings.dtype}; {memory}",
            hint=f"in the profile's model: {fit}",
        )


def settings_that_fit(folder: ModelFolder, settings: EngineSettings, memory: Memory, device: str) -> str:
    """The mildest change under which the model would fit, in words with what it would need; or that none would."""
    room = memory.free if settings.engine != "vllm" or device == "cpu" else memory.total * settings.memory_share
    if settings.engine == "vllm" and device == "cuda" and memory.free < room:
        share = math.floor(max(memory.free / memory.total - 0.02, 0) * 100) / 100
        shared = replace(settings, memory_share=share)
        if needed_bytes(folder, shared, device) <= memory.total * share:
            return f"memory_share = {share} (others use {gigabytes(memory.total - memory.free)} of the card)"
        room = min(room, memory.free)
    others = [(changed, needed_bytes(folder, changed, device)) for changed in _milder(folder, settings, device)]
    for changed, needed in others:
        if needed <= room and changed != settings:
            return f"{_difference(settings, changed)} (about {gigabytes(needed)})"
    least = min(needed for _, needed in others)
    return f"none: even the smallest needs about {gigabytes(least)}; take a smaller model"


def _milder(folder: ModelFolder, settings: EngineSettings, device: str) -> list[EngineSettings]:
    """Other settings, from those that change least: fewer at once, a shorter context, fewer bits, and all of it."""
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
    told = ((name, getattr(other, name)) for name in names if getattr(one, name) != getattr(other, name))
    return ", ".join(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in told)
