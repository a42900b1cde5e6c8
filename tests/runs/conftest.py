"""A benchmark of nine mentions, its KB indexed by an encoder that only hashes, and small networks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.encode.kb_vectors import index_kb
from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb
from localmel.matchers.kgmel.folder import save_network
from localmel.matchers.kgmel.settings import FusionSettings
from tests.grid.grid_world import World, made

WIDTH = 16


class HashedWords:
    """A text is the sum of a vector for each of its words: texts that share words are near."""

    space = Space(name="hashed-words", width=WIDTH, weights_sha256="0" * 64)

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        vectors = np.zeros((len(texts), WIDTH), np.float32)
        for line, text in enumerate(texts):
            for word in ["", *text.lower().split()]:
                random = np.random.default_rng(list(word.encode()))
                vectors[line] += random.standard_normal(WIDTH)
        on_texts(len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


ENTITIES: list[dict[str, object]] = [
    {"id": "Q1", "label": "Michael Jordan", "description": "basketball player", "aliases": ["Jordan"], "popularity": 9},
    {"id": "Q2", "label": "Jordan", "description": "country in the Near East", "popularity": 8},
    {"id": "Q3", "label": "Chicago", "description": "city in Illinois", "popularity": 7},
    {"id": "Q4", "label": "Chicago Bulls", "description": "basketball team", "aliases": ["Bulls"], "popularity": 5},
    {"id": "Q5", "label": "Amman", "description": "capital", "popularity": 3},
    {"id": "Q6", "label": "Unknown One"},
]
FACTS = [
    ("Q1", "member of", "Q4", "Chicago Bulls"),
    ("Q5", "capital of", "Q2", "Jordan"),
    ("Q4", "in", "Q3", "Chicago"),
]
TRAIN = [("t0", "Jordan played for the Bulls", "Jordan", "Q1"), ("t1", "The wind in Chicago", "Chicago", "Q3")]
VAL: list[tuple[str, str, str, str | None]] = [
    ("1-0", "Jordan dunks for the Bulls in Chicago", "Jordan", "Q1"),
    ("1-1", "Jordan dunks for the Bulls in Chicago", "Bulls", "Q4"),
    ("1-2", "Jordan dunks for the Bulls in Chicago", "Chicago", "Q3"),
    ("2-0", "A road to Amman in Jordan", "Amman", "Q5"),
    ("2-1", "A road to Amman in Jordan", "Jordan", "Q2"),
    ("3-0", "Smith met nobody", "Smith", None),
    ("4-0", "the capital, Amman", "Amman", "Q5"),
]


@pytest.fixture
def benchmark(tmp_path: Path, write_split: Callable[..., None]) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_split(folder / "tiny-train.jsonl", TRAIN)
    write_split(folder / "tiny-val.jsonl", VAL)
    return folder


@pytest.fixture(scope="session")
def words() -> HashedWords:
    return HashedWords()


@pytest.fixture(scope="session")
def tiny_folder(tables: Callable[..., Any], words: HashedWords, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The KB's folder, its texts indexed; nothing is fused yet."""
    folder = tmp_path_factory.mktemp("evaluation")
    tables(folder / "tables", ENTITIES, FACTS)
    problems = Problems()
    paths = {"entities": folder / "tables" / "entities.jsonl", "triples": folder / "tables" / "triples.tsv"}
    build_kb(folder / "kb", TablesSource(**paths, problems=problems), problems)
    with KnowledgeBase(folder / "kb") as kb:
        index_kb(kb, words)
    return folder / "kb"


@pytest.fixture
def tiny(tiny_folder: Path) -> Iterator[KnowledgeBase]:
    with KnowledgeBase(tiny_folder) as kb:
        yield kb


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`network(gate=False, space=..., without=["triples"])` -> the folder of a network nobody has trained."""

    def make(*, space: Space = HashedWords.space, without: Sequence[str] = (), **given: Any) -> Path:
        import torch

        from localmel.matchers.kgmel.network import FusionNetwork

        settings = FusionSettings(**{"text_width": WIDTH, "triple_width": WIDTH, "width": 8, **given})
        torch.manual_seed(0)
        state = FusionNetwork(settings).state_dict()
        folder = tmp_path_factory.mktemp("network") / "network"
        weights = {name: value.numpy() for name, value in state.items()}
        save_network(folder, weights, settings, space, {"without": sorted(without)})
        return folder

    return make


@pytest.fixture(scope="module")
def world(
    tables: Callable[..., Any],
    words: HashedWords,
    network: Callable[..., Path],
    write_split: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """What a grid of scripted models needs."""
    with made(tmp_path_factory.mktemp("grid"), tables, words, network, write_split) as one:
        yield one


@pytest.fixture
def finished(
    benchmark: Path, tiny: KnowledgeBase, words: HashedWords, network: Callable[..., Path], tmp_path: Path
) -> Any:
    """`finished("name", systems=("names",))` -> the folder of a finished evaluation; zero-shot if not said."""
    from localmel.runs.evaluate_systems import Plan, evaluate_systems

    def make(name: str, **given: Any) -> Path:
        out = tmp_path / "runs" / name
        plan = Plan(**{"data": benchmark, "systems": ("zero-shot",), "network": network(), **given})
        evaluate_systems(plan, tiny, Encoders(text=words, image=None), out=out, command=f"localmel eval {name}")
        return out

    return make


@pytest.fixture
def reseal() -> Any:
    """`reseal(run, line_by_line, manifest=change)` writes a run again with other lines and another manifest, sealed."""
    from localmel.runs.evaluate import KIND
    from localmel.runs.folder import VERSION
    from localmel.store.artifacts import new_folder

    def seal(
        run: Path,
        change: Callable[[int, dict[str, Any]], dict[str, Any]],
        *,
        manifest: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> Path:
        stage = run / "evaluate"
        facts = json.loads((stage / "manifest.json").read_text())
        manifest(facts)
        rows = [json.loads(line) for line in (stage / "rankings.jsonl").read_text().splitlines()]
        changed = [change(number, row) for number, row in enumerate(rows)]
        files = {name: (stage / name).read_text() for name in ("report.json", "report.md")}
        kept = {name: value for name, value in facts.items() if name not in ("kind", "version", "files")}
        with new_folder(stage, kind=KIND, version=VERSION, facts=kept) as folder:
            for name, text in files.items():
                (folder / name).write_text(text)
            lines = ({key: value for key, value in row.items() if value is not ...} for row in changed)
            (folder / "rankings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run

    return seal
