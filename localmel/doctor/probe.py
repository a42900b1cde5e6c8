"""Import packages in a process of their own, and see which of them work and which GPUs torch finds.

In: names of modules.  Out: the result for each.  A package that crashes Python, or never returns, takes down only that
process; the modules after it are tried in another one.  This file also runs as a script, in that process: then nothing
but the standard library is imported before the first of the modules."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

_MARK = "@localmel-probe "
"Begins our lines among anything that the packages print."


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
    """The result of the imports."""

    works: set[str] = field(default_factory=set)
    "Modules that were imported."
    broken: dict[str, str] = field(default_factory=dict)
    "Module -> why."
    not_reached: list[str] = field(default_factory=list)
    "Modules that were not tried for lack of time."
    gpus: list[SeenGpu] | None = None
    "None where torch was not asked, or could not answer."
    cuda_problem: str = ""
    "Why torch, built for CUDA, finds no GPU."

    def __or__(self, other: Probed) -> Probed:
        """Combine both; the GPUs are those of `other`."""
        return Probed(
            works=self.works | other.works,
            broken=self.broken | other.broken,
            not_reached=[*self.not_reached, *other.not_reached],
            gpus=other.gpus,
            cuda_problem=other.cuda_problem,
        )


class Probe:
    """A probe that starts at once; `result` waits for it, and `close` ends it.  A context manager."""

    def __init__(self, modules: Sequence[str], *, seconds: float) -> None:
        self._left = list(modules)
        self._until = time.monotonic() + seconds
        self._probed = Probed()
        self._process = self._start()

    def result(self) -> Probed:
        """Return the result of the imports, at the latest when the time is over."""
        while (process := self._process) is not None:
            output, errors = self._finished(process)
            current = self._read(output)
            if current:
                self._left = self._left[self._left.index(current) + 1 :]
                self._probed.broken[current] = _how_it_ended(process.returncode, errors)
            elif self._left:
                break  # the time is over, or the process could not start: the rest is not tried
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
        from localmel.settings import OFFLINE  # not at the top: this file also runs as a script

        if not self._left or time.monotonic() > self._until:
            return None
        try:
            return subprocess.Popen(
                [sys.executable, "-P", __file__, *self._left],
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

    def _finished(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        try:
            return process.communicate(timeout=max(0.0, self._until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.communicate()

    def _read(self, output: str) -> str:
        """Record the output.  Returns the module at which the process ended by itself; empty where it did not."""
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
        if line.startswith(_MARK):
            with suppress(ValueError):  # a package that prints our mark must not stop the others
                yield json.loads(line.removeprefix(_MARK))


def _how_it_ended(code: int, errors: str) -> str:
    last = errors.strip().splitlines()[-1:] or [""]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"importing it ends Python with {how}" + (f" ({last[0][:200]})" if last[0] else "")


# --- in the process that imports ------------------------------------------------------------------------------------


def _say(**what: Any) -> None:
    os.write(1, f"\n{_MARK}{json.dumps(what)}\n".encode())


def _tried(name: str) -> str:
    """Return why a module cannot be imported; empty where it can."""
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 a broken package raises anything
        return f"{type(error).__name__}: {error}"[:500]
    return ""


def _gpus() -> dict[str, Any]:
    torch = importlib.import_module("torch")
    found: dict[str, Any] = {"gpus": [], "problem": ""}
    if torch.version.cuda is None:
        return found
    try:
        torch.cuda.init()
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            free, total = torch.cuda.mem_get_info(number)
            found["gpus"].append(
                {
                    "name": facts.name,
                    "free_bytes": free,
                    "total_bytes": total,
                    "capability": f"{facts.major}.{facts.minor}",
                }
            )
    except (RuntimeError, AssertionError, OSError) as error:
        found["problem"] = str(error).splitlines()[0][:500]
    return found


def _run(names: Sequence[str]) -> None:
    for name in names:
        _say(begin=name)
        why = _tried(name)
        _say(why=why)
        if name == "torch" and not why:
            _say(**_gpus())


if __name__ == "__main__":
    _run(sys.argv[1:])
