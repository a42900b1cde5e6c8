"""Report what reranking was worth: metrics before and after, calibration, costs, and a preference for places.

In: a run whose `rerank` stage is finished, and the benchmark that has the golds.  Out: a summary as JSON, the curve of
routing, and a calibration fitted on the run.  Counts as `localmel eval` does.  Asks no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localmel.benchmarks import read_benchmark
from localmel.benchmarks.json_lines import read_split
from localmel.errors import BadInput, shell_line
from localmel.evaluate.metrics import expected_calibration_error
from localmel.evaluate.position_bias import place_preference
from localmel.evaluate.protocol import Evaluation, EvaluationSettings, Facts, Outcome, evaluate
from localmel.evaluate.resamples import Estimate
from localmel.evaluate.significance import Comparison, compare
from localmel.records import EntityId, MentionId
from localmel.rerank.calibration import (
    ASKED,
    ChoiceCalibration,
    Judged,
    answers_of,
    calibrations_without,
    fit_calibration,
)
from localmel.rerank.choice import BY_MODEL
from localmel.rerank.routing import Routed, RoutePoint, routing_curve
from localmel.runs.evaluate import outcome_for
from localmel.runs.evaluate_run import run_answer
from localmel.runs.folder import finished_stage
from localmel.runs.questions import Question, clusters_of, pictures_of
from localmel.runs.rerank import CHOICES, RERANK, Reranked, read_choices
from localmel.runs.retrieve import RETRIEVE

_METRICS = ("hits@1", "hits@3", "hits@5", "hits@10", "mrr", "accuracy", "nil_precision", "nil_recall", "nil_f1", "ece")
Gold = Mapping[MentionId, Question]
"The right answer of every mention, with the cluster it is resampled in."
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankedRun:
    """A run, read once."""

    run: Path
    reranked: tuple[Reranked, ...]
    figures: Mapping[str, Any]
    made_from: Mapping[str, Any]
    asked: Mapping[str, Any]
    "The splits, dataset and limit that `retrieve` was given."

    @property
    def k(self) -> int:
        """The number of candidates the model chose among."""
        return int(self.made_from["settings"]["most_candidates"])


def read_reranked(run: Path) -> RerankedRun:
    """Read a run.  Raises BadInput if a stage is missing or was made from something else since."""
    rerank, retrieve = finished_stage(run, RERANK).manifest, finished_stage(run, RETRIEVE).manifest
    return RerankedRun(
        run=run,
        reranked=tuple(read_choices(run)),
        figures=rerank["figures"] | {"seconds": rerank["seconds"]},
        made_from=rerank["made_from"],
        asked=retrieve["made_from"]["settings"]["asked"],
    )


def gold_of(data: Path, found: RerankedRun) -> Gold:
    """Read the right answer to each mention of the run from the file or folder that it was made from."""
    asked = found.asked
    if data.is_file():
        splits = [read_split(data)]
    else:
        benchmark = read_benchmark(data, asked["dataset"])
        splits = [benchmark.splits[name] for name in asked["splits"] or ("val",) if name in benchmark.splits]
    mentions = {one.id: one for split in splits for one in split.mentions}
    gold = {key: right for split in splits for key, right in split.gold.items()}
    ids = [one.retrieved.mention.id for one in found.reranked]
    if missing := [one for one in ids if one not in gold]:
        raise BadInput(
            f"{data} does not say what is right for {len(missing):,} of the {len(ids):,} mentions of {found.run}, for "
            f"example {missing[0]!r}",
            hint=shell_line("localmel data check", data),
        )
    run_mentions = [mentions[one] for one in ids]
    clusters, _ = clusters_of(run_mentions, pictures_of(run_mentions))
    return {
        one.id: Question(mention=one, cluster=cluster, gold=gold[one.id], gold_row=None, facts=Facts())
        for one, cluster in zip(run_mentions, clusters, strict=True)
    }


def split_of(data: Path, found: RerankedRun) -> str:
    """Return the split that the run is about; a file has it in its name (NAME-val.jsonl), several are joined by +."""
    if data.is_file():
        return data.stem.rpartition("-")[2]
    return "+".join(found.asked["splits"] or ("val",))


# --- before and after ---------------------------------------------------------------------------------------------


def summary_of(found: RerankedRun, gold: Gold | None = None) -> Json:
    """Summarise what a run cost and how the model chose; with gold also its metrics before and after."""
    bias = place_preference([one.choice.votes for one in found.reranked])
    summary: Json = {
        "run": str(found.run),
        "model": found.made_from["inputs"]["model"]["name"],
        "k": found.k,
        "orders": found.made_from["settings"]["orders"],
        "calibrated": found.made_from["inputs"]["calibration"] is not None,
        **found.figures,
        "position_bias": None if bias is None else _rounded(asdict(bias)),
    }
    if gold is None:
        return summary
    settings = EvaluationSettings(k=found.k)
    before, after = outcomes_of(found, gold, model=False), outcomes_of(found, gold, model=True)
    in_kb = any(one.gold is not None for one in gold.values())
    compared = compare(after, before, settings, names=("reranked", "retrieval")) if in_kb else None
    evaluated = evaluate(before, settings)
    return summary | {
        "recall": _estimate(evaluated.overall.metrics.get(f"recall@{found.k}")),
        "before": _metrics(evaluated),
        "after": _metrics(evaluate(after, settings)),
        "difference": compared and _difference(compared),
    }


def _difference(one: Comparison) -> Json:
    return {
        "hits@1": _estimate(one.hits_at_1),
        "mrr": _estimate(one.mrr),
        "mended": one.only_first,
        "spoiled": one.only_second,
        "mcnemar_p": float(f"{one.p:.6g}"),
    }


def outcomes_of(found: RerankedRun, gold: Gold, *, model: bool) -> list[Outcome]:
    """Return the outcome for each mention, of the model's answer or of the scorer's."""
    nil_from = float(found.made_from["settings"]["nil_from"])
    outcomes = []
    for one in found.reranked:
        question = gold[one.retrieved.mention.id]
        choice = one.choice if model else None
        outcomes.append(
            outcome_for(question, run_answer(question, one.retrieved, choice, k=found.k, nil_from=nil_from))
        )
    return outcomes


def _metrics(evaluation: Evaluation) -> Json:
    return {name: _estimate(evaluation.overall.metrics.get(name)) for name in _METRICS}


def _estimate(one: Estimate | None) -> Json | None:
    return None if one is None else _rounded({"value": one.value, "low": one.low, "high": one.high, "n": one.n})


def _rounded(value: Any) -> Any:
    """Round all numbers inside to six places."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


