"""A run that somebody made with `generate`, `retrieve` and `rerank`, evaluated: what `localmel eval --run` does.

In: the folder of the run, the data it was asked, its KB.  Out: `evaluate/` in it, which `localmel compare` reads.  What
was asked, and with which settings, is read from the run, never from the command.  Refuses other data, several splits
at once, and mentions of one file, which have no train to hold them against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from localmel.benchmarks import read_benchmark
from localmel.errors import BadInput, UsageError
from localmel.kb.store import KnowledgeBase
from localmel.runs.evaluate_folder import Report
from localmel.runs.folder import finished_stage, journal_of, typed
from localmel.runs.generate import GENERATE
from localmel.runs.model_runs import ModelRun, check_kb, evaluate_model_run
from localmel.runs.questions import GoldOutside, check_gold_outside, questions_of
from localmel.runs.rerank import RERANK
from localmel.runs.retrieve import RETRIEVE

_PROFILE = "as the run"
"What stands for the name of a profile: a run keeps what a profile said, not what it was called."


def evaluate_run(
    folder: Path,
    data: Path,
    kb: KnowledgeBase,
    *,
    k: int = 16,
    drop_leaked: bool = False,
    gold_outside: GoldOutside = "refuse",
    command: str = "",
) -> Report:
    """Evaluate a run, or take what it holds.  k: candidates that count, where no model has chosen among others.

    A run without `rerank` answers by its retrieval.  Raises BadInput or UsageError with the next command, and
    CorruptArtifact for a damaged run."""
    stages = {name: _made_from(folder, name) for name in (GENERATE, RETRIEVE, RERANK) if (folder / name).is_dir()}
    if RETRIEVE not in stages:
        hint = f"localmel retrieve DATA --kb KB --run {typed(folder)}"
        raise BadInput(f"{folder} has no candidates to evaluate", hint=hint)
    check_gold_outside(gold_outside)
    for stage in (GENERATE, RERANK):
        if stage not in stages and journal_of(folder, stage).is_file():
            raise BadInput(
                f"{folder} has answers of {stage}, which is not finished: it would be counted without them",
                hint=f"localmel {stage} DATA --run {typed(folder)}",
            )
    check_kb(folder, stages[RETRIEVE], kb)
    asked = stages[RETRIEVE]["settings"]["asked"]
    if not data.is_dir():
        raise UsageError(f"{data} is no benchmark folder: an evaluation wants to know what train has seen")
    if len(splits := asked["splits"] or ["val"]) > 1:
        fact = f"{folder} was asked {' and '.join(splits)}; an evaluation is of one split"
        raise BadInput(fact, hint=f"localmel retrieve DATA --split {splits[-1]} --run RUN   # a run for each")
    if drop_leaked and asked["limit"]:
        raise UsageError(
            f"{folder} was asked the first {asked['limit']:,} mentions; which of all are leaked is not known of them",
            hint="leave --drop-leaked out",
        )
    benchmark = read_benchmark(data, asked["dataset"])
    questions = questions_of(benchmark, splits[0], kb, drop=drop_leaked, outside=gold_outside, limit=asked["limit"])
    mentions = benchmark.splits[splits[0]].mentions
    rerank = stages.get(RERANK, {}).get("settings", {})
    run = ModelRun(
        folder=folder,
        questions=replace(questions, notes=(f"Run {folder.name}.", *questions.notes)),
        k=rerank.get("most_candidates", k),
        profile={"name": _PROFILE, **{name: _settings(name, stages) for name in (GENERATE, RETRIEVE, RERANK)}},
        limit=asked["limit"],
        drop_leaked=drop_leaked,
        gold_outside=gold_outside,
        nil_from=rerank.get("nil_from", 0.5),
        mentions=mentions[: asked["limit"]] if asked["limit"] else mentions,
    )
    places = {"data": str(data.resolve()), "kb": str(kb.folder.resolve())}
    return evaluate_model_run(run, kb, places=places, command=command, chosen=RERANK in stages)


def _made_from(folder: Path, stage: str) -> Mapping[str, Any]:
    made_from: Mapping[str, Any] = finished_stage(folder, stage).manifest["made_from"]
    return made_from


def _settings(name: str, stages: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of one stage; what retrieval knows of generation where no model was asked."""
    retrieve = stages[RETRIEVE]["settings"]
    found: Mapping[str, Any] = retrieve.get(name, {})
    if name in stages and name != RETRIEVE:
        found = stages[name]["settings"]
    return found
