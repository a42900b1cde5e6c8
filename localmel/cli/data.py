"""`localmel data check`: report what is in a benchmark folder and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.options import AsJson
from localmel.cli.output import print_json, print_table, printable
from localmel.errors import BadInput, shell_line

if TYPE_CHECKING:
    from localmel.benchmarks import BenchmarkReport
    from localmel.kb.store import KnowledgeBase

app = typer.Typer(help="Check benchmark data before using it.", no_args_is_help=True, rich_markup_mode=None)

Dataset = Annotated[str | None, typer.Option("--dataset", "--name", help="Which dataset, if the folder has several.")]


@app.callback()
def _common() -> None:
    """Check benchmark data before using it."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A benchmark: MIMIC's or KGMEL's layout, or JSON lines.")],
    dataset: Dataset = None,
    kb: Annotated[str | None, typer.Option("--kb", help="Look up the golds in this KB (name or path).")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 3 if anything was found.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count mentions, missing pictures, unknown golds, repetitions, and mentions that are in two splits."""
    from localmel.benchmarks import check_benchmark, read_benchmark

    report = check_benchmark(read_benchmark(folder, dataset), _opened(kb))
    print_json(report.to_json()) if as_json else print_report(report)
    if strict and report.findings:
        fact = f"{report.name}: {_counted(report)}, and --strict was given"
        raise BadInput(fact, hint=shell_line("localmel data check", folder, note="the same, without --strict"))


def print_report(report: BenchmarkReport) -> None:
    """Print a table of counts, then the findings in sentences."""
    print(printable(f"{report.name}: {report.layout} layout in {report.folder}"))
    rows = [
        (
            split.name,
            f"{split.mentions:,}",
            f"{split.sentences:,}",
            f"{split.nil:,}",
            f"{split.without_image:,}",
            f"{split.image_not_there.count:,}",
            "" if split.gold_outside_kb is None else f"{split.gold_outside_kb.count:,}",
            "" if split.gold_seen_in_train is None else f"{split.gold_seen_in_train:.1%}",
        )
        for split in report.splits
    ]
    headings = (
        "split",
        "mentions",
        "sentences",
        "NIL",
        "no picture",
        "missing file",
        "gold outside KB",
        "gold in train",
    )
    print_table(headings, rows)
    for line in (*(f"note: {note}" for note in report.notes), *report.findings):
        print(printable(line))
    print(_counted(report))


def _counted(report: BenchmarkReport) -> str:
    number = len(report.findings)
    return "nothing found" if not number else "1 finding" if number == 1 else f"{number} findings"


def _opened(kb: str | None) -> KnowledgeBase | None:
    from localmel.cli.kb import ensure_starter
    from localmel.kb.locate import open_kb

    if kb is None:
        return None
    ensure_starter(kb)
    return open_kb(kb)
