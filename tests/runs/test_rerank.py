"""From retrieval to links on disk: with models whose behaviour is known, so that every number can be foreseen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localmel.encode.kb_vectors import index_kb, load_vectors
from localmel.errors import BadInput, CorruptArtifact, EngineStopped
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.kgmel.fused import fuse_kb
from localmel.rerank.calibration import ChoiceCalibration, load_calibration
from localmel.rerank.choice import BY_MODEL, BY_SCORER_FAILED
from localmel.runs.folder import Stage, journal_of
from localmel.runs.generate import generate_stage
from localmel.runs.questions import mentions_from
from localmel.runs.rerank import CHOICES, LINKS, RERANK, read_choices, rerank_stage
from localmel.runs.rerank_report import fitted_on, gold_of, read_reranked, route_curve, split_of, summary_of
from localmel.runs.retrieve import RANKINGS, RETRIEVE, Asked, read_rankings, retrieve_stage
from localmel.settings import EngineSettings, GenerateSettings, Profile, RerankSettings, RetrieveSettings
from tests.rerank.known_models import KnownModel, likes_places, right_with
from tests.runs.reranked_world import (
    entities_and_facts,
    lines_of,
    mentions,
    models_of,
    right_lines,
    write_benchmark,
)
from tests.runs.test_generate import Counting

SETTINGS = RerankSettings(backend="llm", model=EngineSettings(engine="scripted", weights="known"), most_candidates=8)
Rerank = Callable[..., Stage]


@pytest.fixture(scope="module")
def orlo(
    tables: Callable[..., Any], words: Any, network: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[KnowledgeBase, Profile]]:
    """The KB, indexed and fused, and the profile over it."""
    from localmel.kb.importers import Problems, TablesSource
    from localmel.kb.write import build_kb

    folder = tmp_path_factory.mktemp("orlo")
    tables(folder / "tables", *entities_and_facts())
    problems = Problems()
    paths = {"entities": folder / "tables" / "entities.jsonl", "triples": folder / "tables" / "triples.tsv"}
    build_kb(folder / "kb", TablesSource(**paths, problems=problems), problems)
    made = network()
    profile = Profile(name="orlo", retrieve=RetrieveSettings(by_name=12, by_vector=4, network=str(made)))
    with KnowledgeBase(folder / "kb") as kb:
        index_kb(kb, words)
        fuse_kb(kb, *load_vectors(kb, words.space), load_network(made))
        yield kb, profile


@pytest.fixture(scope="module")
def data(write_split: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("orlo-data") / "data", write_split)


@pytest.fixture(scope="module")
def retrieved(
    orlo: tuple[KnowledgeBase, Profile], data: Path, words: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run up to retrieval.  Copy it before you go on."""
    run = tmp_path_factory.mktemp("orlo-run") / "run"
    kb, profile = orlo
    retrieve_stage(mentions_from(data), Asked(), kb, profile, run, models=models_of(words, profile))
    return run


