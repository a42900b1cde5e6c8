"""Do the work of a grid: generate and retrieve once for each VLM, then rerank and evaluate each cell.

    OUT/vlms/VLM/{generate,retrieve}             shared by the cells with this VLM
    OUT/cells/VLM+LLM/{rerank,evaluate}          a run like any other; generate and retrieve are links to the VLM's
    OUT/cells/VLM+LLM/failed.json                why the cell is not finished, if something went wrong

In: a grid, and everything its cells share.  Out: finished stages, none of them made twice.  Knows nothing of how cells
are compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.benchmarks import read_benchmark
from localmel.encode.kb_vectors import load_vectors
from localmel.engines.open import open_model
from localmel.errors import BadInput, LocalmelError, shell_line
from localmel.grid.frozen import FILE
from localmel.grid.plan import Cell, Described, Grid, profile_json
from localmel.kb.store import KnowledgeBase
from localmel.matchers.registry import matcher_kind
from localmel.records import Mention
from localmel.retrieve.profile_models import ProfileModels, open_models
from localmel.runs.evaluate import STAGE
from localmel.runs.evaluate_run import ModelRun, evaluate_model_run
from localmel.runs.generate import GENERATE, generate_stage
from localmel.runs.questions import Questions, questions_of
from localmel.runs.rerank import RERANK, rerank_stage
from localmel.runs.retrieve import RETRIEVE, Asked, retrieve_stage
from localmel.store import progress
from localmel.store.artifacts import MANIFEST, failed_writes_are_reported, write_json

VLMS, CELLS, FAILED = "vlms", "cells", "failed.json"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """Everything that all cells share."""

    grid: Grid
    out: Path
    kb: KnowledgeBase
    questions: Questions
    models: ProfileModels
    command: str

    @property
    def mentions(self) -> tuple[Mention, ...]:
        """The mentions, in the order in which they are asked about."""
        return tuple(one.mention for one in self.questions.asked)

    @property
    def places(self) -> Mapping[str, str]:
        """Return the folders of the data and the KB."""
        return {"data": str(self.grid.plan.data.resolve()), "kb": str(self.kb.folder.resolve())}

    def folder_of(self, one: Described | Cell) -> Path:
        """Return the folder of a VLM's stages, or of a cell."""
        return self.out / (CELLS if isinstance(one, Cell) else VLMS) / one.name


def ground_of(
    grid: Grid, out: Path, kb: KnowledgeBase, *, models: ProfileModels | None = None, command: str = ""
) -> Ground:
    """Read the data and open the models that all cells share.  Raises BadInput or MissingWeights; writes nothing."""
    kb.hold()
    questions = asked_in(grid, kb)
    models = models or open_models(grid.base)
    return Ground(grid=grid, out=out, kb=kb, questions=questions, models=models, command=command)


def check_indexed(ground: Ground) -> None:
    """Raise BadInput or CorruptArtifact if the KB is not ready for the models that all cells share."""
    load_vectors(ground.kb, ground.models.encoders.text.space)
    matcher = ground.models.matcher
    matcher_kind(matcher.kind).check_indexed(ground.kb, matcher, ground.grid.base.retrieve.index)


def asked_in(grid: Grid, kb: KnowledgeBase) -> Questions:
    """Return the mentions of all cells, with their right answers.  Raises BadInput."""
    plan = grid.plan
    return questions_of(
        read_benchmark(plan.data, plan.dataset),
        plan.split,
        kb,
        drop=plan.drop_leaked,
        outside=plan.gold_outside,
        limit=plan.limit,
    )


def is_finished(out: Path, cell: Cell) -> bool:
    """Return whether the cell has its evaluation and every stage before it; bytes are checked when they are used."""
    folder = out / CELLS / cell.name
    stages = [RETRIEVE]
    stages += [GENERATE] if cell.described.vlm.settings else []
    stages += [RERANK] if cell.llm.settings else []
    whole = all((folder / stage).is_dir() for stage in stages)
    return whole and (folder / STAGE / MANIFEST).is_file()


# --- up to retrieval ------------------------------------------------------------------------------------------------


