"""`localmel eval`: systems on a split of a benchmark -> a report by the strict protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.output import print_json, print_note, progress
from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.experiment.evaluation import Plan, Report


def eval_command(
    data: Annotated[Path, typer.Argument(help="A benchmark: MIMIC's or KGMEL's layout, or NAME-val.jsonl.")],
    kb: Annotated[str, typer.Option("--kb", help="Name or path of the KB that the golds are in.")],
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
    """Evaluate the linker, or parts of it, on a benchmark."""
    from localmel.experiment.evaluation import Plan

    if protocol not in ("strict", "paper", "fuzzy100"):
        raise UsageError(f"there is no protocol {protocol!r}; there are strict, paper and fuzzy100")
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
    report = _evaluated(plan, kb, out)
    if not report.made:
        print_note(f"nothing to do: {out} holds this evaluation")
    print_json(report.json) if as_json else print(report.markdown, end="")


def _evaluated(plan: Plan, kb: str, out: Path | None) -> Report:
    import shlex
    import sys

    from localmel.cli.kb import ensure_starter
    from localmel.encode.open import open_encoder
    from localmel.experiment.evaluation import evaluate_systems
    from localmel.kb.places import open_kb
    from localmel.retrieve.matchers.kinds import KGMEL
    from localmel.retrieve.matchers.token_encoders import open_token_encoders
    from localmel.settings import load_profile

    ensure_starter(kb)
    command = shlex.join(["localmel", *sys.argv[1:]])
    profile = load_profile(plan.profile)
    by_matcher = plan.matcher is not None or profile.retrieve.matcher != KGMEL
    tokens = open_token_encoders(profile.encode) if by_matcher else None
    encoders = tokens or open_encoder(profile.encode)
    with open_kb(kb) as base, progress() as (announce, advance):
        return evaluate_systems(
            plan,
            base,
            encoders.text,
            images=encoders.image,
            tokens=tokens,
            out=out,
            command=command,
            on_total=announce,
            on_done=advance,
        )
