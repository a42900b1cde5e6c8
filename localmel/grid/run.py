"""Run a grid of models from plan to report: `localmel compare --vlm A --vlm B --llm C --data DATA`.

In: a grid, a KB, a folder.  Out: a run for each cell, and the comparison of those that finished.  The same command
resumes an interrupted or killed grid; a cell that fails is noted with its error and does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from localmel.encode.registry import open_encoder
from localmel.encode.space import TextEncoder
from localmel.errors import BadInput, LocalmelError
from localmel.grid.cells import (
    Failure,
    Ground,
    check_indexed,
    describe,
    failure_of,
    finish,
    ground_of,
    is_finished,
    note_failure,
)
from localmel.grid.frozen import (
    check_frozen,
    check_several,
    facts_of_models,
    frozen_of,
    keep_frozen,
    made_up_notes,
    read_frozen,
)
from localmel.grid.plan import Grid
from localmel.grid.processes import gpus_of, run_on_gpus
from localmel.kb.store import KnowledgeBase
from localmel.retrieve.profile_models import ProfileModels
from localmel.runs.compare import ComparePlan, ComparisonMade, check_packages, compare_runs
from localmel.settings import EncodeSettings
from localmel.store import progress

REPORT = "report"
_LOCK = ".lock"


class CellsFailed(LocalmelError):
    """Some cells of a grid are not finished; the others are, and are kept."""

    def __init__(self, fact: str, *, hint: str, exit_code: int) -> None:
        super().__init__(fact, hint=hint)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridMade:
    """The result of a grid."""

    out: Path
    comparison: ComparisonMade | None
    "None if fewer than two cells finished."
    finished: tuple[str, ...]
    made: tuple[str, ...]
    "The finished cells that this process finished."
    failed: Mapping[str, Failure]

    def raise_for_failures(self) -> None:
        """Raise CellsFailed if a cell is not finished, with the exit code of the first."""
        if not self.failed:
            return
        reasons = "; ".join(f"{name}: {failure.fact}" for name, failure in self.failed.items())
        n_cells = len(self.finished) + len(self.failed)
        first = next(iter(self.failed.values()))
        raise CellsFailed(
            f"{len(self.failed)} of {n_cells} cells failed: {reasons}",
            hint=f"{first.hint}; then the same command goes on" if first.hint else "the same command tries them again",
            exit_code=first.exit_code,
        )


def run_grid(
    grid: Grid,
    kb: KnowledgeBase,
    out: Path,
    *,
    models: ProfileModels | None = None,
    encoder: TextEncoder | None = None,
    gpus: Sequence[str] | None = None,
    command: str = "",
) -> GridMade:
    """Run the cells that are not finished, then compare.

    `models` replace the profile's encoder and network, `encoder` the one that compares generated triples with those of
    the KB (MiniLM).  `gpus` get one process at a time each, by default all of this machine; with fewer than two, all
    work is done here, cell after cell.  Raises before anything is run: UsageError for a single cell, BadInput for data,
    KB or folder that do not fit or have changed since the grid began, MissingWeights and MissingExtra for models that
    cannot be run.  Errors of a cell are not raised, but kept in `failed`."""
    check_packages()
    check_several(grid)
    for note in made_up_notes(grid):
        progress.note(note)
    before = read_frozen(out)
    ground = ground_of(grid, out, kb, models=models, command=command)
    frozen = frozen_of(grid, ground.questions, kb, ground.models)
    if before is not None:
        check_frozen(out, before, frozen, {})
    open_cells = [cell for cell in grid.cells if not is_finished(ground.out, cell)]
    facts = facts_of_models(grid, open_cells)
    if open_cells:
        check_indexed(ground)
    keep_frozen(out, frozen, facts, command)
    with _alone(out):
        failed = _run_all(ground, gpus_of(grid) if gpus is None else gpus)
        finished = [cell.name for cell in grid.cells if cell.name not in failed]
        comparison = (
            _compared(ground, finished, encoder or open_encoder(EncodeSettings()).text) if len(finished) > 1 else None
        )
    opened = {cell.name for cell in open_cells}
    return GridMade(
        out=out,
        comparison=comparison,
        finished=tuple(finished),
        made=tuple(name for name in finished if name in opened),
        failed=failed,
    )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes from working on the same grid."""
    lock = FileLock(out / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"another process is working on {out}", hint="wait until it has ended") from None
    try:
        yield
    finally:
        lock.release()


# --- cell after cell ------------------------------------------------------------------------------------------------


def _run_all(ground: Ground, gpus: Sequence[str]) -> dict[str, Failure]:
    """Run VLM by VLM, so that each is asked once; finished cells are checked.  Returns the failures."""
    failed = run_on_gpus(ground, gpus) if len(gpus) > 1 else {}
    failed |= _run_in_turn(ground, leave=failed)
    return {cell.name: failed[cell.name] for cell in ground.grid.cells if cell.name in failed}


def _run_in_turn(ground: Ground, *, leave: Collection[str]) -> dict[str, Failure]:
    failed: dict[str, Failure] = {}
    described: dict[str, Failure | None] = {}
    cells = [cell for cell in ground.grid.cells if cell.name not in leave]
    for number, cell in enumerate(cells, 1):
        about = cell.described
        finished = is_finished(ground.out, cell)
        if not finished:
            progress.note(f"cell {number} of {len(cells)}: {cell.name}")
            if about.name not in described:
                described[about.name] = _failure_in(partial(describe, ground, about))
        failure = None if finished else described[about.name]
        if failure is None:
            failure = _failure_in(partial(finish, ground, cell))
        if failure is not None:
            failed[cell.name] = failure
            note_failure(ground, cell, failure)
    return failed


def _failure_in(work: Callable[[], None]) -> Failure | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - the other cells do not depend on it, whatever it is
        return failure_of(error)
    return None


def _compared(ground: Ground, finished: Sequence[str], encoder: TextEncoder) -> ComparisonMade:
    plan = ComparePlan(
        runs=tuple(ground.folder_of(cell) for cell in ground.grid.cells if cell.name in finished),
        data=ground.grid.plan.data,
        kb=str(ground.kb.folder.resolve()),
        examples=ground.grid.plan.examples,
    )
    return compare_runs(plan, encoder, out=ground.out / REPORT, over=True, command=ground.command)
