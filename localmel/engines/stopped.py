"""Why a worker is gone, in words: how it ended, what was asked, what is free, what would fit.

In: what is known about a process that ended or never became ready.  Out: an EngineStopped.  Knows no pipes."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localmel.engines.memory import device_of, free_memory, settings_that_fit
from localmel.engines.model_folder import ModelFolder
from localmel.engines.protocol import Request
from localmel.errors import EngineStopped, shell_line
from localmel.settings import EngineSettings

_LAST_LINES = 6
_LOOKED_AT = 40
_MEMORY_WORDS = (
    *("out of memory", "outofmemory", "allocate memory", "free memory on device", "kv cache", "memoryerror"),
    *("available memory", "bad_alloc"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a worker ended."""

    status: int | None
    "As Popen has it: negative for a signal; None where it still ran and was ended for being late."
    was_ready: bool
    n_answered: int
    under_way: Sequence[Request]
    said: Sequence[str]
    "The last lines on its standard error."
    log: Path | None


def stopped(settings: EngineSettings, folder: ModelFolder | None, end: End) -> EngineStopped:
    """The error for `end`; where memory is the likely cause, with settings that would fit."""
    name = folder.path.name if folder else settings.weights or "its script"
    when = f"after {end.n_answered:,} answers" if end.was_ready else "before the model was loaded"
    fact = f"the worker that runs {name} with {settings.engine} {_ended(end, settings)} {when}"
    if end.under_way:
        were = "1 request was" if len(end.under_way) == 1 else f"{len(end.under_way)} requests were"
        fact += f"; {were} under way (first {end.under_way[0].id!r})"
    told = [line.strip() for line in end.said if line.strip()]
    hint = shell_line("less", end.log) if end.log else ""
    if folder and _is_memory(end, told):
        device = device_of(settings)
        memory = free_memory(device)
        fact += f"; asked for at_once {settings.at_once}, context {settings.context or folder.context:,}"
        fact += f", quantization {settings.quantization or 'as stored'}; {memory}"
        hint = f"in the profile's model: {settings_that_fit(folder, settings, memory, device)}"
    if told:
        fact += "; its last words: " + " | ".join(line[:300] for line in told[-_LAST_LINES:])
    return EngineStopped(fact, hint=hint)


def _ended(end: End, settings: EngineSettings) -> str:
    if end.status is None:
        return f"was not ready within {settings.timeout:g} s and was ended"
    if end.status < 0:
        return f"was ended by {_signal_name(-end.status)}"
    return f"ended with status {end.status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_memory(end: End, told: Sequence[str]) -> bool:
    """The system's own killer leaves no words; a library's error has some of these."""
    last = [line.lower() for line in told[-_LOOKED_AT:]]
    return end.status == -signal.SIGKILL or any(word in line for line in last for word in _MEMORY_WORDS)
