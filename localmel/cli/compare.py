"""`localmel compare RUN...`: compare finished runs and write a report.

With `--vlm` and `--llm` a grid of models is run first: one run for each pair of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.options import AsJson, command_line
from localmel.cli.output import print_json, print_note, print_table, printable, progress_bar
from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.grid.plan import Grid


Runs = Annotated[list[Path] | None, typer.Argument(help="Run folders made by localmel eval --out.")]
Systems = Annotated[
    list[str] | None, typer.Option("--system", help="Compare only this system of each run (repeatable).")
]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", help="Only this dataset (repeatable; a grid takes one).")
]
Data = Annotated[Path | None, typer.Option("--data", help="The benchmark of the runs, or the one a grid is asked.")]
KbOfRuns = Annotated[str | None, typer.Option("--kb", help="Name or path of the KB of the runs or of the grid.")]
Examples = Annotated[
    int, typer.Option("--examples", min=0, help="How many mentions to show on which the systems disagree.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the report; for a grid, for its runs and report/.")]
Vlms = Annotated[
    list[str] | None,
    typer.Option("--vlm", help="Grid: a vision-language model, NAME[,setting=value...], or none (repeatable)."),
]
Llms = Annotated[
    list[str] | None, typer.Option("--llm", help="Grid: a language model that chooses, or none (repeatable).")
]
Split = Annotated[str | None, typer.Option("--split", help="Grid: train, val or test; default val.")]
GridLimit = Annotated[int | None, typer.Option("--limit", help="Grid: take only the first mentions.")]
GridProfile = Annotated[
    str | None, typer.Option("--profile", help="Grid: profile for everything but the models; default qwen.")
]
GridEngine = Annotated[
    str | None, typer.Option("--engine", help="Grid: vllm, transformers, server or scripted; default: the profile's.")
]
GridDevice = Annotated[str | None, typer.Option("--engine-device", help="Grid: auto, cuda or cpu.")]
WithoutTriples = Annotated[
    bool, typer.Option("--without-triples", help="Grid: run each pair without triples as well, to see their worth.")
]
GridDropLeaked = Annotated[bool, typer.Option("--drop-leaked", help="Grid: leave out mentions that are also in train.")]
GoldOutside = Annotated[
    str | None, typer.Option("--gold-outside", help="Grid: golds that are outside the KB, miss or nil.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Grid: only show what would run, and what it would cost.")]


def compare_command(
    runs: Runs = None,
    system: Systems = None,
    dataset: Datasets = None,
    data: Data = None,
    kb: KbOfRuns = None,
    examples: Examples = 200,
    out: Out = None,
    vlm: Vlms = None,
    llm: Llms = None,
    split: Split = None,
    limit: GridLimit = None,
    profile: GridProfile = None,
    engine: GridEngine = None,
    device: GridDevice = None,
    without_triples: WithoutTriples = False,
    drop_leaked: GridDropLeaked = False,
    gold_outside: GoldOutside = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say which system is better and whether the difference is real; with --vlm and --llm, run the models first."""
    own = {
        "split": split,
        "limit": limit,
        "profile": profile,
        "engine": engine,
        "engine_device": device,
        "without_triples": without_triples or None,
        "drop_leaked": drop_leaked or None,
        "gold_outside": gold_outside,
    }
    given = {name: value for name, value in own.items() if value is not None}
    print_found = print_json if as_json else print_comparison
    if not (vlm or llm):
        if given or dry_run:
            name = next(iter(given), "dry_run").replace("_", "-")
            raise UsageError(f"--{name} is for a grid of models", hint="localmel compare --vlm A --vlm B --llm C ...")
        print_found(_compared(runs or [], system, dataset, data, kb, examples, out))
        return
    if runs or system:
        raise UsageError("runs and --system do not go with --vlm and --llm", hint="localmel compare --help")
    grid, folder = _grid_of(vlm or (), llm or (), dataset or (), data, kb, out, given, examples)
    if dry_run:
        _print_estimate(grid, folder, as_json=as_json)
    else:
        _run_grid(grid, folder, print_found=print_found)


