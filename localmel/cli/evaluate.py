"""`localmel eval`: systems on a split of a benchmark, or a run of models -> a report by the strict protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.command_line import command_line
from localmel.cli.output import print_json, print_note, progress_bar
from localmel.errors import UnknownChoice, UsageError

if TYPE_CHECKING:
    from localmel.runs.evaluate import Report
    from localmel.runs.evaluate_systems import Plan


_OF_A_RUN = ("data", "kb", "run", "k", "drop_leaked", "gold_outside", "as_json")
"Options that go with --run; all others stand in the run."


def eval_command(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="A benchmark: MIMIC's or KGMEL's layout, or NAME-val.jsonl.")],
    kb: Annotated[str, typer.Option("--kb", help="Name or path of the KB that the golds are in.")],
    run: Annotated[
        str, typer.Option("--run", help="Evaluate what a run of generate, retrieve and rerank has answered.")
    ] = "",
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Only this dataset of the folder (repeatable; each by itself)."),
    ] = None,
    profile: Annotated[str, typer.Option("--profile", help="Which models do the work.")] = "embedded",
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system", help="linker, fused, matcher, zero-shot, names (repeatable; compared with the first)."
        ),
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", help="Folder of a fusion network, in place of the profile's.")
    ] = None,
    matcher: Annotated[
        Path | None, typer.Option("--matcher", help="Folder of a trained matcher: to be evaluated, or to find by.")
    ] = None,
    scorer: Annotated[
        Path | None, typer.Option("--scorer", help="Folder of an evidence scorer, in place of the profile's.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="Withhold names, counts, triples, text, gate or image (repeatable)."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many candidates an answer is chosen from.")] = 16,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", help="strict; paper: also counted as published; fuzzy100: also over 100 candidates by name."
        ),
    ] = "strict",
    drop_leaked: Annotated[
        bool, typer.Option("--drop-leaked", help="Leave out mentions that stand in train too, and say how many.")
    ] = False,
    gold_outside: Annotated[
        str | None, typer.Option("--gold-outside", help="Golds that the KB lacks: miss or nil.  Refused without it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; report and rankings go to OUT/evaluate.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False,
) -> None:
    """Evaluate the linker, or parts of it, on a benchmark; with --run a run of models."""
    from localmel.runs.evaluate_systems import Plan

    if run:
        _refuse_other_options(context)
        _print(*_run_evaluated(run, data, kb, k, drop_leaked, gold_outside), as_json=as_json)
        return
    if protocol not in (known := ("strict", "paper", "fuzzy100")):
        raise UnknownChoice("protocol", protocol, known, option="--protocol")
    plan = Plan(
        data=data,
        datasets=tuple(dataset or ()),
        split=split,
        systems=tuple(dict.fromkeys(system or ["linker"])),
        profile=profile,
        network=network,
        matcher=matcher,
        scorer=scorer,
        without=tuple(dict.fromkeys(without or ())),
        k=k,
        paper=protocol == "paper",
        fuzzy=protocol == "fuzzy100",
        drop_leaked=drop_leaked,
        gold_outside=gold_outside or "refuse",  # type: ignore[arg-type]  # the plan says what else there is
    )
    _print(_evaluated(plan, kb, out), out, as_json=as_json)


def _print(report: Report, folder: Path | None, *, as_json: bool) -> None:
    if not report.made:
        print_note(f"nothing to do: {folder} holds this evaluation")
    print_json(report.json) if as_json else print(report.markdown, end="")


def _refuse_other_options(context: typer.Context) -> None:
    """Raise UsageError where something was typed that the run has decided."""
    typed = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in _OF_A_RUN and str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    ]
    if typed:
        fact = f"{', '.join(typed)} cannot be chosen for a run that has answered"
        raise UsageError(fact, hint="localmel eval DATA --kb KB --run RUN")


def _run_evaluated(
    run: str, data: Path, kb: str, k: int, drop_leaked: bool, gold_outside: str | None
) -> tuple[Report, Path]:
    from localmel.kb.locate import open_kb
    from localmel.runs.evaluate_run import evaluate_run
    from localmel.runs.folder import run_folder

    folder = run_folder(run)
    with open_kb(kb) as base:
        report = evaluate_run(
            folder, data, base, k=k, drop_leaked=drop_leaked,
            gold_outside=gold_outside or "refuse",  # type: ignore[arg-type]  # it says what else there is
            command=command_line(),
        )  # fmt: skip
    return report, folder / "evaluate"


def _evaluated(plan: Plan, kb: str, out: Path | None) -> Report:
    from localmel.cli.kb import ensure_starter
    from localmel.encode.registry import open_encoder
    from localmel.kb.locate import open_kb
    from localmel.runs.evaluate_systems import evaluate_systems
    from localmel.settings import load_profile

    ensure_starter(kb)
    profile = load_profile(plan.profile)
    encoders = open_encoder(profile.encode)
    with open_kb(kb) as base, progress_bar():
        return evaluate_systems(
            plan,
            base,
            encoders,
            out=out,
            command=command_line(),
        )
