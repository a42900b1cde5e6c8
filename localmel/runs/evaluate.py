"""Evaluate answers by the strict protocol and keep the result, `evaluate/` in the folder of a run:

    rankings.jsonl          one line per system and mention: enough to count again, and to compare with another run
    report.json, report.md  the metrics
    manifest.json           everything that decided them; written last

In: answers of one or more systems, whether systems are asked now (`evaluate_systems`) or the answers lie in the stages
of a run (`evaluate_run`).  Out: a Report.  Nothing is evaluated twice from the same inputs, and a folder made from
others is refused, never replaced.  Chooses nothing and fits nothing."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, shell_line
from localmel.evaluate.paper import PaperCounts, PaperMention, paper_counts
from localmel.evaluate.protocol import Evaluation, EvaluationSettings, Outcome, evaluate, rank_in
from localmel.evaluate.significance import compare
from localmel.records import Candidate, EntityId, MentionId, Ranking
from localmel.report.evaluation import as_json, as_markdown
from localmel.runs.folder import VERSION, json_text, sealed_before, versions, write_texts
from localmel.runs.questions import Question, Questions
from localmel.store.artifacts import new_folder

KIND, STAGE = "evaluation", "evaluate"
REPORT, MARKDOWN, RANKINGS = "report.json", "report.md", "rankings.jsonl"
MODELS = "models"
"The name of the one system of a run of models."
CALIBRATED = ("linker", MODELS)
"Systems whose probabilities are meant as such."
PACKAGES = ("numpy", "torch")
"What an evaluation is computed with."
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One system's answer to one question, with the place where it put the gold."""

    mention_id: MentionId
    rank: float
    "Rank of the gold; equal scores share the mean of their places.  Infinity if the gold was not ranked."
    place: float
    "Place of the gold if equal scores keep the system's order: the published way of counting."
    predicted: EntityId | None
    probability: float
    nil_probability: float
    candidates: tuple[Candidate, ...]
    "The best K."
    has_triples: bool
    "Whether the system was given triples of the mention."


def answer_to(
    question: Question,
    ranked: Sequence[Candidate],
    k: int,
    *,
    predicted: EntityId | None,
    probability: float,
    nil: float,
    has_triples: bool,
) -> Answer:
    """Return the answer of a system that ranked these candidates, best first; the gold's rank is among all of them."""
    ranking = Ranking(mention_id=question.mention.id, candidates=tuple(ranked))
    places = (place for place, one in enumerate(ranked, 1) if one.entity_id == question.gold)
    return Answer(
        mention_id=question.mention.id,
        rank=rank_in(ranking, question.gold),
        place=next(places, math.inf),
        predicted=predicted,
        probability=min(max(probability, 0.0), 1.0),
        nil_probability=min(max(nil, 0.0), 1.0),
        candidates=ranking.candidates[:k],
        has_triples=has_triples,
    )


def outcome_for(question: Question, answer: Answer) -> Outcome:
    """Compare an answer with the gold: right only if it is one of the K candidates."""
    return Outcome(
        mention_id=answer.mention_id,
        cluster=question.cluster,
        gold=question.gold,
        rank=answer.rank,
        among_candidates=question.gold is not None and any(one.entity_id == question.gold for one in answer.candidates),
        predicted=answer.predicted,
        probability=answer.probability,
        nil_probability=answer.nil_probability,
        facts=replace(question.facts, mention_has_triples=answer.has_triples),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """All answers to the questions of one dataset."""

    questions: Questions
    systems: Mapping[str, Sequence[Answer]]
    "Answers in the order of the questions; the first system is the one that the others are compared with."
    notes: Sequence[str]
    details: Sequence[Mapping[str, Any]] = ()
    "Optional fields for the lines of rankings.jsonl, one mapping per question; see docs/comparing.md."
    paper: bool = False
    "Whether to count as published, too."
    more: Mapping[str, Any] = field(default_factory=dict)
    "Further sections of report.json."
    more_markdown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """The result of an evaluation."""

    json: Mapping[str, Any]
    markdown: str
    made: bool
    "False: the same inputs had been evaluated before."


def evaluate_stage(
    run: Path | None,
    answer: Callable[[], Iterable[Answered]],
    *,
    inputs: Mapping[str, Any],
    instead: str,
    places: Mapping[str, str],
    command: str = "",
    costs: Mapping[str, Any] | None = None,
) -> Report:
    """Evaluate what `answer` returns for each dataset, or return the report that the run holds.

    `inputs` decide the numbers, `inputs["settings"]` name K and the systems; `places` are where data and KB lie;
    `costs` are those of the models of a run, and replace the seconds measured here; `instead` is the hint if the run
    holds another evaluation.  Without a run nothing is kept.  Raises BadInput or CorruptArtifact."""
    folder = run / STAGE if run else None
    if folder and (stored := _stored(folder, inputs, instead)):
        return stored
    started = time.perf_counter()
    answered = list(answer())
    k = int(inputs["settings"]["k"])
    parts = {one.questions.dataset: _evaluated(one, k) for one in answered}
    report = Report(
        json={"format": 1, **inputs["settings"], "datasets": {name: part for name, (part, _) in parts.items()}},
        markdown="\n".join(page for _, page in parts.values()),
        made=True,
    )
    if folder:
        measured: Json = {"seconds": round(time.perf_counter() - started, 2)}
        if costs is not None:
            measured = {"resources": {MODELS: costs}, **{name: costs[name] for name in ("seconds",) if name in costs}}
        facts = {
            "inputs": inputs,
            "command": command,
            "places": dict(places),  # a comparison reads the sentences there
            "versions": versions(*PACKAGES),
            **measured,
        }
        lines = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in _lines(answered))
        with new_folder(folder, kind=KIND, version=VERSION, facts=facts) as made:
            write_texts(made, {REPORT: json_text(report.json), MARKDOWN: report.markdown, RANKINGS: lines})
    return report


