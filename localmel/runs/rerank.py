"""Let a language model choose among the candidates of many mentions, on disk: what `localmel rerank` runs.

In: the folder of a run with its `retrieve` stage, the KB, an engine.  Out: `rerank/` in it:

    links.jsonl     a link per mention, in order: the entity or NIL, its probability, what decided, the evidence
    choices.jsonl   how each choice was made: log probabilities under every order, cited facts, failures, tokens

A run that was killed resumes where it stopped, because its journal has every answer.  Knows no gold."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from localmel.encode.kb_vectors import load_vectors
from localmel.encode.space import TextEncoder
from localmel.engines.protocol import Engine, EngineFacts
from localmel.errors import BadInput, CorruptArtifact
from localmel.kb.store import KnowledgeBase
from localmel.records import Evidence, Link
from localmel.rerank.calibration import ASKED, ChoiceCalibration, check_fits
from localmel.rerank.choice import BY_MODEL, BY_SCORER_FAILED, BY_SCORER_SURE, NO_CANDIDATE, Choice, link_of
from localmel.rerank.closed_question import ClosedQuestion
from localmel.rerank.llm import choose
from localmel.rerank.questions import QuestionWriter, Retrieved
from localmel.runs.folder import Stage, again_of, finished_stage, make_stage, open_journal, read_lines
from localmel.runs.generate import device_in_words, model_of
from localmel.runs.retrieve import RANKINGS, RETRIEVE, read_rankings, retrieved_over
from localmel.settings import RerankSettings
from localmel.store import progress
from localmel.store.artifacts import failed_writes_are_reported
from localmel.store.codec import from_json
from localmel.store.journal import Journal

RERANK, LINKS, CHOICES = "rerank", "links.jsonl", "choices.jsonl"
_MODEL_SETTINGS = ("engine", "quantization", "dtype", "device", "context")
Json = dict[str, Any]


def rerank_stage(
    run: Path,
    kb: KnowledgeBase,
    encoder: TextEncoder,
    engine: Engine,
    settings: RerankSettings,
    *,
    calibration: ChoiceCalibration | None = None,
    again: bool = False,
    command: str = "",
) -> Stage:
    """Let the model choose for every mention of the run, or return the stage that the run has.

    `again` asks once more about mentions that a finished run had no answer for.  Raises BadInput if the run has no
    `retrieve` stage, or one over another KB; EngineStopped; and as `make_stage`.  Earlier answers stay in the
    journal."""
    kb.hold()
    before = retrieved_over(run, kb)
    packed, vectors = load_vectors(kb, encoder.space)
    facts = engine.facts()
    if calibration:
        check_fits(calibration, facts, settings)

    def make(folder: Path) -> Json:
        with open_journal(run, RERANK) as journal:
            tally = _Tally(kept_before=len(journal))
            progress.begin("choosing", before.manifest["figures"]["mentions"])
            writer = QuestionWriter(kb, packed, vectors, encoder, settings)
            pairs = _chosen(writer.questions(read_rankings(run)), engine, settings, calibration, journal)
            with (
                failed_writes_are_reported(folder),
                (folder / LINKS).open("w", encoding="utf-8") as links,
                (folder / CHOICES).open("w", encoding="utf-8") as choices,
            ):
                for question, choice in pairs:
                    tally.add(choice)
                    _write(links, _link_json(link_of(question, choice, most_evidence=settings.most_evidence), choice))
                    _write(choices, _choice_json(question, choice))
                    progress.advance(1)
            return tally.figures(len(journal), engine.facts()) | {"device": device_in_words(settings.model)}

    return make_stage(
        run,
        RERANK,
        make,
        settings={
            **{name: getattr(settings, name) for name in (*ASKED, "route_from", "nil_from", "most_evidence")},
            "model": {name: getattr(settings.model, name) for name in _MODEL_SETTINGS},
        },
        inputs={
            "rankings": before.manifest["files"][RANKINGS]["sha256"],
            "kb_fingerprint": kb.fingerprint,
            "space": encoder.space.weights_sha256,
            "model": model_of(facts),
            "calibration": calibration.to_json() if calibration else None,
        },
        command=command,
        is_enough=lambda manifest: not (again and manifest["figures"]["failed_open"]),
    )


def _chosen(
    questions: Iterable[ClosedQuestion],
    engine: Engine,
    settings: RerankSettings,
    calibration: ChoiceCalibration | None,
    journal: Journal,
) -> Iterator[tuple[ClosedQuestion, Choice]]:
    """Pair each question with its choice, keeping in memory only the questions under way."""
    asked: deque[ClosedQuestion] = deque()

    def noted() -> Iterator[ClosedQuestion]:
        for question in questions:
            asked.append(question)
            yield question

    for choice in choose(noted(), engine, settings, calibration=calibration, journal=journal):
        yield asked.popleft(), choice


# --- what it cost -------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Tally:
    """Counts choices as they come; tokens include those of answers from the journal."""

    kept_before: int
    begun: float = field(default_factory=time.perf_counter)
    decided: dict[str, int] = field(default_factory=dict)
    nil: int = 0
    requests: int = 0
    problems: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def add(self, choice: Choice) -> None:
        self.decided[choice.decided_by] = self.decided.get(choice.decided_by, 0) + 1
        self.nil += choice.option is None
        self.requests += choice.requests
        self.problems += len(choice.problems)
        self.prompt_tokens += choice.prompt_tokens
        self.output_tokens += choice.output_tokens

    def figures(self, kept: int, facts: EngineFacts) -> Json:
        seconds = time.perf_counter() - self.begun
        now = kept - self.kept_before
        asked = self.decided.get(BY_MODEL, 0) + self.decided.get(BY_SCORER_FAILED, 0)
        return {
            "mentions": sum(self.decided.values()),
            "asked": asked,
            "skipped": self.decided.get(BY_SCORER_SURE, 0),
            "failed_open": self.decided.get(BY_SCORER_FAILED, 0),
            "without_candidates": self.decided.get(NO_CANDIDATE, 0),
            "nil": self.nil,
            "requests": self.requests,
            "problems": self.problems,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "prompt_tokens_per_asked": round(self.prompt_tokens / max(1, asked), 1),
            "answers_kept": kept,
            "answers_now": now,
            "answers_per_second": round(now / seconds, 3),
            "load_seconds": round(facts.load_seconds, 2),
            "peak_memory_bytes": facts.peak_memory_bytes,
        }


# --- lines --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """One mention before and after the model's choice."""

    retrieved: Retrieved
    choice: Choice


