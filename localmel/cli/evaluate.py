"""`localmel eval`: evaluate systems on a split of a benchmark, or a run of models, by the strict protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.options import AsJson, DropLeaked, command_line
from localmel.cli.output import print_json, print_note, progress_bar
from localmel.errors import UnknownChoice, UsageError

if TYPE_CHECKING:
    from localmel.runs.evaluate import Report
    from localmel.runs.evaluate_systems import Plan


_OF_A_RUN = ("data", "kb", "run", "k", "drop_leaked", "gold_outside", "as_json")
"Options that may be given with --run; the run has decided all others."


RunOfModels = Annotated[
    str, typer.Option("--run", help="Evaluate the answers of a run of generate, retrieve and rerank.")
]
Split = Annotated[str, typer.Option("--split", help="train, val or test.")]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", help="Only this dataset of the folder (repeatable; each on its own).")
]
Systems = Annotated[
    list[str] | None,
    typer.Option("--system", help="linker, fused, matcher, zero-shot, names (repeatable; compared with the first)."),
]
NetworkFolder = Annotated[
    Path | None, typer.Option("--network", help="Folder of a fusion network, instead of the profile's.")
]
MatcherFolder = Annotated[
    Path | None, typer.Option("--matcher", help="Folder of a trained matcher to evaluate, and to find candidates by.")
]
ScorerFolder = Annotated[
    Path | None, typer.Option("--scorer", help="Folder of an evidence scorer, instead of the profile's.")
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", help="Ablation: without names, counts, triples, text, gate or image (repeatable)."),
]
K = Annotated[int, typer.Option("--k", min=1, help="How many candidates an answer is chosen from.")]
Protocol = Annotated[
    str,
    typer.Option("--protocol", help="strict; paper: also as published; fuzzy100: also over 100 candidates by name."),
]
GoldOutside = Annotated[
    str | None, typer.Option("--gold-outside", help="Golds outside the KB: miss or nil; by default they are refused.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run; the report goes to OUT/evaluate.")]


def eval_command(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="A benchmark: MIMIC's or KGMEL's layout, or NAME-val.jsonl.")],
    kb: Annotated[str, typer.Option("--kb", help="Name or path of the KB that contains the golds.")],
    run: RunOfModels = "",
    split: Split = "val",
    dataset: Datasets = None,
    profile: Annotated[str, typer.Option("--profile", help="Profile: which models are used.")] = "embedded",
    system: Systems = None,
    network: NetworkFolder = None,
    matcher: MatcherFolder = None,
    scorer: ScorerFolder = None,
    without: Without = None,
    k: K = 16,
    protocol: Protocol = "strict",
    drop_leaked: DropLeaked = False,
    gold_outside: GoldOutside = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the linker or parts of it on a benchmark or, with --run, a finished run of models."""
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
        print_note(f"nothing to do: {folder} already has this evaluation")
    print_json(report.json) if as_json else print(report.markdown, end="")


def _refuse_other_options(context: typer.Context) -> None:
    """Raise UsageError if an option was given that the run has decided already."""
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
        return evaluate_systems(plan, base, encoders, out=out, command=command_line())
