"""A worker may be killed, print, hang, or lose its parent: what was answered stays, and no process is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from localmel.engines.open import open_engine
from localmel.engines.process import WorkerEngine
from localmel.engines.protocol import Request, Response
from localmel.errors import EngineStopped, MissingWeights
from localmel.settings import EngineSettings
from localmel.weights.model_folder import model_folder

Asked = Callable[..., Request]
Models = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]


OTHERS: set[int] = set()
"Workers of other tests, which are none of these tests' business."


def all_workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "localmel.engines.worker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def workers() -> list[psutil.Process]:
    """Workers that a test started and that still run."""
    return [child for child in all_workers() if child.pid not in OTHERS]


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    OTHERS.update(child.pid for child in all_workers())
    yield
    OTHERS.clear()


def ended(pid: int, seconds: float = 15) -> bool:
    """Whether a process is gone within so many seconds."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def scripted(tmp_path: Path, *, seconds: float = 0.0, at_once: int = 4, timeout: float = 60) -> WorkerEngine:
    """The scripted engine in a worker: the same pipes and processes, without a model to load."""
    path = tmp_path / "script.jsonl"
    path.write_text(json.dumps({"answer": "word " * 50, "seconds": seconds}) + "\n", encoding="utf-8")
    settings = EngineSettings(engine="scripted", at_once=at_once, timeout=timeout)
    return WorkerEngine(settings, None, script=path, log=tmp_path / "log")


@pytest.fixture
def questions(asked: Asked) -> list[Request]:
    return [asked(number, f"question {number}", max_tokens=100) for number in range(60)]


def check_whole(responses: list[Response]) -> None:
    assert len({one.request_id for one in responses}) == len(responses)
    assert {one.text for one in responses} <= {"word " * 50}
    assert {one.finish for one in responses} <= {"stop"}


def test_answers_come_through_a_worker(tmp_path: Path, questions: list[Request]) -> None:
    with scripted(tmp_path) as engine:
        responses = list(engine.generate(questions))
        assert [one.request_id for one in responses] == [one.id for one in questions]
        check_whole(responses)
        assert len(workers()) == 1
    assert workers() == []


def test_without_a_request_no_worker_is_started(tmp_path: Path) -> None:
    with scripted(tmp_path) as engine:
        assert list(engine.generate([])) == []
        assert engine.facts().engine == "scripted"
        assert workers() == []


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.slow(reason="starts fifty processes"))])
def test_a_worker_killed_at_any_moment_loses_no_finished_answer(
    kills: int, tmp_path: Path, questions: list[Request]
) -> None:
    """Killed at moments drawn over its whole life; what is missing is asked again, until all is there."""
    draw = random.Random(0)
    kept: dict[str, Response] = {}
    reasons: list[str] = []
    n_stops = 0
    with scripted(tmp_path, seconds=0.004) as engine:
        while n_stops < kills or len(kept) < len(questions):
            left = [one for one in questions if n_stops < kills or one.id not in kept]
            killer = threading.Timer(draw.uniform(0.01, 0.6), lambda: [child.kill() for child in workers()])
            if n_stops < kills:
                killer.start()
            responses: list[Response] = []
            try:
                for response in engine.generate(left):
                    responses.append(response)
            except EngineStopped as error:
                n_stops += 1
                reasons.append(error.fact)
            killer.cancel()
            killer.join() if killer.ident else None
            check_whole(responses)
            kept |= {one.request_id: one for one in responses}
    assert len(kept) == len(questions)
    assert all("was ended by SIGKILL" in reason for reason in reasons)
    assert workers() == []


def test_a_stop_says_how_it_ended_what_was_under_way_and_what_was_said(
    tmp_path: Path, questions: list[Request]
) -> None:
    with scripted(tmp_path, seconds=0.05) as engine:
        generating = engine.generate(questions)
        seen = [next(generating), next(generating)]
        workers()[0].send_signal(signal.SIGABRT)
        with pytest.raises(EngineStopped) as stop:
            seen += list(generating)
    assert "was ended by SIGABRT after" in stop.value.fact
    assert f"after {len(seen)} answers" in stop.value.fact
    assert "8 requests were under way (first " in stop.value.fact
    assert stop.value.hint == f"less {tmp_path / 'log'}"


def test_after_a_stop_the_next_question_starts_a_new_worker(tmp_path: Path, questions: list[Request]) -> None:
    with scripted(tmp_path, seconds=0.02) as engine:
        generating = engine.generate(questions)
        next(generating)
        workers()[0].kill()
        with pytest.raises(EngineStopped):
            list(generating)
        check_whole(responses := list(engine.generate(questions[:3])))
        assert len(responses) == 3


def test_two_readers_of_one_engine_get_their_own_answers(tmp_path: Path, questions: list[Request]) -> None:
    with scripted(tmp_path, seconds=0.002) as engine:
        one, other = engine.generate(questions[:30]), engine.generate(questions[30:])
        mixed: list[str] = []
        for _ in range(30):
            mixed += [next(one).request_id, next(other).request_id]
        assert sorted(mixed, key=int) == [request.id for request in questions]


def test_leaving_in_the_middle_ends_the_worker(tmp_path: Path, questions: list[Request]) -> None:
    engine = scripted(tmp_path, seconds=0.5)
    with pytest.raises(KeyboardInterrupt), engine:  # noqa: PT012 - the interrupt comes while answers are read
        for _ in engine.generate(questions):
            raise KeyboardInterrupt
    assert workers() == []


