"""The grid form of `localmel compare`: options -> a grid, its estimate, or its runs and their comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from localmel.cli.command_line import command_line
from localmel.cli.output import print_json, print_note, print_table, progress_bar
from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.grid.plan import Grid


def grid_of(
    vlms: Sequence[str],
    llms: Sequence[str],
    datasets: Sequence[str],
    data: Path | None,
    kb: str | None,
    out: Path | None,
    given: Mapping[str, Any],
    examples: int,
) -> tuple[Grid, Path]:
    """What is asked for, and the folder it goes to.  Raises UsageError for what is missing or does not fit."""
    from localmel.grid.plan import GridPlan, planned

    for option, value in (("--data", data), ("--kb", kb), ("--out", out)):
        if value is None:
            raise UsageError(f"a grid of models needs {option}", hint="--data DATA --kb KB --out FOLDER")
    assert data is not None
    assert kb is not None
    assert out is not None
    if len(datasets) > 1:
        raise UsageError(f"a grid has one dataset, not {len(datasets)}", hint=f"--dataset {datasets[0]}")
    if given.get("limit") == 0:
        raise UsageError("--limit 0 leaves no mention to ask about", hint="leave --limit out to take all")
    plan = GridPlan(
        vlms=tuple(vlms),
        llms=tuple(llms),
        data=data,
        kb=kb,
        dataset=datasets[0] if datasets else None,
        examples=examples,
        **given,
    )
    return planned(plan), out


def print_estimate(grid: Grid, out: Path, *, as_json: bool) -> None:
    """What would be run, and what it would take; ends with the exit code of a run that would be refused."""
    from localmel.cli.kb import ensure_starter
    from localmel.grid.estimate import estimate_of
    from localmel.kb.locate import open_kb

    ensure_starter(grid.plan.kb)
    with open_kb(grid.plan.kb) as base:
        found = estimate_of(grid, base, out)
    if as_json:
        print_json(found)
    else:
        rows = [[str(cell) for cell in row] for row in found["table"]]
        print_table(found["head"], rows, title=found["title"])
        for line in found["notes"]:
            print_note(line)
    if found["exit_code"]:
        raise typer.Exit(found["exit_code"])


def run(grid: Grid, out: Path, *, print_found: Callable[[Mapping[str, Any]], None]) -> None:
    """Run the cells, compare those that finished, and end with an error that names the others."""
    from localmel.cli.kb import ensure_starter
    from localmel.grid.run import run_grid
    from localmel.kb.locate import open_kb
    from localmel.runs.compare import HTML

    ensure_starter(grid.plan.kb)
    try:
        with open_kb(grid.plan.kb) as base, progress_bar():
            made = run_grid(grid, base, out, command=command_line())
    except KeyboardInterrupt:
        print_note(f"the same command goes on where this one stopped; finished cells are in {out}")
        raise
    if made.comparison:
        if not made.made and not made.comparison.made:
            print_note(f"nothing to do: {out} holds these {len(made.finished)} cells and their comparison")
        else:
            print_note(f"report: {made.comparison.folder / HTML if made.comparison.folder else out}")
        print_found(made.comparison.json)
    made.raise_for_failures()
