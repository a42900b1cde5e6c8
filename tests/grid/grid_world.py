"""The families of `reranked_world` as ground for grids: a KB, a benchmark, a profile, and scripts that play models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.encode.kb_vectors import index_kb, load_vectors
from localmel.encode.space import TextEncoder
from localmel.grid.plan import Grid, GridPlan, planned
from localmel.grid.run import GridMade, run_grid
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.kgmel.fused import fuse_kb
from localmel.retrieve.profile_models import ProfileModels
from localmel.store.progress import Listener, listening
from tests.runs.reranked_world import entities_and_facts, models_of, write_benchmark

N = 24
CLOSED = "server,url=http://127.0.0.1:9/v1"


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Everything that a grid needs, in one folder."""

    folder: Path
    kb: KnowledgeBase
    encoder: TextEncoder
    profile: Path
    data: Path

    def script(self, name: str, *lines: dict[str, Any]) -> str:
        """Write a script; its path stands for a model."""
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return str(path)

    def grid(self, vlms: tuple[str, ...], llms: tuple[str, ...], **given: Any) -> Grid:
        given = {"engine": "scripted", "profile": str(self.profile), "data": self.data, "limit": N, **given}
        return planned(GridPlan(vlms=vlms, llms=llms, kb=str(self.kb.folder), **given))

    @property
    def models(self) -> ProfileModels:
        grid = self.grid(("none",), ("none", "a"))
        return models_of(self.encoder, grid.base)

    def run(self, grid: Grid, out: Path, *, notes: list[str] | None = None) -> GridMade:
        with listening(Listener(on_note=(notes if notes is not None else []).append)):
            return run_grid(grid, self.kb, out, models=self.models, encoder=self.encoder, command="localmel compare")


@contextmanager
def made(
    folder: Path,
    tables: Callable[..., Any],
    encoder: Any,
    network: Callable[..., Path],
    write_split: Callable[..., None],
) -> Iterator[World]:
    """Build it all."""
    tables(folder / "tables", *entities_and_facts())
    problems = Problems()
    paths = {"entities": folder / "tables" / "entities.jsonl", "triples": folder / "tables" / "triples.tsv"}
    build_kb(folder / "kb", TablesSource(**paths, problems=problems), problems)
    data, trained = write_benchmark(folder / "data", write_split), network()
    profile = folder / "orlo.toml"
    profile.write_text(
        f'name = "orlo"\n[retrieve]\nby_name = 12\nby_vector = 4\nnetwork = "{trained}"\n'
        "[rerank]\nmost_candidates = 6\n[generate]\nread_writing = false\n",
        encoding="utf-8",
    )
    with KnowledgeBase(folder / "kb") as kb:
        index_kb(kb, encoder)
        fuse_kb(kb, *load_vectors(kb, encoder.space), load_network(trained))
        yield World(folder=folder, kb=kb, encoder=encoder, profile=profile, data=data)
