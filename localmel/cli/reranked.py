"""What a reranked run was worth, printed: before and after, cost, places, and on demand routing and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localmel.cli.output import counted, print_json, print_table, printable

Json = dict[str, Any]
_COUNTS = {
    "mentions": "mentions",
    "asked": "the model was asked about",
    "skipped": "skipped, the scorer being sure",
    "failed_open": "no answer: order of retrieval kept",
    "without_candidates": "without candidates",
    "nil": "answered NIL",
    "requests": "requests",
    "answers_now": "of these answered now",
    "problems": "problems",
    "prompt_tokens": "prompt tokens",
    "prompt_tokens_per_asked": "per mention asked about",
    "output_tokens": "output tokens",
    "peak_memory_bytes": "peak memory of the model, bytes",
    "seconds": "seconds it took",
}
"Figures in the order and the words in which they are printed."


def report_of(run: Path, data: Path | None, *, made: bool, route: bool, fit: Path | None, isotonic: bool) -> Json:
    """Everything that is printed.  Writes the calibration where one is to be fitted.

    `made`: the run was finished now; of one that was finished before, this command gave no answer."""
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
    """As JSON, or as tables."""
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
            f"HITS@1 {_estimate(difference['hits@1'], sign='+')}; mended {difference['mended']:,}, "
            f"spoiled {difference['spoiled']:,}, p = {difference['mcnemar_p']:.3g}"
        )


def _print_places(bias: Json) -> None:
    rows = [
        (f"{one['place']}", f"{one['chosen']:.3f} [{one['low']:z.3f}, {one['high']:z.3f}]", f"{one['by_chance']:.3f}")
        for one in bias["places"]
    ]
    print_table(("place", "chosen", "by chance"), rows)
    agreement = "" if bias["agreement"] is None else f"; all orders agree on {bias['agreement']:.1%} of the mentions"
    print(
        f"places, over {counted(bias['n'], 'mention')}: {bias['moved']:.1%} of the choices would have to move "
        f"to be even, p = {bias['p']:.3g}{agreement}"
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
    names = {"before": "as the model says", "after": "calibrated", "after_held_out": "calibrated without the mention"}
    rows = [
        (words, *(f"{fitted[name][value]:.3f}" for value in ("ece", "mean_probability", "accuracy")))
        for name, words in names.items()
    ]
    print_table(("answers", "ECE", "mean probability", "right"), rows)
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
