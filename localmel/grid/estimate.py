"""Say what a grid would run and cost: `localmel compare --vlm ... --dry-run`.

In: a grid, a KB, the folder it goes to.  Out: requests, tokens, minutes and memory for each VLM and each cell, which of
it is done already, and which weights are missing.  Runs and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localmel.encode.kb_vectors import load_vectors
from localmel.engines.protocol import Message, Request
from localmel.errors import LocalmelError, MissingWeights
from localmel.generate.question import asked_of, questions_of
from localmel.grid.cells import CELLS, VLMS, asked_in, is_finished, noted_failure_in
from localmel.grid.costs import SAMPLE, Tokens, card_here, evenly, guessed_tokens, memory_of, minutes_of, tokens_of
from localmel.grid.frozen import (
    check_frozen,
    check_several,
    facts_of_model,
    frozen_of,
    made_up_notes,
    needed_models,
    read_frozen,
)
from localmel.grid.plan import Cell, Described, Grid, ModelChoice
from localmel.kb.store import KnowledgeBase
from localmel.rerank.closed_question import letters_for, messages_for, orders_of
from localmel.rerank.questions import QuestionWriter
from localmel.retrieve.profile_models import ProfileModels, open_models
from localmel.runs.evaluate import STAGE
from localmel.runs.folder import journal_of
from localmel.runs.generate import GENERATE
from localmel.runs.questions import Questions
from localmel.runs.rerank import RERANK
from localmel.runs.retrieve import RETRIEVE, read_rankings
from localmel.settings import Profile

_CHARACTERS_OF_A_CHOICE = 4200
"Assumed length of a question with 16 candidates of four facts each, if there are no candidates yet."
HEAD = ("stage", "requests", "prompt tokens", "image tokens", "output tokens", "minutes", "memory", "state")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one model over all mentions."""

    stage: str
    name: str
    "Name of the VLM or of the cell."
    model: str
    tokens: Tokens | None
    "None if no model is asked."
    minutes: float | None
    measured: bool
    "Whether the minutes come from a finished stage of this grid with the same model, or from the card's data sheet."
    memory_bytes: int | None
    memory_from: str
    state: str
    answers_kept: int

    @property
    def is_done(self) -> bool:
        return self.state == "done"


def estimate_of(grid: Grid, kb: KnowledgeBase, out: Path) -> Json:
    """Return everything that is printed, and the exit code that a run would have before it asks anything.

    Raises BadInput if data, KB or folder do not fit, UsageError for a single cell."""
    check_several(grid)
    kb.hold()
    questions = asked_in(grid, kb)
    before = read_frozen(out)
    missing = list(_missing(grid))
    models: ProfileModels | None = None
    try:
        models = open_models(grid.base)
    except LocalmelError as error:
        missing.insert(0, _lacking("", grid.base.retrieve.network, error))
    if before is not None and models is not None:
        settings = {name: {"settings": one.to_json()} for name, one in grid.models.items()}
        check_frozen(out, before, frozen_of(grid, questions, kb, models), settings)
    absent = {one["model"]: one["state"] for one in missing}
    work = [*(_described(one, questions, out, absent) for one in grid.described if not one.without_triples)]
    work += [_chosen(cell, questions, kb, models, out, absent) for cell in grid.cells]
    return _to_json(grid, out, questions, work, missing)


# --- each stage -----------------------------------------------------------------------------------------------------


def _described(described: Described, questions: Questions, out: Path, absent: Mapping[str, str]) -> Work:
    folder = out / VLMS / described.name
    name = described.vlm.label
    if described.vlm.settings is None:
        state = "done" if (folder / RETRIEVE).is_dir() else "to do"
        return _without_model("retrieve", name, state)
    settings = described.profile.generate
    requests = [
        question.request(str(number), settings)
        for number, question in enumerate(
            question
            for one in asked_of(one.mention for one in questions.asked)
            for question in questions_of(one, settings)
        )
    ]
    tokens = tokens_of(requests, settings.model)
    return _work(GENERATE, name, described.vlm, tokens, out, folder, absent)


