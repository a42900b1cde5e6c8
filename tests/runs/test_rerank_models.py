"""A real model of random weights chooses: what it says means nothing, but it is closed, and the same twice."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localmel.encode.kb_vectors import index_kb, load_vectors
from localmel.engines.open import open_engine
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.kgmel.fused import fuse_kb
from localmel.rerank.choice import BY_MODEL
from localmel.runs.questions import mentions_from
from localmel.runs.rerank import CHOICES, LINKS, RERANK, rerank_stage
from localmel.runs.rerank_report import read_reranked, summary_of
from localmel.runs.retrieve import RETRIEVE, Asked, retrieve_stage
from localmel.settings import EngineSettings, Profile, RerankSettings, RetrieveSettings
from tests.runs.reranked_world import entities_and_facts, lines_of, models_of, write_benchmark

MODEL = EngineSettings(
    engine="transformers", weights="tiny-llama", device="cpu", dtype="float32", context=8192, at_once=8
)
SETTINGS = RerankSettings(backend="llm", model=MODEL, most_candidates=6, orders=2, evidence_first=True)
N = 4


@pytest.fixture(scope="module")
def world(
    tables: Callable[..., Any],
    words: Any,
    network: Callable[..., Path],
    write_split: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[KnowledgeBase, Path]]:
    """The KB and a run of four mentions up to retrieval."""
    folder = tmp_path_factory.mktemp("orlo-model")
    tables(folder / "tables", *entities_and_facts())
    problems = Problems()
    paths = {"entities": folder / "tables" / "entities.jsonl", "triples": folder / "tables" / "triples.tsv"}
    build_kb(folder / "kb", TablesSource(**paths, problems=problems), problems)
    data, made = write_benchmark(folder / "data", write_split, n=N), network()
    profile = Profile(name="orlo", retrieve=RetrieveSettings(by_name=12, by_vector=4, network=str(made)))
    with KnowledgeBase(folder / "kb") as kb:
        index_kb(kb, words)
        fuse_kb(kb, *load_vectors(kb, words.space), load_network(made))
        retrieve_stage(mentions_from(data), Asked(), kb, profile, folder / "run", models=models_of(words, profile))
        yield kb, folder / "run"


def reranked(
    world: tuple[KnowledgeBase, Path], words: Any, at: Path, folder: Path, settings: RerankSettings
) -> dict[str, bytes]:
    kb, run = world
    if not at.exists():
        at.mkdir()
        shutil.copytree(run / RETRIEVE, at / RETRIEVE)
    with open_engine(settings.model, folder) as engine:
        stage = rerank_stage(at, kb, words, engine, settings)
    assert stage.made
    return {name: (stage.folder / name).read_bytes() for name in (LINKS, CHOICES)}


def check(at: Path, settings: RerankSettings) -> None:
    """Every answer parses, every choice is one of the candidates, and probabilities are some."""
    found = read_reranked(at)
    summary = summary_of(found)
    assert [summary[name] for name in ("mentions", "asked", "failed_open", "problems")] == [N, N, 0, 0]
    assert summary["requests"] == N * settings.orders * 2
    assert summary["prompt_tokens"] > summary["requests"] * 100
    for one in found.reranked:
        assert one.choice.decided_by == BY_MODEL
        shown = min(settings.most_candidates, len(one.retrieved.ranking.candidates))
        assert len(one.choice.logs) == shown + 1
        assert one.choice.option is None or 0 <= one.choice.option < shown
        for vote in one.choice.votes:
            assert sum(map(math.exp, vote.logs)) == pytest.approx(1.0, abs=1e-4)
            assert sorted(vote.order) == list(range(shown))
    for line in lines_of(at / RERANK / LINKS):
        assert line["entity"] in {None, *(one["id"] for one in line["candidates"])}


def test_a_tiny_llama_chooses_among_the_candidates_and_says_the_same_twice(
    world: tuple[KnowledgeBase, Path], words: Any, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tiny_models("tiny-llama")
    first = reranked(world, words, tmp_path / "first", folder, SETTINGS)
    check(tmp_path / "first", SETTINGS)
    shutil.rmtree(tmp_path / "first" / RERANK)
    assert reranked(world, words, tmp_path / "first", folder, SETTINGS) == first
    assert read_reranked(tmp_path / "first").figures["answers_now"] == 0


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.slow(reason="starts vLLM twice")
def test_a_tiny_llama_on_vllm_does_as_well(
    world: tuple[KnowledgeBase, Path], words: Any, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, model=replace(MODEL, engine="vllm", at_once=4))
    folder = tiny_models("tiny-llama")
    first = reranked(world, words, tmp_path / "first", folder, settings)
    check(tmp_path / "first", settings)
    assert reranked(world, words, tmp_path / "second", folder, settings)[LINKS] == first[LINKS]
