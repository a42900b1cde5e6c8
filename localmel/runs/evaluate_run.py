"""Evaluate a run of models: `localmel eval --run`, and every cell of a grid.

In: the folder of a run with `retrieve` and perhaps `generate` and `rerank`, the questions it was asked, their KB.
Out: `evaluate/` in it.  A run without `rerank` answers by its retrieval.  Asks no model; refuses a run that was asked
other mentions, or over another KB."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localmel.benchmarks import read_benchmark
from localmel.errors import BadInput, UsageError, shell_line
from localmel.kb.store import KnowledgeBase
from localmel.records import Mention
from localmel.rerank.choice import BY_SCORER_FAILED, Choice, in_front, scorer_answer
from localmel.rerank.questions import Retrieved
from localmel.runs.evaluate import MODELS, PACKAGES, Answer, Answered, Report, answer_to, evaluate_stage
from localmel.runs.folder import Stage, finished_stage, journal_of, typed, versions
from localmel.runs.generate import GENERATE, Said, mentions_sha256, read_said
from localmel.runs.questions import GoldOutside, Question, Questions, check_gold_outside, questions_of
from localmel.runs.rerank import RERANK, read_choices
from localmel.runs.retrieve import RETRIEVE, read_rankings, retrieved_over

_PROFILE = "as the run"
"Stands for the name of a profile: a run keeps the settings of its profile, not the name."
TOKENS = ("prompt_tokens", "image_tokens", "output_tokens")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """A run with finished stages, and how it was asked."""

    folder: Path
    questions: Questions
    k: int
    "How many candidates the model chose among."
    profile: Mapping[str, Any]
    "The settings of the run, without paths on this machine."
    limit: int = 0
    drop_leaked: bool = False
    gold_outside: GoldOutside = "refuse"
    nil_from: float = 0.5
    "From which probability NIL is answered if no language model chooses."
    mentions: tuple[Mention, ...] = ()
    "All mentions of the run, if only some of them are evaluated; default: those of the questions."


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
    """Evaluate a run as it was asked, or return its report; `k` counts only for a run without `rerank`.

    The split, the limit and all other settings come from the run.  Raises BadInput or UsageError with the next command,
    CorruptArtifact for a damaged run."""
    if not (folder / RETRIEVE).is_dir():
        hint = f"localmel retrieve DATA --kb KB --run {typed(folder)}"
        raise BadInput(f"{folder} has no candidates to evaluate", hint=hint)
    check_gold_outside(gold_outside)
    for stage in (GENERATE, RERANK):
        if not (folder / stage).is_dir() and journal_of(folder, stage).is_file():
            raise BadInput(
                f"cannot evaluate {folder}: its stage {stage} has answers but is not finished",
                hint=f"localmel {stage} DATA --run {typed(folder)}",
            )
    stages = _stages(folder, kb)
    asked = _settings(stages[RETRIEVE])["asked"]
    if not data.is_dir():
        raise UsageError(f"{data} is not a benchmark folder, whose train split an evaluation needs")
    if len(splits := asked["splits"] or ["val"]) > 1:
        raise BadInput(
            f"cannot evaluate {folder}: it was asked {' and '.join(splits)}, and an evaluation is of one split",
            hint=f"localmel retrieve DATA --split {splits[-1]} --run RUN   # a run for each",
        )
    if drop_leaked and asked["limit"]:
        raise UsageError(
            f"cannot drop leaked mentions: {folder} was asked only the first {asked['limit']:,} mentions",
            hint="leave --drop-leaked out",
        )
    benchmark = read_benchmark(data, asked["dataset"])
    questions = questions_of(benchmark, splits[0], kb, drop=drop_leaked, outside=gold_outside, limit=asked["limit"])
    mentions = benchmark.splits[splits[0]].mentions
    rerank = _settings(stages[RERANK]) if RERANK in stages else {}
    in_retrieve = {name: _settings(stages[RETRIEVE]).get(name, {}) for name in (GENERATE, RETRIEVE, RERANK)}
    own = {name: _settings(stage) for name, stage in stages.items() if name != RETRIEVE}
    run = ModelRun(
        folder=folder,
        questions=replace(questions, notes=(f"Run {folder.name}.", *questions.notes)),
        k=rerank.get("most_candidates", k),
        profile={"name": _PROFILE, **in_retrieve, **own},
        limit=asked["limit"],
        drop_leaked=drop_leaked,
        gold_outside=gold_outside,
        nil_from=rerank.get("nil_from", 0.5),
        mentions=mentions[: asked["limit"]] if asked["limit"] else mentions,
    )
    places = {"data": str(data.resolve()), "kb": str(kb.folder.resolve())}
    return evaluate_model_run(run, kb, places=places, command=command)


def evaluate_model_run(run: ModelRun, kb: KnowledgeBase, *, places: Mapping[str, str], command: str = "") -> Report:
    """Evaluate a run whose questions are known, or return its report.  `places` are where data and KB lie.

    Raises BadInput if a stage is missing or was made from something else, CorruptArtifact if one is damaged."""
    kb.hold()
    stages = _stages(run.folder, kb)
    if _inputs_of(stages[RETRIEVE])["said"] is None:
        stages.pop(GENERATE, None)  # retrieval did not use it
    _check(run, stages)
    return evaluate_stage(
        run.folder,
        lambda: [_answered(run, kb, stages)],
        inputs=_inputs(run, kb, stages),
        instead=shell_line("rm -r", run.folder / "evaluate", note="then run the same command again"),
        places=places,
        command=command,
        costs=costs_of_stages(stages),
    )


# --- what it is made from -------------------------------------------------------------------------------------------


def _stages(folder: Path, kb: KnowledgeBase) -> dict[str, Stage]:
    found = {name: finished_stage(folder, name) for name in (GENERATE, RERANK) if (folder / name).is_dir()}
    return found | {RETRIEVE: retrieved_over(folder, kb)}


def _settings(stage: Stage) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = stage.manifest["made_from"]["settings"]
    return settings


def _inputs_of(stage: Stage) -> Mapping[str, Any]:
    inputs: Mapping[str, Any] = stage.manifest["made_from"]["inputs"]
    return inputs


def _check(run: ModelRun, stages: Mapping[str, Stage]) -> None:
    retrieve = stages[RETRIEVE]
    mentions = run.mentions or [one.mention for one in run.questions.asked]
    if _inputs_of(retrieve)["mentions"] != mentions_sha256(mentions):
        what = f"{len(mentions):,} mentions of {run.questions.dataset}, {run.questions.split}"
        again = shell_line("rm -r", retrieve.folder, note="then run localmel retrieve again")
        raise BadInput(f"{retrieve.folder} was made from other mentions than the {what}", hint=again)
    if RERANK in stages and (shown := _settings(stages[RERANK])["most_candidates"]) != run.k:
        raise BadInput(f"the model of {run.folder} chose among {shown} candidates, not {run.k}", hint=f"K = {shown}")


def _inputs(run: ModelRun, kb: KnowledgeBase, stages: Mapping[str, Stage]) -> Json:
    """Return everything that decides the numbers, without paths."""
    retrieve = stages[RETRIEVE]
    return {
        "settings": {
            "split": run.questions.split,
            "systems": [MODELS],
            "without": _settings(retrieve).get("without", []),
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
        "network_sha256": _inputs_of(retrieve)["network"],
        "scorer_sha256": hashlib.sha256("".join(_inputs_of(retrieve)["scorer"]).encode()).hexdigest(),
        "models": {name: _inputs_of(stages[name])["model"] if name in stages else None for name in (GENERATE, RERANK)},
        "stages": {
            name: {file: facts["sha256"] for file, facts in one.manifest["files"].items()}
            for name, one in stages.items()
        },
        "localmel": versions(*PACKAGES)["localmel"],
    }


def _notes(run: ModelRun, kb: KnowledgeBase, stages: Mapping[str, Stage]) -> list[str]:
    """Say in words which models answered."""
    lines = [f"KB {kb.name}, {len(kb):,} entities (state {kb.fingerprint[:12]}); profile {run.profile['name']}."]
    for stage, what in ((GENERATE, "Triples by"), (RERANK, "Chosen by")):
        if stage in stages:
            model = _inputs_of(stages[stage])["model"]
            lines.append(f"{what} {model['name']} ({model['revision'][:12]}).")
        else:
            lines.append(f"{what} the embedded stage: no language model.")
    ablated = bool(_settings(stages[RETRIEVE]).get("without", []))
    lines.append("Ablation: without the triples about mentions." if ablated else "No ablation.")
    if RERANK in stages and (failed := stages[RERANK].manifest["figures"]["failed_open"]):
        lines.append(f"Mentions left to retrieval because the model gave no usable answer: {failed:,}.")
    return lines


# --- answers --------------------------------------------------------------------------------------------------------


def _answered(run: ModelRun, kb: KnowledgeBase, stages: Mapping[str, Stage]) -> Answered:
    asked = run.questions.asked
    found: dict[str, tuple[Retrieved, Choice | None]]
    if RERANK in stages:
        found = {one.retrieved.mention.id: (one.retrieved, one.choice) for one in read_choices(run.folder)}
    else:
        found = {one.mention.id: (one, None) for one in read_rankings(run.folder)}
    rows = [found[one.mention.id] for one in asked]
    mentions = run.mentions or [one.mention for one in asked]
    said = read_said(run.folder, mentions) if GENERATE in stages else {}
    ablated = "triples" in _settings(stages[RETRIEVE]).get("without", [])
    return Answered(
        questions=run.questions,
        systems={
            MODELS: [
                run_answer(question, retrieved, choice, k=run.k, nil_from=run.nil_from)
                for question, (retrieved, choice) in zip(asked, rows, strict=True)
            ]
        },
        notes=[*_notes(run, kb, stages), *run.questions.notes],
        details=[_details(*row, said.get(one.mention.id), ablated) for one, row in zip(asked, rows, strict=True)],
    )


def run_answer(question: Question, retrieved: Retrieved, choice: Choice | None, *, k: int, nil_from: float) -> Answer:
    """Return the model's answer, its choice first and the rest in the order of retrieval; or retrieval's own."""
    ranking, nil = retrieved.ranking, retrieved.nil
    if choice is None:
        option, sure = scorer_answer(ranking, nil, nil_from)
    else:
        option, sure, nil = choice.option, choice.probability, choice.nil
    predicted = None if option is None else ranking.candidates[option].entity_id
    if predicted is not None:
        ranking = in_front(ranking, predicted)
    return answer_to(
        question,
        ranking.candidates,
        k,
        predicted=predicted,
        probability=sure,
        nil=nil,
        has_triples=bool(retrieved.description.triples),
    )


def _details(retrieved: Retrieved, choice: Choice | None, said: Said | None, ablated: bool) -> Json:
    """Return the optional fields of a line of rankings.jsonl; docs/comparing.md says what each means."""
    row: Json = {}
    if choice is not None:
        row["failed_open"] = choice.decided_by == BY_SCORER_FAILED
    if choice is not None and choice.votes:
        shown = retrieved.ranking.candidates
        row["offered"] = [shown[option].entity_id for option in choice.votes[0].order]
    if said is not None:
        row["attempts"] = said.attempts
        row["unparsed"] = said.description is None
        if not ablated:
            triples = said.description.triples if said.description else ()
            row["triples"] = [[one.head, one.relation, one.tail, one.source] for one in triples]
    return row


# --- costs ----------------------------------------------------------------------------------------------------------


def costs_of_stages(stages: Mapping[str, Stage]) -> Json:
    """Add up the costs of a run's models: tokens of all answers, and seconds without the loading of models.

    A number that no stage knows is left out."""
    found: Json = {"models": {name: model for name, stage in stages.items() if (model := _model_name(stage))}}
    asked = [stages[name].manifest["figures"] for name in found["models"]]
    for name in TOKENS:
        if counts := sum(int(one.get(name, 0)) for one in asked):
            found[name] = counts
    firsts = [one["first_token_seconds"] for one in asked if one.get("first_token_seconds") is not None]
    if firsts:
        found["first_token_seconds"] = firsts[0]  # of the model that writes; the one that chooses writes one token
    if memory := max((int(one.get("peak_memory_bytes", 0)) for one in asked), default=0):
        found["peak_memory_bytes"] = memory
    if devices := dict.fromkeys(str(one["device"]) for one in asked if one.get("device")):
        found["device"] = ", ".join(devices)
    seconds = [busy_seconds(stage) for stage in stages.values()]
    known = [one for one in seconds if one is not None]
    if len(known) == len(seconds):
        found["seconds"] = round(sum(known), 2)
    return found


def busy_seconds(stage: Stage) -> float | None:
    """Return the seconds a stage took, without the loading of its model.

    A stage that was interrupted knows only those of its last process, whose speed is taken for the whole; None if that
    process had nothing left to ask."""
    figures = stage.manifest["figures"]
    seconds = max(0.0, float(stage.manifest["seconds"]) - float(figures.get("load_seconds", 0.0)))
    now, kept = figures.get("answers_now"), figures.get("answers_kept")
    if now is None or kept is None or now == kept:
        return seconds
    return seconds * kept / now if now else None


def _model_name(stage: Stage) -> str:
    model = _inputs_of(stage).get("model")
    return str(model["name"]) if model else ""