def _compared(
    runs: list[Path],
    system: list[str] | None,
    dataset: list[str] | None,
    data: Path | None,
    kb: str | None,
    examples: int,
    out: Path | None,
) -> Mapping[str, Any]:
    from localmel.encode.registry import open_encoder
    from localmel.grid.cells import refuse_grids
    from localmel.runs.compare import HTML, ComparePlan, compare_runs
    from localmel.settings import EncodeSettings

    plan = ComparePlan(
        runs=tuple(runs),
        systems=tuple(dict.fromkeys(system or ())),
        datasets=tuple(dict.fromkeys(dataset or ())),
        data=data,
        kb=kb,
        examples=examples,
    )
    refuse_grids(runs)
    with progress_bar():
        made = compare_runs(plan, open_encoder(EncodeSettings()).text, out=out, command=command_line())
    if out and not made.made:
        print_note(f"nothing to do: {out} already has this comparison")
    elif out:
        print_note(f"report: {out / HTML}")
    return made.json


def _grid_of(
    vlms: Sequence[str],
    llms: Sequence[str],
    datasets: Sequence[str],
    data: Path | None,
    kb: str | None,
    out: Path | None,
    given: Mapping[str, Any],
    examples: int,
) -> tuple[Grid, Path]:
    """Return the grid that was asked for and its folder.  Raises UsageError for missing or wrong options."""
    from localmel.grid.plan import GridPlan, planned

    if data is None or kb is None or out is None:
        missing = next(option for option, value in (("--data", data), ("--kb", kb), ("--out", out)) if value is None)
        raise UsageError(f"a grid of models needs {missing}", hint="--data DATA --kb KB --out FOLDER")
    if len(datasets) > 1:
        raise UsageError(f"a grid takes one dataset, not {len(datasets)}", hint=f"--dataset {datasets[0]}")
    if given.get("limit") == 0:
        raise UsageError("--limit 0 leaves no mention to ask about", hint="leave out --limit to take all")
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


def _print_estimate(grid: Grid, out: Path, *, as_json: bool) -> None:
    """Print what would run and what it would cost; exit as the run would if it would be refused."""
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


def _run_grid(grid: Grid, out: Path, *, print_found: Callable[[Mapping[str, Any]], None]) -> None:
    """Run the cells, compare those that finished, and raise an error that names the others."""
    from localmel.cli.kb import ensure_starter
    from localmel.grid.run import run_grid
    from localmel.kb.locate import open_kb
    from localmel.runs.compare import HTML

    ensure_starter(grid.plan.kb)
    try:
        with open_kb(grid.plan.kb) as base, progress_bar():
            made = run_grid(grid, base, out, command=command_line())
    except KeyboardInterrupt:
        print_note(f"run the same command to resume; finished cells are in {out}")
        raise
    if made.comparison:
        if not made.made and not made.comparison.made:
            print_note(f"nothing to do: {out} already has these {len(made.finished)} cells and their comparison")
        else:
            print_note(f"report: {made.comparison.folder / HTML if made.comparison.folder else out}")
        print_found(made.comparison.json)
    made.raise_for_failures()


def print_comparison(found: Mapping[str, Any]) -> None:
    """Print the summary, then the systems and the pairs of each dataset."""
    for line in found["summary"]:
        print(printable(line))
    for name, one in found["datasets"].items():
        metrics = ["hits@1", "mrr", f"recall@{found['method']['k']}", "accuracy", "nil_f1", "ece"]
        systems = [
            [key, *(_estimate(values.get(metric)) for metric in metrics)] for key, values in one["systems"].items()
        ]
        print_table(["system", *metrics], systems, title=f"{name}: {one['n']:,} mentions")
        pairs = [
            [
                f"{pair['first']} − {pair['second']}",
                f"{pair['better']} is better" if pair["better"] else "not significant",
                _estimate(pair["hits@1"], sign="+"),
                _number(pair["smallest_difference"]),
                f"{pair['mcnemar_p_holm']:.3g}",
                f"{pair['bootstrap_p_holm']:.3g}",
            ]
            for pair in one["pairs"]
        ]
        print_table(["pair", "verdict", "HITS@1", "smallest detectable", "p, McNemar", "p, bootstrap"], pairs)
    for line in found["notes"]:
        print_note(line)


def _estimate(one: Mapping[str, Any] | None, *, sign: str = "") -> str:
    if one is None:
        return "–"
    value = format(one["value"], f"{sign}.3f")
    return value if one["low"] is None else f"{value} [{one['low']:{sign}.3f}, {one['high']:{sign}.3f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