def _stored(folder: Path, inputs: Mapping[str, Any], instead: str) -> Report | None:
    again = shell_line("rm -r", folder, note="then run the same command again")
    if sealed_before(folder, inputs, kind=KIND, key="inputs", again=again, instead=instead) is None:
        return None
    try:
        found = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return Report(json=found, markdown=(folder / MARKDOWN).read_text(encoding="utf-8"), made=False)
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{folder} is not a finished evaluation ({error})", hint=again) from None


def _evaluated(answered: Answered, k: int) -> tuple[Json, str]:
    """Return the JSON and the Markdown of one dataset."""
    settings = EvaluationSettings(k=k)
    asked = answered.questions.asked
    outcomes = {
        system: [outcome_for(question, answer) for question, answer in zip(asked, answers, strict=True)]
        for system, answers in answered.systems.items()
    }
    first, *others = outcomes
    in_kb = any(one.gold is not None for one in asked)
    published = answered.systems.items() if answered.paper else ()
    paper = {system: counts for system, answers in published if (counts := _as_published(asked, answers))}
    given: Json = {
        "comparisons": [
            compare(outcomes[first], outcomes[other], settings, names=(first, other)) for other in others if in_kb
        ],
        "paper": paper if answered.paper else None,
        "notes": answered.notes,
    }
    evaluations = {system: _evaluation(system, found, settings) for system, found in outcomes.items()}
    title = f"{answered.questions.dataset}, {answered.questions.split}"
    page = as_markdown(evaluations, title=title, **given) + answered.more_markdown
    return {**as_json(evaluations, **given), **answered.more}, page


def _evaluation(system: str, outcomes: Sequence[Outcome], settings: EvaluationSettings) -> Evaluation:
    """Evaluate one system, without a calibration error if its scores are not meant as probabilities."""
    found = evaluate(outcomes, settings)
    if system in CALIBRATED:
        return found
    slices = (
        replace(one, metrics={name: value for name, value in one.metrics.items() if name != "ece"})
        for one in found.slices
    )
    return replace(found, slices=tuple(slices))


def _as_published(asked: Sequence[Question], answers: Sequence[Answer]) -> PaperCounts | None:
    """Count retrieval as published; None if no gold is in the KB.  No system here answers in free text."""
    mentions = [
        PaperMention(mention_id=answer.mention_id, gold=one.gold, rank=answer.place)
        for one, answer in zip(asked, answers, strict=True)
        if one.gold is not None
    ]
    return paper_counts(mentions) if mentions else None


def _lines(answered: Iterable[Answered]) -> Iterator[Json]:
    for one in answered:
        for system, answers in one.systems.items():
            details = one.details or [{}] * len(answers)
            for question, answer, more in zip(one.questions.asked, answers, details, strict=True):
                yield {**_line(one.questions.dataset, system, question, answer), **more}


def _line(dataset: str, system: str, question: Question, answer: Answer) -> Json:
    return {
        "dataset": dataset,
        "system": system,
        "id": answer.mention_id,
        "sentence": hashlib.sha256(question.cluster.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        "gold": question.gold,
        "rank": answer.rank if math.isfinite(answer.rank) else None,
        "predicted": answer.predicted,
        "probability": round(answer.probability, 6),
        "nil_probability": round(answer.nil_probability, 6),
        "candidates": [[one.entity_id, round(one.score, 6)] for one in answer.candidates],
    }
