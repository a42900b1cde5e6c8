"""Reranking on captions that nobody made up, over a KB of 146,175 entities, with models whose behaviour is known."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localmel.encode.minilm import MiniLM
from localmel.errors import LocalmelError
from localmel.kb.locate import open_kb
from localmel.kb.store import KnowledgeBase
from localmel.rerank.closed_question import quoted
from localmel.runs.questions import mentions_from
from localmel.runs.rerank import RERANK, rerank_stage
from localmel.runs.rerank_report import RerankedRun, fitted_on, gold_of, read_reranked, route_curve, summary_of
from localmel.runs.retrieve import Asked, retrieve_stage
from localmel.settings import EngineSettings, RerankSettings, load_profile
from tests.rerank.known_models import Behaviour, KnownModel, likes_places, right_with

SHARED = Path(os.environ.get("LOCALMEL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
DATA, KB, DATASET, LIMIT = SHARED / "data" / "mel", "mel-benchmark", "wikidiverse", 300
SETTINGS = RerankSettings(backend="llm", model=EngineSettings(engine="scripted", weights="known"))
Found = tuple[RerankedRun, dict[str, Any]]

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no captions at {DATA}; set LOCALMEL_SHARED"),
    pytest.mark.slow(reason="retrieves 300 mentions over a KB of 146,175 entities"),
]


@pytest.fixture(scope="module")
def kb() -> KnowledgeBase:
    try:
        return open_kb(KB)
    except LocalmelError as error:
        pytest.skip(f"{error.fact}; docs/benchmarks.md says how it is built")


@pytest.fixture(scope="module")
def run(kb: KnowledgeBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("val") / "run"
    asked = Asked(splits=("val",), dataset=DATASET, limit=LIMIT)
    mentions = mentions_from(DATA, asked.splits, DATASET, most=LIMIT)
    try:
        retrieve_stage(mentions, asked, kb, load_profile("embedded"), folder)
    except LocalmelError as error:
        pytest.skip(f"{error.fact}; {error.hint}")
    return folder


@pytest.fixture
def reranked(run: Path, kb: KnowledgeBase, tmp_path: Path) -> Callable[..., Found]:
    """`reranked(behaviour, orders=4)` -> the run and its summary."""

    def asked(behaviour: Behaviour, name: str = "known", **given: Any) -> Found:
        at = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(run, at)
        right = right_lines(kb, at)
        rerank_stage(at, kb, MiniLM(), KnownModel(right, behaviour, name), replace(SETTINGS, **given))
        found = read_reranked(at)
        return found, summary_of(found, gold_of(DATA, found))

    return asked


def right_lines(kb: KnowledgeBase, run: Path) -> dict[str, str | None]:
    """Mention -> label and description of its gold, as they stand in a prompt."""
    from localmel.benchmarks import read_benchmark

    right: dict[str, str | None] = {}
    for mention, gold in read_benchmark(DATA, DATASET).splits["val"].gold.items():
        if gold is None:
            right[mention] = None
            continue
        entity = kb.entity(gold)
        described = f" | {quoted(entity.description, 240)}" if entity.description.strip() else ""
        right[mention] = f"{quoted(entity.label, 100)}{described}"
    return right


def test_a_model_that_knows_reaches_what_retrieval_offers(reranked: Callable[..., Found]) -> None:
    """But for golds whose label and description another candidate bears as well."""
    _, summary = reranked(right_with(1.0))
    recall = summary["recall"]["value"]
    assert summary["before"]["hits@1"]["value"] < recall - 0.03
    assert recall - 0.015 <= summary["after"]["hits@1"]["value"] <= recall
    assert (summary["asked"], summary["failed_open"], summary["problems"]) == (LIMIT, 0, 0)
    assert summary["position_bias"]["p"] > 0.001
    assert summary["prompt_tokens_per_asked"] < 700


def test_an_overconfident_model_is_mended_and_routing_it_pays(reranked: Callable[..., Found]) -> None:
    found, summary = reranked(right_with(0.8, sure=0.999))
    assert summary["after"]["ece"]["value"] > 0.15
    gold = gold_of(DATA, found)
    figures = fitted_on(found, gold, "val").figures
    assert figures["before"]["ece"] > 0.15
    assert figures["after_held_out"]["ece"] < 0.08
    curve = route_curve(found, gold)
    assert max(point["accuracy"] for point in curve) > curve[0]["accuracy"] + 0.03


def test_a_model_that_loves_a_place_is_found_out_and_cured_by_four_orders(reranked: Callable[..., Found]) -> None:
    loves_a = likes_places([6.0], knows=3.0)
    _, one = reranked(loves_a, nil_from=1.0)
    assert one["position_bias"]["places"][0]["chosen"] == 1.0
    assert one["after"]["hits@1"]["value"] < 0.2
    _, many = reranked(loves_a, orders=4, nil_from=1.0)
    assert many["after"]["hits@1"]["value"] > many["recall"]["value"] - 0.03


def test_a_run_that_lost_its_folder_is_made_again_without_asking(run: Path, kb: KnowledgeBase, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    contents = []
    for _ in range(2):
        model = KnownModel(right_lines(kb, run), right_with(0.8))
        stage = rerank_stage(tmp_path / "run", kb, MiniLM(), model, SETTINGS)
        contents.append((len(model.sent), (stage.folder / "links.jsonl").read_bytes()))
        shutil.rmtree(tmp_path / "run" / RERANK)
    (first, links), (second, again) = contents
    assert (first, second) == (LIMIT, 0)
    assert links == again