@pytest.fixture
def run(retrieved: Path, tmp_path: Path) -> Path:
    shutil.copytree(retrieved, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def rerank(run: Path, orlo: tuple[KnowledgeBase, Profile], words: Any) -> Rerank:
    """`rerank(model, orders=3)` -> the stage."""

    def stage(
        model: KnownModel, *, at: Path | None = None, calibration: ChoiceCalibration | None = None, **given: Any
    ) -> Stage:
        return rerank_stage(at or run, orlo[0], words, model, replace(SETTINGS, **given), calibration=calibration)

    return stage


def known(behaviour: Any, name: str = "known") -> KnownModel:
    return KnownModel(right_lines(mentions()), behaviour, name)


# --- retrieving --------------------------------------------------------------------------------------------------


def test_rankings_are_those_of_the_linker_and_hold_no_gold(
    retrieved: Path, orlo: tuple[KnowledgeBase, Profile], data: Path, words: Any
) -> None:
    kb, profile = orlo
    found = list(read_rankings(retrieved))
    asked = mentions_from(data)
    assert [one.mention for one in found] == list(asked)
    linker = Linker(kb, profile, top_k=16, models=models_of(words, profile))
    link = linker.link(None, asked[1].context, [asked[1].surface]).mentions[0].link
    assert [one.entity_id for one in found[1].ranking.candidates] == [one.entity_id for one in link.ranking.candidates]
    scores = [one.score for one in found[1].ranking.candidates]
    assert scores == pytest.approx([one.score for one in link.ranking.candidates], abs=1e-6)
    assert found[1].nil == pytest.approx(1 - sum(scores))
    lines = lines_of(retrieved / RETRIEVE / RANKINGS)
    assert not {"gold", "answer"} & set(lines[0])
    assert set(lines[0]["candidates"][0]) == {"id", "score"}


def test_retrieving_again_makes_nothing_and_another_kb_state_is_refused(
    run: Path, orlo: tuple[KnowledgeBase, Profile], data: Path, words: Any
) -> None:
    kb, profile = orlo
    before = (run / RETRIEVE / RANKINGS).read_bytes()
    assert not retrieve_stage(mentions_from(data), Asked(), kb, profile, run, models=models_of(words, profile)).made
    shutil.rmtree(run / RETRIEVE)
    assert retrieve_stage(mentions_from(data), Asked(), kb, profile, run, models=models_of(words, profile)).made
    assert (run / RETRIEVE / RANKINGS).read_bytes() == before
    fewer = replace(profile, retrieve=replace(profile.retrieve, by_name=3))
    with pytest.raises(BadInput, match=r"differs in settings\.retrieve\.by_name"):
        retrieve_stage(mentions_from(data), Asked(), kb, fewer, run, models=models_of(words, profile))


def test_what_a_model_said_of_mentions_is_retrieved_with(
    orlo: tuple[KnowledgeBase, Profile], data: Path, words: Any, tmp_path: Path
) -> None:
    kb, profile = orlo
    asked = mentions_from(data, most=6)
    generating = GenerateSettings(backend="vlm", model=EngineSettings(engine="scripted"))
    profile = replace(profile, generate=generating)
    with pytest.raises(BadInput, match="has no stage 'generate'") as refused:
        retrieve_stage(asked, Asked(), kb, profile, tmp_path / "run", models=models_of(words, profile))
    assert f"localmel generate DATA --run {tmp_path / 'run'}" in str(refused.value.hint)
    generate_stage(asked, generating, Counting(), tmp_path / "run")
    retrieve_stage(asked, Asked(limit=6), kb, profile, tmp_path / "run", models=models_of(words, profile))
    said = {line["mention_id"]: line for line in lines_of(tmp_path / "run" / "generate" / "descriptions.jsonl")}
    for line in lines_of(tmp_path / "run" / RETRIEVE / RANKINGS):
        assert line["summary"] == said[line["mention_id"]]["summary"]
        assert [triple[:2] for triple in said[line["mention_id"]]["triples"]] == [
            triple[:2] for triple in line["triples"][: len(said[line["mention_id"]]["triples"])]
        ]


# --- reranking ---------------------------------------------------------------------------------------------------


def test_a_model_that_knows_everything_mends_everything_that_retrieval_offers(
    run: Path, rerank: Rerank, data: Path
) -> None:
    stage = rerank(known(right_with(1.0)))
    found = read_reranked(run)
    summary = summary_of(found, gold_of(data, found))
    recall = summary["recall"]["value"]
    assert summary["before"]["hits@1"]["value"] < 0.5 < recall
    assert summary["after"]["hits@1"]["value"] == recall
    assert summary["after"]["nil_recall"]["value"] == 1.0
    assert summary["difference"]["spoiled"] == 0
    assert summary["difference"]["mended"] > 20
    assert summary["difference"]["hits@1"]["low"] > 0
    counts = {
        name: summary[name] for name in ("mentions", "asked", "skipped", "failed_open", "requests", "answers_now")
    }
    assert counts == {
        "mentions": 96, "asked": 96, "skipped": 0, "failed_open": 0, "requests": 96, "answers_now": 96,
    }  # fmt: skip
    assert summary["prompt_tokens"] > 96 * 50
    links = lines_of(stage.folder / LINKS)
    assert [link["mention_id"] for link in links] == [row[0] for row in mentions()]
    gold = {row[0]: row[3] for row in mentions()}
    assert (
        sum(link["entity"] == gold[link["mention_id"]] for link in links) / 96 == summary["after"]["accuracy"]["value"]
    )
    assert {link["decided_by"] for link in links} == {BY_MODEL}
    chosen = next(link for link in links if link["entity"])
    assert chosen["candidates"][0]["id"] == chosen["entity"]
    assert chosen["evidence"]
    assert chosen["nil_probability"] == pytest.approx(0.1 / 8, abs=1e-5)


def test_golds_that_were_not_offered_stay_misses_at_their_rank(run: Path, rerank: Rerank, data: Path) -> None:
    rerank(known(right_with(1.0)), most_candidates=2)
    found = read_reranked(run)
    summary = summary_of(found, gold_of(data, found))
    assert summary["after"]["hits@1"]["value"] == summary["recall"]["value"] < 0.6
    assert summary["after"]["accuracy"]["value"] < 1.0


def test_reranking_again_makes_nothing_and_after_a_loss_sends_nothing(run: Path, rerank: Rerank) -> None:
    stage = rerank(known(right_with(0.8)), orders=2)
    before = {path.name: path.read_bytes() for path in stage.folder.iterdir() if path.suffix == ".jsonl"}
    again = known(right_with(0.8))
    assert not rerank(again, orders=2).made
    shutil.rmtree(stage.folder)
    assert rerank(again, orders=2).made
    assert again.sent == []
    assert {path.name: path.read_bytes() for path in stage.folder.iterdir() if path.suffix == ".jsonl"} == before
    with pytest.raises(BadInput, match=r"differs in settings\.orders"):
        rerank(known(right_with(0.8)), orders=3)


def test_an_engine_that_stops_leaves_no_stage_and_the_next_run_asks_the_rest(run: Path, rerank: Rerank) -> None:
    class Stopping(KnownModel):
        def generate(self, requests: Any) -> Any:
            for number, response in enumerate(super().generate(requests)):
                if number == 40:
                    raise EngineStopped("out of memory")
                yield response

    with pytest.raises(EngineStopped):
        rerank(Stopping(right_lines(mentions()), right_with(1.0)))
    assert not (run / RERANK).exists()
    rest = known(right_with(1.0))
    rerank(rest)
    assert len(rest.sent) == 96 - 40
    assert journal_of(run, RERANK).is_file()


def test_a_model_that_only_fails_changes_nothing_and_is_counted(run: Path, rerank: Rerank, data: Path) -> None:
    class Failing(KnownModel):
        def _answer(self, request: Any) -> Any:
            response = super()._answer(request)
            return replace(response, text="", finish="failed", problem="no", choice_logprobs={})

    rerank(Failing(right_lines(mentions()), right_with(1.0)))
    found = read_reranked(run)
    summary = summary_of(found, gold_of(data, found))
    assert (summary["failed_open"], summary["problems"], summary["answers_now"]) == (96, 96, 0)
    assert summary["after"] == summary["before"]
    assert summary["position_bias"] is None
    assert {one.choice.decided_by for one in found.reranked} == {BY_SCORER_FAILED}


def test_mentions_that_had_no_answer_are_asked_about_again(
    run: Path, orlo: tuple[KnowledgeBase, Profile], words: Any
) -> None:
    class Failing(KnownModel):
        fails = True

        def _answer(self, request: Any) -> Any:
            response = super()._answer(request)
            if self.fails and "m/1" in request.id:  # m/1, m/10 to m/19
                return replace(response, text="", finish="failed", problem="busy", choice_logprobs={})
            return response

    model = Failing(right_lines(mentions()), right_with(1.0))

    def stage(*, again: bool) -> Stage:
        return rerank_stage(run, orlo[0], words, model, SETTINGS, again=again)

    assert stage(again=False).manifest["figures"]["failed_open"] == 11
    model.sent.clear()
    model.fails = False
    assert not stage(again=False).made
    mended = stage(again=True)
    assert (mended.made, mended.manifest["figures"]["failed_open"], len(model.sent)) == (True, 0, 11)
    assert not stage(again=True).made


def test_position_bias_is_found_and_averaging_orders_cures_it(
    run: Path, rerank: Rerank, data: Path, retrieved: Path, tmp_path: Path
) -> None:
    loves_a = likes_places([6.0], knows=3.0)
    summaries = []
    for orders in (1, 8):
        at = tmp_path / f"orders-{orders}"
        shutil.copytree(retrieved, at)
        rerank(known(loves_a), at=at, orders=orders, nil_from=1.0)
        found = read_reranked(at)
        summaries.append(summary_of(found, gold_of(data, found)))
    one, many = summaries
    assert one["position_bias"]["places"][0]["chosen"] == 1.0
    assert one["position_bias"]["p"] < 1e-6
    assert one["after"]["hits@1"]["value"] < 0.35
    assert many["after"]["hits@1"]["value"] == many["recall"]["value"]
    assert many["position_bias"]["agreement"] < 0.1


# --- routing and calibration -------------------------------------------------------------------------------------


def test_the_curve_of_one_run_is_what_runs_with_routing_give(
    run: Path, rerank: Rerank, data: Path, retrieved: Path, tmp_path: Path
) -> None:
    model = right_with(0.7)
    rerank(known(model))
    found = read_reranked(run)
    curve = {point["route_from"]: point for point in route_curve(found, gold_of(data, found))}
    for threshold in (0.3, 0.5):
        at = tmp_path / f"routed-{threshold}"
        shutil.copytree(retrieved, at)
        rerank(known(model), at=at, route_from=threshold)
        routed = read_reranked(at)
        summary = summary_of(routed, gold_of(data, routed))
        point = curve[threshold]
        assert (summary["asked"], summary["skipped"]) == (round(96 * point["asked"]), 96 - round(96 * point["asked"]))
        assert summary["after"]["hits@1"]["value"] == pytest.approx(point["hits_at_1"], abs=1e-6)
        assert summary["after"]["accuracy"]["value"] == pytest.approx(point["accuracy"], abs=1e-6)
        with pytest.raises(BadInput, match=f"asked the model only below {threshold}"):
            route_curve(routed, gold_of(data, routed))


def test_an_overconfident_model_is_mended_by_what_its_own_val_run_teaches(
    run: Path, rerank: Rerank, data: Path, tmp_path: Path
) -> None:
    too_sure = right_with(0.6, sure=0.995)
    rerank(known(too_sure))
    found = read_reranked(run)
    gold = gold_of(data, found)
    fitted = fitted_on(found, gold, split_of(data, found))
    figures = fitted.figures
    assert figures["before"]["ece"] > 0.3
    assert figures["after"]["ece"] < 0.06
    assert figures["after_held_out"]["ece"] < 0.12
    assert figures["before"]["accuracy"] == figures["after"]["accuracy"]
    fitted.calibration.save(tmp_path / "calibration.json")
    told = json.loads((tmp_path / "calibration.json").read_text())["fitted_on"]
    assert (told["split"], told["mentions"], told["model"]["name"]) == ("val", 96, "known")
    assert set(told) >= {"rankings", "choices", "kb_fingerprint", "asked"}
    shutil.rmtree(run / RERANK)
    again = known(too_sure)
    rerank(again, calibration=load_calibration(tmp_path / "calibration.json"))
    assert again.sent == []
    found = read_reranked(run)
    summary = summary_of(found, gold)
    assert summary["calibrated"]
    assert summary["after"]["ece"]["value"] == pytest.approx(figures["after"]["ece"], abs=1e-4)


def test_a_calibration_of_another_model_or_other_questions_is_refused(run: Path, rerank: Rerank, data: Path) -> None:
    rerank(known(right_with(0.6)))
    found = read_reranked(run)
    calibration = fitted_on(found, gold_of(data, found), "val").calibration
    shutil.rmtree(run / RERANK)
    with pytest.raises(BadInput, match="differs in orders"):
        rerank(known(right_with(0.6)), calibration=calibration, orders=2)
    stranger = replace(calibration, fitted_on={**calibration.fitted_on, "model": {"name": "other", "revision": "x"}})
    with pytest.raises(BadInput, match=r"differs in model \(other x\)"):
        rerank(known(right_with(0.6)), calibration=stranger)


def test_nothing_is_fitted_on_test(
    orlo: tuple[KnowledgeBase, Profile], data: Path, words: Any, rerank: Rerank, tmp_path: Path
) -> None:
    kb, profile = orlo
    asked = Asked(splits=("test",))
    retrieve_stage(
        mentions_from(data, asked.splits), asked, kb, profile, tmp_path / "test", models=models_of(words, profile)
    )
    rerank(known(right_with(0.9)), at=tmp_path / "test")
    found = read_reranked(tmp_path / "test")
    for where in (data, data / "orlo-test.jsonl"):
        assert split_of(where, found) == "test"
        with pytest.raises(BadInput, match="only val is allowed"):
            fitted_on(found, gold_of(where, found), split_of(where, found))
    assert split_of(data / "orlo-val.jsonl", found) == "val"


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_run_without_retrieval_or_over_another_kb_is_refused(
    tiny: KnowledgeBase, words: Any, run: Path, rerank: Rerank, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="has no finished stage 'retrieve'"):
        rerank(known(right_with(1.0)), at=tmp_path / "empty")
    with pytest.raises(BadInput, match="was made over another KB"):
        rerank_stage(run, tiny, words, known(right_with(1.0)), SETTINGS)


def test_choices_of_other_rankings_and_golds_of_other_mentions_are_refused(
    run: Path, rerank: Rerank, data: Path, tmp_path: Path
) -> None:
    stage = rerank(known(right_with(1.0)))
    found = read_reranked(run)
    other = tmp_path / "other-val.jsonl"
    other.write_text(json.dumps({"id": "m/0", "sentence": "Orlo0", "mention": "Orlo0", "answer": None}) + "\n")
    with pytest.raises(BadInput, match="does not say what is right for 95 of the 96 mentions"):
        gold_of(other, found)
    manifest = json.loads((stage.folder / "manifest.json").read_text())
    manifest["made_from"]["inputs"]["rankings"] = "0" * 64
    (stage.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="from other rankings"):
        read_choices(run)


def test_damaged_choices_are_refused_with_the_way_to_make_them_again(run: Path, rerank: Rerank) -> None:
    stage = rerank(known(right_with(1.0)))
    path = stage.folder / CHOICES
    path.write_bytes(path.read_bytes().replace(b'"option"', b'"0ption"', 1))
    with pytest.raises(CorruptArtifact) as refused:
        read_choices(run)
    assert "rm -r" in refused.value.hint
