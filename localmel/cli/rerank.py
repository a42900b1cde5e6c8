"""`localmel rerank`: the candidates of a run and a language model -> links, and what they are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.command_line import command_line
from localmel.cli.model_arguments import AtOnce, Device, EngineName, Quantization, Url, Weights
from localmel.cli.output import print_note, progress_bar
from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.runs.folder import Stage
    from localmel.settings import Profile


def rerank_command(
    run: Annotated[str, typer.Option("--run", help="Name of the run: runs/NAME here, or a path with a /.")],
    data: Annotated[
        Path | None, typer.Argument(help="What the run was made from; says what is right, and is only counted with.")
    ] = None,
    kb: Annotated[str | None, typer.Option("--kb", help="Name or path of the KB of the run.")] = None,
    profile: Annotated[str, typer.Option("--profile", help="Whose language model is asked.")] = "paper",
    orders: Annotated[
        int | None, typer.Option("--orders", min=1, help="In how many orders candidates are shown, and averaged.")
    ] = None,
    evidence_first: Annotated[
        bool, typer.Option("--evidence-first", help="The model names supporting facts before it chooses.")
    ] = False,
    most_candidates: Annotated[
        int | None, typer.Option("--candidates", min=1, max=25, help="How many the model chooses among.")
    ] = None,
    route_from: Annotated[
        float | None,
        typer.Option("--route-from", min=0, max=1, help="Where the scorer is this sure, the model is not asked."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="File that --fit-calibration wrote.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Of a finished run, ask about the mentions that had no answer once more.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the shuffles.")] = None,
    engine: EngineName = None,
    weights: Weights = None,
    quantization: Quantization = None,
    device: Device = None,
    url: Url = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let pictures and texts leave this machine (engine server).")
    ] = False,
    at_once: AtOnce = None,
    report: Annotated[
        bool, typer.Option("--report", help="Only report on what the run holds; no model is opened.")
    ] = False,
    route: Annotated[
        bool, typer.Option("--route", help="What asking only in doubt would cost and give; wants DATA.")
    ] = False,
    fit_calibration: Annotated[
        Path | None, typer.Option("--fit-calibration", help="Fit on this run (val only), and write to this file.")
    ] = None,
    isotonic: Annotated[bool, typer.Option("--isotonic", help="With --fit-calibration: also a rising curve.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False,
) -> None:
    """Let a language model choose among the candidates; the same command goes on where it was interrupted."""
    from localmel.cli.generate import unanswered_note
    from localmel.cli.reranked import print_reranked, report_of
    from localmel.runs.folder import run_folder

    if data is None and (route or fit_calibration):
        raise UsageError("--route and --fit-calibration want DATA, which says what is right")
    own = {
        "orders": orders,
        "evidence_first": evidence_first or None,
        "most_candidates": most_candidates,
        "route_from": route_from,
        "calibration": str(calibration) if calibration else None,
        "seed": seed,
    }
    model = {
        "engine": engine,
        "weights": weights,
        "quantization": quantization,
        "device": device,
        "url": url,
        "allow_remote": allow_remote or None,
        "at_once": at_once,
    }
    folder, made = run_folder(run), False
    if not report:
        if kb is None:
            raise UsageError("which KB the run was made over is not said", hint="--kb KB, or --report")
        stage = _reranked(_profile(profile, own, model), folder, kb, again=again)
        made = stage.made
        if not made:
            print_note(f"nothing to do: {stage.folder} holds the links of this run; nothing was sent")
        if failed := stage.manifest["figures"]["failed_open"]:
            print_note(unanswered_note(failed))
    found = report_of(folder, data, made=made, route=route, fit=fit_calibration, isotonic=isotonic)
    print_reranked(found, as_json=as_json)


def _profile(name: str, own: dict[str, Any], model: dict[str, Any]) -> Profile:
    """The profile, with what the options say in its place; checked as a profile is."""
    from localmel.cli.engine_options import check_url, given, with_options
    from localmel.settings import load_profile

    profile = load_profile(name)
    own, model = given(own), given(model)
    settings = with_options(profile.rerank, own, model, where="rerank")
    if not settings.model.engine or (settings.backend != "llm" and not model):
        fact = f"profile {name!r} asks no model to choose"
        raise UsageError(fact, hint="--profile paper, or --engine and --engine-weights")
    check_url(settings, model)
    return replace(profile, rerank=replace(settings, backend="llm"))


def _reranked(profile: Profile, folder: Path, kb: str, *, again: bool) -> Stage:
    from localmel.cli.kb import ensure_starter
    from localmel.encode.registry import open_encoder
    from localmel.kb.locate import open_kb
    from localmel.rerank.calibration import load_calibration
    from localmel.runs.folder import journal_of
    from localmel.runs.rerank import RERANK, rerank_stage
    from localmel.weights.open import open_model

    settings = profile.rerank
    calibration = load_calibration(Path(settings.calibration)) if settings.calibration else None
    encoder = open_encoder(profile.encode).text
    ensure_starter(kb)
    try:
        with open_kb(kb) as base, open_model(settings.model) as engine, progress_bar():
            return rerank_stage(
                folder,
                base,
                encoder,
                engine,
                settings,
                calibration=calibration,
                again=again,
                command=command_line(),
            )
    except KeyboardInterrupt:
        print_note(f"the same command goes on where this one stopped; its answers: {journal_of(folder, RERANK)}")
        raise