def _chosen(
    cell: Cell,
    questions: Questions,
    kb: KnowledgeBase,
    models: ProfileModels | None,
    out: Path,
    absent: Mapping[str, str],
) -> Work:
    folder = out / CELLS / cell.name
    if cell.llm.settings is None:
        state = "done" if (folder / STAGE).is_dir() else "to do"
        return _without_model("evaluate", cell.name, state)
    settings = cell.profile.rerank
    each = settings.orders * (2 if settings.evidence_first else 1)
    shared = out / VLMS / cell.described.name
    if models and (shared / RETRIEVE).is_dir():
        sample, asked = _questions(shared, kb, models, cell.profile)
        tokens = tokens_of(sample, settings.model, in_all=asked * each)
    else:
        tokens = guessed_tokens(len(questions.asked) * each, _CHARACTERS_OF_A_CHOICE)
    return _work(RERANK, cell.name, cell.llm, tokens, out, folder, absent)


def _questions(shared: Path, kb: KnowledgeBase, models: ProfileModels, profile: Profile) -> tuple[list[Request], int]:
    """Return some of the real questions, and how many mentions have candidates."""
    packed, vectors = load_vectors(kb, models.encoders.text.space)
    retrieved = [one for one in read_rankings(shared) if one.ranking.candidates]
    writer = QuestionWriter(kb, packed, vectors, models.encoders.text, profile.rerank)
    found = [
        _choice(messages_for(question, orders_of(question, 1, profile.rerank.seed)[0]), len(question.options))
        for question in writer.questions(evenly(retrieved))
    ]
    return found, len(retrieved)


def _choice(messages: tuple[Message, ...], n_options: int) -> Request:
    return Request(id="estimate", messages=messages, choices=letters_for(n_options), max_tokens=4)


def _without_model(stage: str, name: str, state: str) -> Work:
    return Work(
        stage=stage,
        name=name,
        model="none",
        tokens=None,
        minutes=None,
        measured=False,
        memory_bytes=None,
        memory_from="",
        state=state,
        answers_kept=0,
    )


def _work(
    stage: str, name: str, choice: ModelChoice, tokens: Tokens, out: Path, folder: Path, absent: Mapping[str, str]
) -> Work:
    assert choice.settings is not None
    kept = _answers_kept(journal_of(folder, stage))
    done = (folder / stage).is_dir() and (stage == GENERATE or (folder / STAGE).is_dir())
    failed = noted_failure_in(folder)
    if done:
        state = "done"
    elif choice.settings.weights in absent:
        state = absent[choice.settings.weights]
    elif failed:
        state = f"failed: {failed.fact}"
    else:
        state = f"{kept:,} answers are there" if kept else "to do"
    left = 0.0 if done else max(0.0, 1 - kept / max(1, tokens.requests))
    per_second = _measured(stage, choice, out)
    minutes = tokens.requests / per_second / 60 if per_second else None
    if minutes is None:
        minutes = minutes_of(choice.settings, tokens, card_here(choice.settings))
    memory = memory_of(choice.settings)
    return Work(
        stage=stage,
        name=name,
        model=choice.settings.weights,
        tokens=tokens,
        minutes=None if minutes is None else minutes * left,
        measured=per_second is not None,
        memory_bytes=memory.bytes if memory else None,
        memory_from=memory.source if memory else "",
        state=state,
        answers_kept=kept,
    )


def _answers_kept(journal: Path) -> int:
    """Count the lines with an answer, without opening the journal, which would lock it."""
    try:
        with journal.open("rb") as lines:
            return sum(b'"answer":' in line for line in lines)
    except OSError:
        return 0