def read_choices(run: Path) -> list[Reranked]:
    """Read every mention of a run whose `rerank` stage is finished.  Raises BadInput or CorruptArtifact."""
    stage = finished_stage(run, RERANK)
    again = again_of(stage.folder, RERANK)
    rankings = finished_stage(run, RETRIEVE).manifest["files"][RANKINGS]["sha256"]
    if stage.manifest["made_from"]["inputs"]["rankings"] != rankings:
        raise BadInput(f"{stage.folder} was made from other rankings than the run has now", hint=again)
    path = stage.folder / CHOICES
    choices = list(
        read_lines(path, lambda row: from_json(Choice, row, where=path, again=again, more=True), again=again)
    )
    found = list(read_rankings(run))
    if len(found) != len(choices):
        raise CorruptArtifact(f"{path} has {len(choices):,} choices for {len(found):,} mentions", hint=again)
    return [Reranked(retrieved=one, choice=choice) for one, choice in zip(found, choices, strict=True)]


def _write(file: IO[str], row: Json) -> None:
    file.write(json.dumps(row, allow_nan=False) + "\n")


def _link_json(link: Link, choice: Choice) -> Json:
    return {
        "mention_id": link.mention_id,
        "entity": link.entity_id,
        "probability": round(link.probability, 6),
        "nil_probability": round(choice.nil, 6),
        "decided_by": link.decided_by,
        "evidence": [_evidence_json(pair) for pair in link.evidence],
        "candidates": [{"id": one.entity_id, "score": round(one.score, 6)} for one in link.ranking.candidates],
    }


def _evidence_json(pair: Evidence) -> Json:
    about, of = pair.mention_triple, pair.entity_triple
    return {
        "mention_triple": [about.head, about.relation, about.tail],
        "entity_triple": [of.head, of.relation, of.tail],
        "similarity": pair.similarity,
        "source": about.source,
    }


def _choice_json(question: ClosedQuestion, choice: Choice) -> Json:
    options = [option.entity.id for option in question.options]
    first = choice.votes[0].order if choice.votes else ()
    return {
        "mention_id": choice.mention_id,
        "option": choice.option,
        "probability": choice.probability,
        "nil": choice.nil,
        "decided_by": choice.decided_by,
        "offered": [options[place] for place in first],
        "logs": [round(log, 6) for log in choice.logs],
        "votes": [{"order": vote.order, "logs": [round(log, 6) for log in vote.logs]} for vote in choice.votes],
        "cited": choice.cited,
        "problems": choice.problems,
        "requests": choice.requests,
        "prompt_tokens": choice.prompt_tokens,
        "output_tokens": choice.output_tokens,
    }
