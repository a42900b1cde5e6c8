"""`localmel compare RUN...`: finished runs side by side -> a verdict, and a report to look at.

With `--vlm` and `--llm` the runs are made first, one for each pair of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from localmel.cli.command_line import command_line
from localmel.cli.output import print_json, print_note, print_table, printable, progress_bar
from localmel.errors import UsageError


def compare_command(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders made by localmel eval --out.")] = None,
    system: Annotated[
        list[str] | None, typer.Option("--system", help="Of each run only this system (repeatable).")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="Only this dataset (repeatable; a grid has one).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The benchmark that was asked, or that a grid is to be asked.")
    ] = None,
    kb: Annotated[str | None, typer.Option("--kb", help="Name or path of the KB that is asked over.")] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="How many mentions to show on which systems disagree.")
    ] = 200,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report; of a grid, for its runs and report/.")
    ] = None,
    vlm: Annotated[
        list[str] | None,
        typer.Option("--vlm", help="Grid: a vision-language model, NAME[,setting=value...], or none (repeatable)."),
    ] = None,
    llm: Annotated[
        list[str] | None,
        typer.Option("--llm", help="Grid: a language model that chooses, or none (repeatable)."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Grid: train, val or test; else val.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Grid: only the first mentions.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Grid: says everything but which models; else qwen.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="Grid: vllm, transformers, server or scripted, for the profile's.")
    ] = None,
    device: Annotated[str | None, typer.Option("--engine-device", help="Grid: auto, cuda or cpu.")] = None,
    without_triples: Annotated[
        bool,
        typer.Option("--without-triples", help="Grid: each pair also without triples, to see what they are worth."),
    ] = False,
    drop_leaked: Annotated[
        bool, typer.Option("--drop-leaked", help="Grid: leave out mentions that stand in train too.")
    ] = False,
    gold_outside: Annotated[
        str | None, typer.Option("--gold-outside", help="Grid: golds that the KB lacks, miss or nil.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Grid: only show what would be run, and what it would take.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False,
) -> None:
    """Say which system is better, and whether the difference is real; with --vlm and --llm, run the models first."""
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
    from localmel.cli.compare_grid import grid_of, print_estimate, run

    if runs or system:
        raise UsageError("runs and --system do not go with --vlm and --llm", hint="localmel compare --help")
    grid, folder = grid_of(vlm or (), llm or (), dataset or (), data, kb, out, given, examples)
    if dry_run:
        print_estimate(grid, folder, as_json=as_json)
    else:
        run(grid, folder, print_found=print_found)


def _compared(
    runs: list[Path],
    system: list[str] | None,
    dataset: list[str] | None,
    data: Path | None,
    kb: str | None,
    examples: int,
    out: Path | None,
) -> Mapping[str, Any]:
    from localmel.encode.minilm import MiniLM
    from localmel.grid.cells import refuse_grids
    from localmel.runs.compare import HTML, ComparePlan, compare_runs

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
        made = compare_runs(plan, MiniLM(), out=out, command=command_line())
    if out and not made.made:
        print_note(f"nothing to do: {out} holds this comparison")
    elif out:
        print_note(f"report: {out / HTML}")
    return made.json


def print_comparison(found: Mapping[str, Any]) -> None:
    """Summary, then systems and pairs of each dataset."""
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