def _measured(stage: str, choice: ModelChoice, out: Path) -> float | None:
    """Return the answers per second of a finished stage of this grid with the same model."""
    pattern = f"{VLMS}/{choice.label}" if stage == GENERATE else f"{CELLS}/*+{choice.label}*"
    for path in sorted(out.glob(f"{pattern}/{stage}/manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            figures, model = manifest["figures"], manifest["made_from"]["inputs"]["model"]["name"]
            if choice.settings and model == choice.settings.weights and figures["answers_now"]:
                return float(figures["answers_per_second"]) or None
        except (OSError, ValueError, KeyError, TypeError):  # reported where the stage itself is read
            continue
    return None


# --- what is missing ------------------------------------------------------------------------------------------------


def _missing(grid: Grid) -> Iterator[Json]:
    """Yield each model that cannot be run now, with the command that helps."""
    for name, one in grid.models.items():
        assert one.settings is not None
        try:
            facts_of_model(name, one)
        except LocalmelError as error:
            yield _lacking(name, one.settings.weights, error)


def _lacking(name: str, model: str, error: LocalmelError) -> Json:
    """Describe a missing model.  name: as in `grid.models`, empty if all cells need it."""
    state = "weights are missing" if isinstance(error, MissingWeights) else "cannot be run"
    facts = {"model": model, "problem": error.fact, "command": error.hint, "state": state}
    return facts | {"name": name, "exit_code": error.exit_code}


def _exit_code(grid: Grid, out: Path, missing: Sequence[Json]) -> int:
    """Return the exit code for the first missing model that an unfinished cell needs; 0 if there is none."""
    left = [cell for cell in grid.cells if not is_finished(out, cell)]
    needed = {"", *needed_models(left)}
    return next((int(one["exit_code"]) for one in missing if one["name"] in needed), 0)


# --- as a table -----------------------------------------------------------------------------------------------------


def _to_json(grid: Grid, out: Path, questions: Questions, work: Sequence[Work], missing: Sequence[Json]) -> Json:
    notes = [*made_up_notes(grid), *(f"{one['problem']}: {one['command']}" for one in missing)]
    asking = [one for one in work if one.tokens]
    if any(one.tokens and not one.tokens.counted for one in asking):
        notes.append(
            "~ estimated from characters and the catalog, because the model or its candidates are not there yet."
        )
    if any(one.tokens and one.tokens.sampled == SAMPLE < one.tokens.requests for one in asking):
        notes.append(f"Tokens are counted on {SAMPLE} requests of each stage and scaled up.")
    if any(one.minutes is None for one in asking if not one.is_done):
        notes.append("There are no minutes where neither a finished stage nor a known GPU gives the speed.")
    minutes = [one.minutes for one in work if one.minutes is not None]
    left = [one for one in work if not one.is_done]
    done = len(work) - len(left)
    return {
        "folder": str(out),
        "mentions": len(questions.asked),
        "dataset": questions.dataset,
        "split": questions.split,
        "cells": [cell.name for cell in grid.cells],
        "work": [asdict(one) for one in work],
        "minutes": sum(minutes) if minutes else None,
        "missing": list(missing),
        "exit_code": _exit_code(grid, out, missing),
        "title": f"{len(grid.cells)} cells over {len(questions.asked):,} mentions of {questions.dataset}, "
        f"{questions.split}; {done} of {len(work)} steps are done",
        "head": list(HEAD),
        "table": [_row(one) for one in work],
        "notes": notes,
    }


def _row(one: Work) -> list[str]:
    tokens, mark = one.tokens, "" if one.tokens and one.tokens.counted else "~"
    counts = ["–"] * 4
    if tokens:
        counts = [f"{tokens.requests:,}", *(f"{mark}{n:,}" for n in (tokens.prompt, tokens.image))]
        counts.append(f"~{tokens.output:,}")
    minutes = "–" if one.minutes is None else f"{'' if one.measured else '~'}{one.minutes:.1f}"
    memory = "–" if one.memory_bytes is None else f"~{one.memory_bytes / 2**30:.1f} GiB"
    return [f"{one.stage} {one.name}", *counts, minutes, memory, one.state]
