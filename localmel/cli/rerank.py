"""`localmel rerank`: let a language model choose among the candidates of a run, and report what it gained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.options import (
    Again,
    AllowRemote,
    AsJson,
    AtOnce,
    Device,
    EngineName,
    Quantization,
    RunName,
    Url,
    Weights,
    command_line,
    given,
    model_options,
    with_options,
)
from localmel.cli.output import counted, print_json, print_note, print_table, printable, progress_bar
from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.runs.folder import Stage
    from localmel.settings import Profile


Json = dict[str, Any]
_COUNTS = {
    "mentions": "mentions",
    "asked": "the model was asked about",
    "skipped": "skipped because the scorer was sure",
    "failed_open": "no answer, order of retrieval kept",
    "without_candidates": "without candidates",
    "nil": "answered NIL",
    "requests": "requests",
    "answers_now": "of these, answered now",
    "problems": "problems",
    "prompt_tokens": "prompt tokens",
    "prompt_tokens_per_asked": "per mention asked about",
    "output_tokens": "output tokens",
    "peak_memory_bytes": "peak memory of the model, bytes",
    "seconds": "seconds it took",
}
"Figures in the order in which they are printed, with their headings."

GoldData = Annotated[
    Path | None, typer.Argument(help="The data the run was made from; it supplies the gold, for counting only.")
]
KbOfRun = Annotated[str | None, typer.Option("--kb", help="Name or path of the KB of the run.")]
RerankProfile = Annotated[str, typer.Option("--profile", help="Profile whose language model is asked.")]
Orders = Annotated[
    int | None, typer.Option("--orders", min=1, help="Show the candidates in this many orders and average.")
]
EvidenceFirst = Annotated[
    bool, typer.Option("--evidence-first", help="The model names supporting facts before it chooses.")
]
MostCandidates = Annotated[
    int | None, typer.Option("--candidates", min=1, max=25, help="How many candidates the model chooses from.")
]
RouteFrom = Annotated[
    float | None,
    typer.Option("--route-from", min=0, max=1, help="Do not ask the model when the scorer is at least this sure."),
]
Calibration = Annotated[Path | None, typer.Option("--calibration", help="A file that --fit-calibration wrote.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the shuffled orders.")]
OnlyReport = Annotated[bool, typer.Option("--report", help="Only report on the finished run; no model is opened.")]
Route = Annotated[bool, typer.Option("--route", help="Show what asking only in doubt would cost and gain; needs DATA.")]
FitCalibration = Annotated[
    Path | None, typer.Option("--fit-calibration", help="Fit a calibration on this run (val only) into this file.")
]
Isotonic = Annotated[bool, typer.Option("--isotonic", help="With --fit-calibration: fit an isotonic curve as well.")]


def rerank_command(
    run: RunName,
    data: GoldData = None,
    kb: KbOfRun = None,
    profile: RerankProfile = "paper",
    orders: Orders = None,
    evidence_first: EvidenceFirst = False,
    most_candidates: MostCandidates = None,
    route_from: RouteFrom = None,
    calibration: Calibration = None,
    again: Again = False,
    seed: Seed = None,
    engine: EngineName = None,
    weights: Weights = None,
    quantization: Quantization = None,
    device: Device = None,
    url: Url = None,
    allow_remote: AllowRemote = False,
    at_once: AtOnce = None,
    report: OnlyReport = False,
    route: Route = False,
    fit_calibration: FitCalibration = None,
    isotonic: Isotonic = False,
    as_json: AsJson = False,
) -> None:
    """Let a language model choose among the candidates; run it again to resume after an interruption."""
    from localmel.cli.generate import unanswered_note
    from localmel.runs.folder import run_folder

    if data is None and (route or fit_calibration):
        raise UsageError("--route and --fit-calibration need DATA, which supplies the gold")
    own = {
        "orders": orders,
        "evidence_first": evidence_first or None,
        "most_candidates": most_candidates,
        "route_from": route_from,
        "calibration": str(calibration) if calibration else None,
        "seed": seed,
    }
    model = model_options(engine, weights, quantization, device, url, allow_remote, at_once)
    folder, made = run_folder(run), False
    if not report:
        if kb is None:
            raise UsageError("no KB given: name the KB that the run was made over", hint="--kb KB, or --report")
        stage = _reranked(_profile(profile, own, model), folder, kb, again=again)
        made = stage.made
        if not made:
            print_note(f"nothing to do: {stage.folder} already has the links of this run; no request was sent")
        if failed := stage.manifest["figures"]["failed_open"]:
            print_note(unanswered_note(failed))
    found = report_of(folder, data, made=made, route=route, fit=fit_calibration, isotonic=isotonic)
    print_reranked(found, as_json=as_json)


def _profile(name: str, own: dict[str, Any], model: dict[str, Any]) -> Profile:
    """Return the profile with the given options in place of its settings."""
    from localmel.settings import load_profile

    profile = load_profile(name)
    settings = with_options(profile.rerank, given(own), model, where="rerank")
    if not settings.model.engine or (settings.backend != "llm" and not model):
        fact = f"profile {name!r} asks no model to choose"
        raise UsageError(fact, hint="--profile paper, or --engine and --engine-weights")
    return replace(profile, rerank=replace(settings, backend="llm"))


def _reranked(profile: Profile, folder: Path, kb: str, *, again: bool) -> Stage:
    from localmel.cli.kb import ensure_starter
    from localmel.encode.registry import open_encoder
    from localmel.engines.open import open_model
    from localmel.kb.locate import open_kb
    from localmel.rerank.calibration import load_calibration
    from localmel.runs.folder import journal_of
    from localmel.runs.rerank import RERANK, rerank_stage

    settings = profile.rerank
    calibration = load_calibration(Path(settings.calibration)) if settings.calibration else None
    encoder = open_encoder(profile.encode).text
    ensure_starter(kb)
    try:
        with open_kb(kb) as base, open_model(settings.model) as engine, progress_bar():
            return rerank_stage(
                folder, base, encoder, engine, settings, calibration=calibration, again=again, command=command_line()
            )
    except KeyboardInterrupt:
        print_note(f"run the same command to resume; the answers so far: {journal_of(folder, RERANK)}")
        raise


def report_of(run: Path, data: Path | None, *, made: bool, route: bool, fit: Path | None, isotonic: bool) -> Json:
    """Return everything that is printed, and write the calibration if one is fitted.

    made: whether this command finished the run; a run that was finished before got no answers now."""
    from localmel.runs.rerank_report import fitted_on, gold_of, read_reranked, route_curve, split_of, summary_of

    found = read_reranked(run)
    gold = gold_of(data, found) if data else None
    report = summary_of(found, gold) | {"made": made}
    if not made:
        report |= {"answers_now": 0, "answers_per_second": 0.0, "load_seconds": 0.0}
    if gold is not None and data is not None:
        if route:
            report["route"] = route_curve(found, gold)
        if fit:
            fitted = fitted_on(found, gold, split_of(data, found), isotonic=isotonic)
            fitted.calibration.save(fit)
            report["calibration"] = {"file": str(fit), **fitted.figures}
    return report


def print_reranked(report: Json, *, as_json: bool) -> None:
    """Print the report as JSON or as tables."""
    if as_json:
        print_json(report)
        return
    shown = f"{counted(report['k'], 'candidate')}, {counted(report['orders'], 'order')}"
    print(printable(f"{report['run']}: {report['model']}, {shown}"))
    print_table(("", ""), [(words, f"{report[name]:,}") for name, words in _COUNTS.items()])
    if "before" in report:
        _print_worth(report)
    if report["position_bias"]:
        _print_places(report["position_bias"])
    if "route" in report:
        _print_route(report["route"])
    if "calibration" in report:
        _print_calibration(report["calibration"])


def _print_worth(report: Json) -> None:
    rows = [
        (_title(name), _estimate(report["before"][name]), _estimate(report["after"][name])) for name in report["before"]
    ]
    print_table(("", "retrieval", "reranked"), [(f"recall@{report['k']}", _estimate(report["recall"]), ""), *rows])
    if difference := report["difference"]:
        print(
            f"HITS@1 {_estimate(difference['hits@1'], sign='+')}; corrected {difference['mended']:,}, "
            f"broken {difference['spoiled']:,}, p = {difference['mcnemar_p']:.3g}"
        )


def _print_places(bias: Json) -> None:
    rows = [
        (f"{one['place']}", f"{one['chosen']:.3f} [{one['low']:z.3f}, {one['high']:z.3f}]", f"{one['by_chance']:.3f}")
        for one in bias["places"]
    ]
    print_table(("place", "chosen", "by chance"), rows)
    agreement = "" if bias["agreement"] is None else f"; all orders agree on {bias['agreement']:.1%} of the mentions"
    print(
        f"position bias over {counted(bias['n'], 'mention')}: {bias['moved']:.1%} of the choices would have to change "
        f"place to match chance, p = {bias['p']:.3g}{agreement}"
    )


def _print_route(curve: list[Json]) -> None:
    rows = [
        (
            f"{point['route_from']:g}",
            f"{point['asked']:.1%}",
            f"{point['tokens']:.1%}",
            "–" if point["hits_at_1"] is None else f"{point['hits_at_1']:.3f}",
            f"{point['accuracy']:.3f}",
        )
        for point in curve
    ]
    print_table(("route_from", "asked", "tokens", "HITS@1", "accuracy"), rows)


def _print_calibration(fitted: Json) -> None:
    names = {"before": "raw", "after": "calibrated", "after_held_out": "calibrated, out of fold"}
    rows = [
        (words, *(f"{fitted[name][value]:.3f}" for value in ("ece", "mean_probability", "accuracy")))
        for name, words in names.items()
    ]
    print_table(("answers", "ECE", "mean probability", "accuracy"), rows)
    print(
        printable(
            f"temperature {fitted['temperature']:g}, NIL from {fitted['nil_from']:g}, fitted on "
            f"{counted(fitted['mentions'], 'choice')}; written to {fitted['file']}"
        )
    )


def _title(name: str) -> str:
    from localmel.report.evaluation import metric_title

    return metric_title(name)


def _estimate(one: Json | None, sign: str = "") -> str:
    if one is None:
        return "–"
    value = f"{one['value']:{sign}z.3f}"
    return value if one["low"] is None else f"{value} [{one['low']:{sign}z.3f}, {one['high']:{sign}z.3f}]"