PARENT = """
import sys
from pathlib import Path
from localmel.engines.process import WorkerEngine
from localmel.engines.protocol import Message, Request
from localmel.settings import EngineSettings
engine = WorkerEngine(EngineSettings(engine="scripted", at_once=2), None, script=Path(sys.argv[1]))
message = Message(role="user", parts=("hello",))
with engine:
    for response in engine.generate(Request(id=str(n), messages=(message,)) for n in range(10000)):
        print(engine._worker._process.pid, flush=True)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that asks a worker on and on, and the worker's id."""
    script = tmp_path / "script.json"
    script.write_text('[{"answer": "yes", "seconds": 0.05}]', encoding="utf-8")
    command = [sys.executable, "-c", PARENT, str(script)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stdout
    yield process, int(process.stdout.readline())
    process.kill()
    process.communicate()


def test_a_parent_that_is_killed_leaves_no_orphan(parent: tuple[subprocess.Popen[str], int]) -> None:
    process, worker = parent
    assert psutil.pid_exists(worker)
    process.kill()
    process.wait()
    assert ended(worker)


def test_ctrl_c_in_the_parent_ends_the_worker(parent: tuple[subprocess.Popen[str], int]) -> None:
    process, worker = parent
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in said
    assert ended(worker)


def test_a_worker_that_does_not_get_ready_in_time_is_ended(tmp_path: Path, asked: Asked, tiny_models: Models) -> None:
    settings = EngineSettings(engine="transformers", weights="tiny-llama", timeout=0.2)
    with open_engine(settings, tiny_models("tiny-llama"), log=tmp_path / "log") as engine:
        with pytest.raises(EngineStopped, match=r"was not ready within 0\.2 s and was ended before the model was load"):
            list(engine.generate([asked(1, "hello")]))
        assert workers() == []


NOISY = """
import os, sys
import localmel.engines.scripted as scripted
original = scripted.ScriptedEngine._answered
def noisy(self, request):
    print("a library prints", request.id)
    os.write(1, b'{"answer": 0, "response": {}}\\n')
    os.system("echo a child prints; echo and on the other side >&2")
    return original(self, request)
scripted.ScriptedEngine._answered = noisy
from localmel.engines.worker import main
main()
"""


def test_what_libraries_print_reaches_the_log_and_no_answer(
    tmp_path: Path, questions: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = subprocess.Popen

    def start_noisy(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return started([command[0], "-c", NOISY], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr("localmel.engines.process.subprocess.Popen", start_noisy)
    with scripted(tmp_path) as engine:
        check_whole(list(engine.generate(questions[:5])))
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert log.count("a library prints") == log.count("a child prints") == log.count("and on the other side") == 5


def test_a_refusal_of_the_worker_is_raised_as_what_it_is(tmp_path: Path, asked: Asked, tiny_models: Models) -> None:
    """What was whole when the engine was opened may be gone when the worker looks."""
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_models("tiny-llama"), folder)
    settings = EngineSettings(engine="transformers", weights="model")
    with open_engine(settings, folder) as engine:
        (folder / "tokenizer.json").unlink()
        with pytest.raises(MissingWeights, match="the tokenizer is missing"):
            list(engine.generate([asked(1, "hello")]))
        assert workers() == []


def test_a_model_larger_than_the_memory_is_refused_before_it_is_loaded(
    tmp_path: Path, asked: Asked, tiny_models: Models
) -> None:
    """Weights of 8 TB, none of them on the disk: a file with a hole."""
    import shutil

    folder = tmp_path / "huge"
    shutil.copytree(tiny_models("tiny-llama"), folder)
    size = 8 * 10**12
    header = json.dumps({"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        try:
            file.truncate(8 + len(header) + size)
        except OSError:
            pytest.skip("this file system holds no file of 8 TB")
    settings = EngineSettings(engine="transformers", weights="huge", device="cpu")
    with open_engine(settings, folder) as engine, pytest.raises(EngineStopped) as stop:
        list(engine.generate([asked(1, "hello")]))
    assert "the weights of huge take about 14901.2 GiB" in stop.value.fact
    assert "free" in stop.value.fact
    assert "use a smaller model" in stop.value.hint
    assert workers() == []


@pytest.mark.slow(reason="loads a model anew after every kill")
def test_a_model_killed_at_any_moment_loses_no_finished_answer(
    tmp_path: Path, asked: Asked, tiny_models: Models
) -> None:
    draw = random.Random(1)
    settings = EngineSettings(engine="transformers", weights="tiny-llama", at_once=2, device="cpu")
    requests = [asked(number, f"question {number}", max_tokens=24) for number in range(16)]
    with open_engine(settings, tiny_models("tiny-llama"), log=tmp_path / "log") as engine:
        whole = {one.request_id: one.text for one in engine.generate(requests)}
        for _ in range(5):
            responses: list[Response] = []
            generating = engine.generate(requests)
            kill_after = draw.randrange(0, 14)
            with pytest.raises(EngineStopped) as stop:  # noqa: PT012 - the kill comes while answers are read
                for response in generating:
                    responses.append(response)
                    if len(responses) >= kill_after:
                        time.sleep(draw.uniform(0, 0.02))
                        for worker in workers():  # none is left where answers were on their way when it was killed
                            worker.kill()
            assert "SIGKILL" in stop.value.fact
            assert "main memory" in stop.value.fact
            assert "at_once = 1" in stop.value.hint
            assert all(whole[one.request_id] == one.text for one in responses)
    assert workers() == []


def test_a_folder_is_looked_over_in_the_process_that_asks(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="there is no folder"):
        model_folder(tmp_path / "absent")