# --- routing ------------------------------------------------------------------------------------------------------


def route_curve(found: RerankedRun, gold: Gold) -> list[Json]:
    """Return accuracy and cost for every threshold.  Raises BadInput if the run did not ask about every mention."""
    route_from = found.made_from["settings"]["route_from"]
    if route_from:
        raise BadInput(
            f"{found.run} asked the model only below {route_from}, so its other answers are unknown",
            hint=f"localmel rerank --run ANOTHER --kb KB --route-from 0   # and in {found.run.name} as now",
        )
    before, after = outcomes_of(found, gold, model=False), outcomes_of(found, gold, model=True)
    routed = [
        Routed(
            sure=first.probability,
            scorer_hit=None if first.gold is None else first.rank <= 1.0,
            model_hit=None if second.gold is None else second.rank <= 1.0,
            scorer_right=first.predicted == first.gold,
            model_right=second.predicted == second.gold,
            tokens=one.choice.prompt_tokens + one.choice.output_tokens,
        )
        for one, first, second in zip(found.reranked, before, after, strict=True)
    ]
    return [_point(point) for point in routing_curve(routed)]


def _point(point: RoutePoint) -> Json:
    row: Json = _rounded(asdict(point))
    return row | {"route_from": point.route_from}


# --- calibration --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCalibration:
    """A calibration, and its effect on the choices it was fitted on."""

    calibration: ChoiceCalibration
    figures: Json


def fitted_on(found: RerankedRun, gold: Gold, split: str, *, isotonic: bool = False) -> FittedCalibration:
    """Fit temperature, NIL threshold and curve on the choices of the model.

    `figures` has calibration error and accuracy before, after, and held out: with calibrations that were fitted without
    the cluster (shared sentences and pictures) they are measured on.  Raises BadInput for a split other than val."""
    made_from = found.made_from
    kept = [one for one in found.reranked if one.choice.decided_by == BY_MODEL]
    judged = [_judged(one, gold[one.retrieved.mention.id].gold) for one in kept]
    facts = {
        "split": split,
        "mentions": len(judged),
        "rankings": made_from["inputs"]["rankings"],
        "choices": finished_stage(found.run, RERANK).manifest["files"][CHOICES]["sha256"],
        "kb_fingerprint": made_from["inputs"]["kb_fingerprint"],
        "model": made_from["inputs"]["model"],
        "asked": {name: made_from["settings"][name] for name in ASKED},
    }
    calibration = fit_calibration(judged, isotonic=isotonic, fitted_on=facts)
    plain = ChoiceCalibration(nil_from=float(made_from["settings"]["nil_from"]))
    clusters = [gold[one.retrieved.mention.id].cluster for one in kept]
    figures = {
        "mentions": len(judged),
        "temperature": calibration.temperature,
        "nil_from": round(calibration.nil_from, 6),
        "isotonic": isotonic,
        "before": _quality([plain] * len(judged), judged),
        "after": _quality([calibration] * len(judged), judged),
        "after_held_out": _quality(calibrations_without(judged, clusters, isotonic=isotonic), judged),
    }
    return FittedCalibration(calibration=calibration, figures=figures)


def _judged(one: Reranked, gold: EntityId | None) -> Judged:
    n = len(one.choice.logs) - 1
    shown = [candidate.entity_id for candidate in one.retrieved.ranking.candidates[:n]]
    right = shown.index(gold) if gold is not None and gold in shown else n
    return Judged(logs=one.choice.logs, right=right, is_nil=gold is None)


def _quality(calibrations: Sequence[ChoiceCalibration], judged: Sequence[Judged]) -> Json:
    pairs = [answers_of([one], calibration) for one, calibration in zip(judged, calibrations, strict=True)]
    sure, right = np.array([one[0] for one, _ in pairs]), np.array([one[0] for _, one in pairs])
    return {
        "ece": round(expected_calibration_error(sure, right), 6),
        "mean_probability": round(float(sure.mean()), 6),
        "accuracy": round(float(right.mean()), 6),
    }
