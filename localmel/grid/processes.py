"""Spread the work of a grid over several GPUs, with one process at a time on each, which sees no other GPU.

In: a checked grid, and the names of GPUs.  Out: the reasons why cells are not finished.  The work of a VLM comes before
its cells.  A process ends with this one, and its model with it.  With one GPU or none this module is not used: models
already run in worker processes, one after the other."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from localmel.grid.cells import Failure, Ground, describe, failure_of, finish, ground_of, is_finished, note_failure
from localmel.grid.plan import Cell, Grid, GridPlan, planned
from localmel.kb.locate import open_kb
from localmel.settings import EngineSettings, go_offline
from localmel.store import progress

VISIBLE = "CUDA_VISIBLE_DEVICES"
_LOCAL = ("vllm", "transformers")
Json = dict[str, Any]
Job = tuple[str, tuple[str, ...]]
"`describe` or `finish`, and the names of the parts or cells to do it for."


def gpus_of(grid: Grid) -> tuple[str, ...]:
    """Return the GPUs to spread cells over; none if a model is split over several or runs on a CPU."""
    models = [one.settings for one in grid.models.values() if one.settings]
    if not any(one.engine in _LOCAL for one in models) or not all(map(_on_one_gpu, models)):
        return ()
    visible = os.environ.get(VISIBLE)
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    return tuple(str(number) for number in range(_n_gpus()))


def _on_one_gpu(model: EngineSettings) -> bool:
    split = model.tensor_parallel * model.pipeline_parallel > 1
    return model.engine not in _LOCAL or (model.device != "cpu" and not split)


def _n_gpus() -> int:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    try:
        said = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in said.splitlines())


def run_on_gpus(ground: Ground, gpus: Sequence[str]) -> dict[str, Failure]:
    """Run everything that is not finished.  Returns the failures by the names of cells."""
    cells = [cell for cell in ground.grid.cells if not is_finished(ground.out, cell)]
    by_vlm: dict[str, list[Cell]] = {}
    for cell in cells:
        by_vlm.setdefault(cell.described.vlm.label, []).append(cell)
    failed: dict[str, Failure] = {}
    with _Processes(ground, gpus) as processes:
        for own in by_vlm.values():
            names = tuple(dict.fromkeys(cell.described.name for cell in own))
            processes.start(("describe", names))
        while ended := processes.next_ended():
            (kind, names), failure = ended
            if kind == "finish":
                about = [cell for cell in cells if cell.name in names]
            else:
                about = [cell for cell in cells if cell.described.name in names]
            for cell in about:
                if failure:
                    failed[cell.name] = failure
                    note_failure(ground, cell, failure)
                elif kind == "describe":
                    processes.start(("finish", (cell.name,)))
    return failed


class _Processes:
    """Runs jobs in processes, as many at a time as there are GPUs."""

    def __init__(self, ground: Ground, gpus: Sequence[str]) -> None:
        self._ground, self._listener = ground, progress.current()
        self._free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for gpu in gpus:
            self._free.put(gpu)
        self._pool = ThreadPoolExecutor(len(gpus))
        self._running: dict[Future[Failure | None], Job] = {}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ending = False

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes that still run, by closing their input."""
        with self._lock:
            self._ending = True
            for process in self._processes:
                _close(process.stdin)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, job: Job) -> None:
        """Start a job as soon as a GPU is free."""
        self._running[self._pool.submit(self._run, job)] = job

    def next_ended(self) -> tuple[Job, Failure | None] | None:
        """Return the next job that ends and why it failed, if it did; None if no job is left."""
        if not self._running:
            return None
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        future = done.pop()
        return self._running.pop(future), future.result()

    def _run(self, job: Job) -> Failure | None:
        gpu = self._free.get()
        try:
            return self._run_on(gpu, job)
        finally:
            self._free.put(gpu)

    def _run_on(self, gpu: str, job: Job) -> Failure | None:
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, VISIBLE: gpu, "PYTHONPATH": paths}
        command = [sys.executable, "-m", __name__]
        with self._lock:
            if self._ending:
                return Failure(fact="the job was not started", hint="run the same command again", exit_code=3)
            self._listener.on_note(f"GPU {gpu}: {job[0]} {', '.join(job[1])}")
            process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._processes.add(process)
        try:
            return _heard(process, _order(self._ground, job), self._listener)
        finally:
            with self._lock:
                self._processes.discard(process)
            _close(process.stdin)
            process.wait()
            _close(process.stdout)


def _order(ground: Ground, job: Job) -> Json:
    plan = asdict(ground.grid.plan)
    plan["data"], plan["kb"] = str(ground.grid.plan.data), str(ground.kb.folder.resolve())
    return {"plan": plan, "out": str(ground.out), "command": ground.command, "job": job}


def _heard(process: subprocess.Popen[bytes], order: Json, listener: progress.Listener) -> Failure | None:
    """Send the order, pass notes on, and return the failure that the process reports at its end."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    said: Json | None = None
    for line in process.stdout:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if "note" in message:
            listener.on_note(message["note"])
        else:
            said = message
    if said is None:
        status = process.wait()
        return Failure(fact=f"its process ended with status {status}", hint="run the same command again", exit_code=3)
    return Failure(**said["failed"]) if said["failed"] else None


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(OSError):
            pipe.close()


# --- in the process -------------------------------------------------------------------------------------------------


def main() -> None:
    """Do the job in the first line of the input; end when the input ends."""
    go_offline()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is not an answer
    source = os.fdopen(os.dup(0), "rb")
    order = json.loads(source.readline())
    threading.Thread(target=_end_with, args=(source,), daemon=True).start()
    failure: Failure | None = None
    try:
        with progress.listening(progress.Listener(on_note=lambda note: _say(out, {"note": note}))):
            _work(order)
    except Exception as error:  # noqa: BLE001 - reported to the process that asked
        failure = failure_of(error)
    _say(out, {"failed": asdict(failure) if failure else None})


def _work(order: Mapping[str, Any]) -> None:
    given: Json = {key: tuple(value) if isinstance(value, list) else value for key, value in order["plan"].items()}
    given["data"] = Path(given["data"])
    grid = planned(GridPlan(**given))
    kind, names = order["job"]
    with open_kb(grid.plan.kb) as kb:
        ground = ground_of(grid, Path(order["out"]), kb, command=order["command"])
        if kind == "describe":
            for one in grid.described:
                if one.name in names:
                    describe(ground, one)
        else:
            for cell in grid.cells:
                if cell.name in names:
                    finish(ground, cell)


def _say(out: IO[str], message: Json) -> None:
    out.write(json.dumps(message) + "\n")


def _end_with(source: IO[bytes]) -> None:
    while source.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)  # a model in a worker is released as after Ctrl-C


if __name__ == "__main__":
    main()
