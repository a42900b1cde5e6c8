"""`localmel compare RUN...`: finished runs side by side -> a verdict, and a report to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from localmel.cli.output import print_json, print_note, print_table, printable, progress


def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders made by localmel eval --out.")],
    system: Annotated[
        list[str] | None, typer.Option("--system", help="Of each run only this system (repeatable).")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="Only this dataset of the runs (repeatable).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The benchmark that was asked: for slices, sentences and pictures.")
    ] = None,
    kb: Annotated[str | None, typer.Option("--kb", help="Name or path of the KB that was asked over.")] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="How many mentions to show on which systems disagree.")
    ] = 200,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for comparison.html, comparison.md and comparison.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False,
) -> None:
    """Say which system is better, and whether the difference is real."""
    import shlex
    import sys

    from localmel.encode.minilm import MiniLM
    from localmel.experiment.comparing import HTML, ComparePlan, compare_runs

    plan = ComparePlan(
        runs=tuple(runs),
        systems=tuple(dict.fromkeys(system or ())),
        datasets=tuple(dict.fromkeys(dataset or ())),
        data=data,
        kb=kb,
        examples=examples,
    )
    command = shlex.join(["localmel", *sys.argv[1:]])
    with progress() as (announce, advance):
        made = compare_runs(plan, MiniLM(), out=out, command=command, on_total=announce, on_done=advance)
    if out and not made.made:
        print_note(f"nothing to do: {out} holds this comparison")
    elif out:
        print_note(f"report: {out / HTML}")
    print_json(made.json) if as_json else _print(made.json)


def _print(found: Mapping[str, Any]) -> None:
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
                f"{pair['better']} is better" if pair["better"] else "not distinguishable",
                _estimate(pair["hits@1"], sign="+"),
                _number(pair["smallest_difference"]),
                f"{pair['mcnemar_p_holm']:.3g}",
                f"{pair['bootstrap_p_holm']:.3g}",
            ]
            for pair in one["pairs"]
        ]
        print_table(["pair", "verdict", "HITS@1", "would show", "p, McNemar", "p, resampled"], pairs)
    for line in found["notes"]:
        print_note(line)


def _estimate(one: Mapping[str, Any] | None, *, sign: str = "") -> str:
    if one is None:
        return "–"
    value = format(one["value"], f"{sign}.3f")
    return value if one["low"] is None else f"{value} [{one['low']:{sign}.3f}, {one['high']:{sign}.3f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
