"""A run of models (generate -> retrieve -> rerank), evaluated by the strict protocol as `localmel eval` evaluates.

In: the folder of a run, the questions it was asked, their KB.  Out: `evaluate/` in it, in the form that comparisons and
the list of runs read, with what the models cost and said.  A run without `rerank` answers by its retrieval.  Asks no
model; refuses a run that was asked other mentions, or over another KB."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, shell_line
from localmel.evaluate.protocol import EvaluationSettings, evaluate, rank_in
from localmel.kb.store import KnowledgeBase
from localmel.records import Mention
from localmel.report.evaluation import as_json, as_markdown
from localmel.rerank.choice import BY_SCORER_FAILED, Choice, in_front, scorer_answer
from localmel.rerank.questions import Retrieved
from localmel.runs.evaluate_folder import (
    KIND,
    STAGE,
    VERSION,
    Report,
    outcome_for,
    ranking_line,
    stored_evaluation,
    versions,
    write_evaluation,
)
from localmel.runs.folder import Stage, finished_stage
from localmel.runs.generate import GENERATE, Said, mentions_sha256, read_said
from localmel.runs.model_costs import resources_of
from localmel.runs.questions import GoldOutside, Question, Questions
from localmel.runs.rerank import RERANK, read_choices
from localmel.runs.retrieve import RETRIEVE, read_rankings
from localmel.runs.systems import Answer
from localmel.store.artifacts import new_folder

MODELS = "models"
"What the one system of such a run is called."
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """One run, and how it was asked."""

    folder: Path
    questions: Questions
    k: int
    "How many candidates the model chose among."
    profile: Mapping[str, Any]
    "What the run was made with, as kept: every setting, no place on this machine."
    limit: int = 0
    drop_leaked: bool = False
    gold_outside: GoldOutside = "refuse"
    nil_from: float = 0.5
    "Where NIL is answered without a language model."
    mentions: tuple[Mention, ...] = ()
    "All that the run was asked, where only some are evaluated; none: those of the questions."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stages:
    """What of the run is there."""

    generate: Stage | None
    retrieve: Stage
    rerank: Stage | None

    def named(self) -> dict[str, Stage]:
        stages = {GENERATE: self.generate, RETRIEVE: self.retrieve, RERANK: self.rerank}
        return {name: stage for name, stage in stages.items() if stage}


def evaluate_model_run(
    run: ModelRun, kb: KnowledgeBase, *, places: Mapping[str, str], command: str = "", chosen: bool = True
) -> Report:
    """Evaluate a run, or take what it holds.  `places` are where data and KB stand, `chosen` whether it has `rerank`.

    Raises BadInput where a stage is missing or was made from something else, CorruptArtifact for a damaged one."""
    kb.hold()
    stages = _stages(run, kb, chosen=chosen)
    inputs = _inputs(run, kb, stages)
    if stored := stored_evaluation(run.folder / STAGE, inputs, movable=False):
        return stored
    asked = run.questions.asked
    answered = {one.mention.id: (one, choice) for one, choice in _answered(run, chosen=chosen)}
    rows = [answered[one.mention.id] for one in asked]
    said = read_said(run.folder, run.mentions or [one.mention for one in asked]) if stages.generate else {}
    pairs = [
        (question, retrieved, choice, _answer(run, question, retrieved, choice))
        for question, (retrieved, choice) in zip(asked, rows, strict=True)
    ]
    outcomes = [
        outcome_for(question, answer, has_triples=bool(retrieved.description.triples))
        for question, retrieved, _, answer in pairs
    ]
    evaluations = {MODELS: evaluate(outcomes, EvaluationSettings(k=run.k))}
    notes = [*_head(run, kb, stages), *run.questions.notes]
    title = f"{run.questions.dataset}, {run.questions.split}"
    datasets = {run.questions.dataset: as_json(evaluations, notes=notes)}
    report = Report(
        json={"format": 1, **inputs["settings"], "datasets": datasets},
        markdown=as_markdown(evaluations, notes=notes, title=title),
        made=True,
    )
    withheld = "triples" in inputs["settings"]["without"]
    lines = [
        ranking_line(run.questions.dataset, MODELS, question, answer)
        | _carried(retrieved, choice, said.get(question.mention.id), withheld=withheld)
        for question, retrieved, choice, answer in pairs
    ]
    resources = resources_of(stages.named())
    facts: Json = {
        "inputs": inputs,
        "command": command,
        "places": dict(places),
        "versions": versions(),
        "resources": {MODELS: resources},
        **({"seconds": resources["seconds"]} if "seconds" in resources else {}),
    }
    with new_folder(run.folder / STAGE, kind=KIND, version=VERSION, facts=facts) as folder:
        write_evaluation(folder, report, lines)
    return report


# --- what it is made from -------------------------------------------------------------------------------------------


def check_kb(folder: Path, made_from: Mapping[str, Any], kb: KnowledgeBase) -> None:
    """Raise BadInput where a run has retrieved from another KB, or from this one in another state."""
    before = made_from["inputs"]["kb_fingerprint"]
    if before != kb.fingerprint:
        again = shell_line(
            "rm -r", folder / RETRIEVE, note="where the KB has changed; then run localmel retrieve again"
        )
        raise BadInput(
            f"{folder} was made over another KB, or another state of it: {before[:12]}, not {kb.fingerprint[:12]} of "
            f"{kb.name!r}",
            hint=f"--kb KB as localmel retrieve was given, or {again}",
        )


def _stages(run: ModelRun, kb: KnowledgeBase, *, chosen: bool) -> _Stages:
    retrieve = finished_stage(run.folder, RETRIEVE)
    check_kb(run.folder, retrieve.manifest["made_from"], kb)
    inputs = retrieve.manifest["made_from"]["inputs"]
    again = shell_line("rm -r", retrieve.folder, note="then run localmel retrieve again")
    mentions = run.mentions or [one.mention for one in run.questions.asked]
    if inputs["mentions"] != mentions_sha256(mentions):
        what = f"{len(mentions):,} mentions of {run.questions.dataset}, {run.questions.split}"
        raise BadInput(f"{retrieve.folder} was made from others than the {what}", hint=again)
    rerank = finished_stage(run.folder, RERANK) if chosen else None
    if rerank and rerank.manifest["made_from"]["settings"]["most_candidates"] != run.k:
        shown = rerank.manifest["made_from"]["settings"]["most_candidates"]
        raise BadInput(f"the model of {run.folder} chose among {shown} candidates, not {run.k}", hint=f"K = {shown}")
    generate = finished_stage(run.folder, GENERATE) if inputs["said"] is not None else None
    return _Stages(generate=generate, retrieve=retrieve, rerank=rerank)


def _inputs(run: ModelRun, kb: KnowledgeBase, stages: _Stages) -> Json:
    """Everything that decides the numbers, without the places where it lies."""
    made_from = stages.retrieve.manifest["made_from"]
    return {
        "settings": {
            "split": run.questions.split,
            "systems": [MODELS],
            "without": made_from["settings"].get("without", []),
            "profile": str(run.profile["name"]),
            "k": run.k,
            "protocol": "strict",
            "drop_leaked": run.drop_leaked,
            "gold_outside": run.gold_outside,
            "limit": run.limit,
        },
        "profile": run.profile,
        "kb_fingerprint": kb.fingerprint,
        "questions": {run.questions.dataset: run.questions.sha256},
        "network_sha256": made_from["inputs"]["network"],
        "scorer_sha256": hashlib.sha256("".join(made_from["inputs"]["scorer"]).encode()).hexdigest(),
        "models": {GENERATE: _model(stages.generate), RERANK: _model(stages.rerank)},
        "stages": {
            name: {file: facts["sha256"] for file, facts in one.manifest["files"].items()}
            for name, one in stages.named().items()
        },
        "localmel": versions()["localmel"],
    }


def _model(stage: Stage | None) -> Json | None:
    return stage.manifest["made_from"]["inputs"]["model"] if stage else None


def _head(run: ModelRun, kb: KnowledgeBase, stages: _Stages) -> list[str]:
    """Who answered, in words."""
    lines = [f"KB {kb.name}, {len(kb):,} entities (state {kb.fingerprint[:12]}); profile {run.profile['name']}."]
    for stage, what in ((stages.generate, "Triples by"), (stages.rerank, "Chosen by")):
        if stage:
            model = stage.manifest["made_from"]["inputs"]["model"]
            lines.append(f"{what} {model['name']} ({model['revision'][:12]}).")
        else:
            lines.append(f"{what} the embedded stage: no language model.")
    withheld = stages.retrieve.manifest["made_from"]["settings"].get("without", [])
    lines.append("Withheld: the triples about mentions." if withheld else "Nothing was withheld.")
    if stages.rerank and (failed := stages.rerank.manifest["figures"]["failed_open"]):
        lines.append(f"Mentions of which the model said nothing that can be used, left to retrieval: {failed:,}.")
    return lines


# --- answers --------------------------------------------------------------------------------------------------------


def _answered(run: ModelRun, *, chosen: bool) -> list[tuple[Retrieved, Choice | None]]:
    if chosen:
        return [(one.retrieved, one.choice) for one in read_choices(run.folder)]
    return [(one, None) for one in read_rankings(run.folder)]


def _answer(run: ModelRun, question: Question, retrieved: Retrieved, choice: Choice | None) -> Answer:
    """The chosen candidate first, the rest in the order of retrieval; the gold's rank in all that was ranked."""
    ranking = retrieved.ranking
    if choice is None:
        nil = retrieved.nil
        option, sure = scorer_answer(ranking, nil, run.nil_from)
    else:
        option, sure, nil = choice.option, choice.probability, choice.nil
    predicted = None if option is None else ranking.candidates[option].entity_id
    if predicted is not None:
        ranking = in_front(ranking, predicted)
    places = (place for place, one in enumerate(ranking.candidates, 1) if one.entity_id == question.gold)
    return Answer(
        mention_id=question.mention.id,
        rank=rank_in(ranking, question.gold),
        place=next(places, math.inf),
        predicted=predicted,
        probability=min(max(sure, 0.0), 1.0),
        nil_probability=min(max(nil, 0.0), 1.0),
        candidates=ranking.candidates[: run.k],
    )


def _carried(retrieved: Retrieved, choice: Choice | None, said: Said | None, *, withheld: bool) -> Json:
    """The optional fields of a line of rankings.jsonl; docs/comparing.md says what each means."""
    row: Json = {}
    if choice is not None:
        row["failed_open"] = choice.decided_by == BY_SCORER_FAILED
    if choice is not None and choice.votes:
        shown = retrieved.ranking.candidates
        row["offered"] = [shown[option].entity_id for option in choice.votes[0].order]
    if said is not None:
        row["attempts"] = said.attempts
        row["unparsed"] = said.description is None
        if not withheld:
            triples = said.description.triples if said.description else ()
            row["triples"] = [[one.head, one.relation, one.tail, one.source] for one in triples]
    return row
