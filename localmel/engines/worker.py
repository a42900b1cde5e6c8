"""Run one model in a process of its own: `python -m localmel.engines.worker`.

In, on standard input: a line with settings, then requests as lines of JSON.  Out, on the original standard output: one
line per answer as it finishes, complete or not at all.  Everything that libraries print goes to standard error.  When
the input ends, because the parent closed it or died, the process and all it started end too.  Opens no socket."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from localmel.engines.answers import failed, failure
from localmel.engines.protocol import Json, Request, Response, line_of, message_of, request_from
from localmel.engines.scripted import ScriptedEngine
from localmel.errors import LocalmelError
from localmel.settings import EngineSettings, go_offline
from localmel.weights.model_folder import model_folder

_GRACE = 5.0
"Seconds that a model may take to end once its input has ended."


class Model(Protocol):
    """A model in this process's memory."""

    @property
    def is_idle(self) -> bool:
        """Return whether `step` has nothing to do."""
        ...

    def take(self, serial: int, request: Request) -> None:
        """Queue a request.  Raises LocalmelError where it alone cannot be asked."""
        ...

    def drop(self, serials: Collection[int]) -> None:
        """Drop requests whose answers nobody waits for."""
        ...

    def step(self) -> None:
        """Do one piece of work."""
        ...

    def peak_bytes(self) -> int:
        """Return the most memory held so far."""
        ...

    def close(self) -> None:
        """Expect no more requests."""
        ...


class _Channel:
    """The two pipes to the parent, out of reach of anything else that reads or prints in this process."""

    def __init__(self) -> None:
        self._out: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        source: BinaryIO = os.fdopen(os.dup(0), "rb")
        os.dup2(2, 1)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted, not a path
            os.dup2(nothing.fileno(), 0)
        self.start = message_of(source.readline())
        self.dropped: set[int] = set()
        self._inbox: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def _read(self, source: BinaryIO) -> None:
        try:
            for line in source:
                message = message_of(line)
                if "drop" in message:
                    self.dropped.update(message["drop"])
                self._inbox.put(message)
        except ValueError:  # the parent died in the middle of a line
            pass
        self._inbox.put(None)
        signal.setitimer(signal.ITIMER_REAL, 2 * _GRACE)  # ends the process even where Python no longer runs
        time.sleep(_GRACE)
        end_everything()

    def waiting(self, *, wait: bool) -> list[Json | None]:
        """Return the messages since the last call, with `wait` at least one; None among them marks the end."""
        messages = [self._inbox.get()] if wait else []
        while True:
            try:
                messages.append(self._inbox.get_nowait())
            except queue.Empty:
                return messages

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one whole line; short writes are continued."""
        line = memoryview(line_of(message))
        while line:
            line = line[self._out.write(line) :]


def end_everything() -> None:
    """Kill this process and, where it leads a group of its own, everything in it."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class _Scripted:
    """The scripted engine as a model, which tests the machinery between two processes."""

    def __init__(self, engine: ScriptedEngine, channel: _Channel) -> None:
        self._engine, self._channel = engine, channel
        self._waiting: dict[int, Request] = {}

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def take(self, serial: int, request: Request) -> None:
        self._waiting[serial] = request

    def drop(self, serials: Collection[int]) -> None:
        for serial in serials:
            self._waiting.pop(serial, None)

    def step(self) -> None:
        serial = next(iter(self._waiting))
        for response in self._engine.generate([self._waiting.pop(serial)]):
            answer(self._channel, self, serial, response)

    def peak_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self._waiting.clear()


def answer(channel: _Channel, model: Model, serial: int, response: Response) -> None:
    """Send one response."""
    channel.send({"answer": serial, "response": asdict(response), "peak": model.peak_bytes()})


def _loaded(channel: _Channel) -> Model:
    start = channel.start
    settings = EngineSettings(**start["settings"])
    if settings.engine == "scripted":
        script = Path(start["script"]) if start["script"] else None
        return _Scripted(ScriptedEngine(settings, script), channel)

    def hand_out(serial: int, response: Response) -> None:
        answer(channel, model, serial, response)

    folder = model_folder(Path(start["folder"]))
    model: Model
    if settings.engine == "vllm":
        from localmel.engines.vllm import VllmModel

        model = VllmModel(folder, settings, hand_out)
    else:
        from localmel.engines.transformers import TransformersModel

        model = TransformersModel(folder, settings, hand_out, channel.dropped.__contains__)
    return model


def serve(channel: _Channel, model: Model) -> None:
    """Answer requests until the input ends."""
    while True:
        for message in channel.waiting(wait=model.is_idle):
            if message is None:
                return
            if "drop" in message:
                model.drop(message["drop"])
                continue
            request = request_from(message["request"])
            try:
                model.take(message["ask"], request)
            except LocalmelError as error:
                answer(channel, model, message["ask"], failure(request, error))
            except (ValueError, TypeError, LookupError, RuntimeError, OSError) as error:
                traceback.print_exc()
                problem = f"the model cannot take the request ({type(error).__name__}: {error})"
                answer(channel, model, message["ask"], failed(request, problem))
        if not model.is_idle:
            model.step()


def main() -> None:
    """Load the model that the first line names, then answer."""
    go_offline()
    channel = _Channel()
    started = time.perf_counter()
    try:
        model = _loaded(channel)
    except LocalmelError as error:
        channel.send({"refused": type(error).__name__, "fact": error.fact, "hint": error.hint})
        return
    channel.send({"ready": time.perf_counter() - started, "peak": model.peak_bytes()})
    serve(channel, model)
    model.close()


if __name__ == "__main__":
    main()
