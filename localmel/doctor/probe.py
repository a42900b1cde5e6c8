"""Import packages in a process of their own, and say which of them work and which GPUs torch sees.

In: names of modules.  Out: what came of each.  A package that ends Python, or never returns, ends only that process;
those behind it are tried in another one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from localmel.doctor.importing import MARK
from localmel.settings import OFFLINE

_SCRIPT = Path(__file__).with_name("importing.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenGpu:
    """One GPU as torch sees it."""

    name: str
    free_bytes: int
    total_bytes: int
    capability: str
    'As in "8.9".'


@dataclass(slots=True)
class Probed:
    """What came of the imports."""

    works: set[str] = field(default_factory=set)
    "Modules that were imported."
    broken: dict[str, str] = field(default_factory=dict)
    "Module -> why."
    not_reached: list[str] = field(default_factory=list)
    "Modules for which there was no time."
    gpus: list[SeenGpu] | None = None
    "None where torch was not asked, or could not be."
    cuda_problem: str = ""
    "Why torch, built for CUDA, finds no GPU."

    def __or__(self, other: Probed) -> Probed:
        """Both together; what is known of GPUs comes from `other`."""
        return Probed(
            works=self.works | other.works,
            broken=self.broken | other.broken,
            not_reached=[*self.not_reached, *other.not_reached],
            gpus=other.gpus,
            cuda_problem=other.cuda_problem,
        )


class Probe:
    """Starts at once; `result` waits for it, and `close` ends it.  A context manager."""

    def __init__(self, modules: Sequence[str], *, seconds: float) -> None:
        self._left = list(modules)
        self._until = time.monotonic() + seconds
        self._probed = Probed()
        self._process = self._start()

    def result(self) -> Probed:
        """What came of the imports, at the latest when the time is over."""
        while self._process is not None:
            output, errors = self._finished()
            current = self._read(output)
            if current:
                self._left = self._left[self._left.index(current) + 1 :]
                self._probed.broken[current] = _how_it_ended(self._process.returncode, errors)
            elif self._left:
                break  # time is over, or the process could not begin at all: the rest was not reached
            self._process = self._start() if self._left else None
        self._probed.not_reached = self._left
        return self._probed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def _start(self) -> subprocess.Popen[str] | None:
        if not self._left or time.monotonic() > self._until:
            return None
        try:
            return subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT), *self._left],
                env={**os.environ, **OFFLINE},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError:
            return None

    def _finished(self) -> tuple[str, str]:
        assert self._process is not None
        try:
            return self._process.communicate(timeout=max(0.0, self._until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.communicate()

    def _read(self, output: str) -> str:
        """Take over what was said.  Returns the module at which the process ended by itself; empty where it did not."""
        begun = ""
        for said in _said(output):
            if "begin" in said:
                begun = said["begin"]
                continue
            if "gpus" in said:
                self._probed.gpus = [SeenGpu(**gpu) for gpu in said["gpus"]]
                self._probed.cuda_problem = said["problem"]
                continue
            if said["why"]:
                self._probed.broken[begun] = said["why"]
            else:
                self._probed.works.add(begun)
            self._left.remove(begun)
            begun = ""
        return begun if time.monotonic() < self._until else ""


def _said(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        if line.startswith(MARK):
            with suppress(ValueError):  # a package that prints our mark is no reason to stop
                yield json.loads(line.removeprefix(MARK))


def _how_it_ended(code: int, errors: str) -> str:
    last = errors.strip().splitlines()[-1:] or [""]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"importing it ends Python with {how}" + (f" ({last[0][:200]})" if last[0] else "")