def describe(ground: Ground, described: Described) -> None:
    """Let the VLM describe every mention, and find candidates with that.  Raises LocalmelError."""
    folder = ground.folder_of(described)
    settings = described.profile.generate
    if described.vlm.settings is not None and not (folder / GENERATE).is_dir():
        own = ground.out / VLMS / described.vlm.label
        if not (own / GENERATE).is_dir():
            with open_model(settings.model) as engine:
                generate_stage(ground.mentions, settings, engine, own, command=ground.command)
        if own != folder:
            _link(folder / GENERATE, own / GENERATE)
    if not (folder / RETRIEVE).is_dir():
        plan = ground.grid.plan
        retrieve_stage(
            ground.mentions,
            Asked(splits=(plan.split,), dataset=ground.questions.dataset, limit=plan.limit),
            ground.kb,
            described.profile,
            folder,
            models=ground.models,
            without_triples=described.without_triples,
            command=ground.command,
        )


def finish(ground: Ground, cell: Cell) -> None:
    """Let the LLM choose, and evaluate the result; finished stages are kept.  Raises LocalmelError."""
    folder, shared = ground.folder_of(cell), ground.folder_of(cell.described)
    for stage in (GENERATE, RETRIEVE):
        if (shared / stage).is_dir():
            _link(folder / stage, shared / stage)
    settings = cell.profile.rerank
    if cell.llm.settings is not None and not (folder / RERANK).is_dir():
        with open_model(settings.model) as engine:
            rerank_stage(folder, ground.kb, ground.models.encoders.text, engine, settings, command=ground.command)
    plan = ground.grid.plan
    run = ModelRun(
        folder=folder,
        questions=ground.questions,
        k=settings.most_candidates,
        profile=profile_json(cell.profile),
        limit=plan.limit,
        drop_leaked=plan.drop_leaked,
        gold_outside=plan.gold_outside,
        nil_from=settings.nil_from,
    )
    evaluate_model_run(run, ground.kb, places=ground.places, command=ground.command)
    (folder / FAILED).unlink(missing_ok=True)


def _link(at: Path, to: Path) -> None:
    """Make a relative link, so that a grid can be moved; the same link may exist already."""
    wanted = os.path.relpath(to, at.parent)
    with failed_writes_are_reported(at):
        at.parent.mkdir(parents=True, exist_ok=True)
        if at.is_symlink() and os.readlink(at) != wanted:  # noqa: PTH115 - the text of the link, not its target
            at.unlink()
        if not at.is_symlink() and not at.exists():
            at.symlink_to(wanted, target_is_directory=True)


# --- what went wrong ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The reason why a cell is not finished."""

    fact: str
    hint: str
    exit_code: int

    def to_json(self) -> Json:
        return {"error": self.fact, "hint": self.hint, "exit_code": self.exit_code}


def failure_of(error: Exception, *, stage: str = "") -> Failure:
    """Put an error into words; an unexpected one also with its type."""
    if isinstance(error, LocalmelError):
        return Failure(fact=f"{stage}{error.fact}", hint=error.hint, exit_code=error.exit_code)
    fact = f"{stage}{type(error).__name__}: {error}"
    return Failure(fact=fact, hint="run the same command again", exit_code=LocalmelError.exit_code)


def note_failure(ground: Ground, cell: Cell, failure: Failure) -> None:
    """Note a failure in the folder of the cell; the next run tries again."""
    progress.note(f"{cell.name} failed: {failure.fact}")
    folder = ground.folder_of(cell)
    with failed_writes_are_reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FAILED, failure.to_json())


def noted_failure_in(folder: Path) -> Failure | None:
    """Read the failure that an earlier run, or another process, noted in the folder of a cell."""
    try:
        found = json.loads((folder / FAILED).read_text(encoding="utf-8"))
        return Failure(fact=str(found["error"]), hint=str(found["hint"]), exit_code=int(found["exit_code"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refuse_grids(folders: Sequence[Path]) -> None:
    """Raise BadInput for a folder that is a grid instead of a run, with the command that compares its runs."""
    for folder in folders:
        if (folder / FILE).is_file() and not (folder / STAGE).is_dir():
            finished = sorted(path.parent.parent for path in (folder / CELLS).glob(f"*/{STAGE}/{MANIFEST}"))
            hint = shell_line("localmel compare", *finished) if len(finished) > 1 else "localmel compare --help"
            raise BadInput(f"{folder} is a grid, not a run; its runs are in {folder / CELLS}/", hint=hint)
