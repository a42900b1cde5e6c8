"""A comparison as one HTML file: summary, figures, tables, the mentions systems disagree about, method and hashes.

In: a ComparisonReport.  Out: a page that reads on a phone, in the dark, by keyboard and aloud, and needs no network.
Knows nothing of how the numbers came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from localmel.evaluate.comparison import ComparedDataset, Disagreement, SystemAnswer
from localmel.records import EntityId
from localmel.report.comparison import ComparisonReport, ShownEntity, ShownMention
from localmel.report.comparison_sentences import method_in_words, summary_of, warnings_of
from localmel.report.comparison_tables import (
    Table,
    costs_table,
    made_from_tables,
    pairs_table,
    position_table,
    slices_table,
    systems_table,
    triples_table,
)
from localmel.report.html.figures import Drawing, cost_scatter, forest, reliability, slices
from localmel.report.html.page import render, trusted
from localmel.report.html.svg import Styles

_MOST_CANDIDATES = 5
_MOST_TRIPLES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _DatasetPart:
    """One dataset on the page."""

    name: str
    key: str
    facts: str
    systems: Table
    pairs: Table
    slices: Table
    differences: dict[str, Any]
    figures: list[dict[str, Any]]
    slice_figure: dict[str, Any] | None


def comparison_page(report: ComparisonReport) -> str:
    """The page."""
    styles = Styles()
    datasets = [_dataset(one, number, report, styles) for number, one in enumerate(report.compared.datasets)]
    head, *rest = summary_of(report.compared)
    warnings = warnings_of(report.compared)
    more = [found for found in (triples_table(report), position_table(report)) if found]
    slice_names = list(dict.fromkeys(name for one in report.compared.datasets for name in (s.name for s in one.slices)))
    values = {
        "title": f"Comparison of {len(report.systems)} systems",
        "kicker": f"{', '.join(one.dataset for one in report.compared.datasets)}, {report.inputs.get('split', '')}",
        "head": head,
        "rest": rest,
        "datasets": datasets,
        "costs": costs_table(report),
        "more": more,
        "systems": list(report.systems),
        "slice_names": [name for name in slice_names if any(name in one.slices for one in report.mentions.values())],
        "cases": [_case(one, report, slice_names) for one in report.examples],
        "n_disagreements": sum(report.n_disagreements.values()),
        "n_mentions": sum(one.n for one in report.compared.datasets),
        "warnings": warnings,
        "notes": [line for line in report.notes if line not in warnings],
        "method": method_in_words(report.compared),
        "made_from": made_from_tables(report),
        "commands": [(name, one.command) for name, one in report.systems.items() if one.command],
    }
    return render("comparison.html.j2", values, styles, script="browse.js")


def _dataset(one: ComparedDataset, number: int, report: ComparisonReport, styles: Styles) -> _DatasetPart:
    key = f"d{number}"
    costs = {name: found.costs for name, found in report.systems.items()}
    drawn = [
        cost_scatter(one, costs, f"{key}-costs", styles),
        reliability(one, f"{key}-reliability", styles),
    ]
    sliced = slices(one, f"{key}-slices", styles)
    nil = f", {one.n_nil:,} are NIL" if one.n_nil else ""
    return _DatasetPart(
        name=one.dataset,
        key=key,
        facts=f"{one.n:,} mentions in {one.n_sentences:,} sentences; the gold of {one.n_in_kb:,} is in the KB{nil}. "
        f"The systems disagree on {report.n_disagreements.get(one.dataset, 0):,}.",
        systems=systems_table(one, report.compared.settings.k),
        pairs=pairs_table(one, report),
        slices=slices_table(one),
        differences=_figure(forest(one, f"{key}-pairs", styles)),
        figures=[_figure(drawing) for drawing in drawn if drawing],
        slice_figure=_figure(sliced) if sliced else None,
    )


def _figure(drawing: Drawing) -> dict[str, Any]:
    return {
        "title": drawing.caption,
        "wide": trusted(drawing.wide),
        "narrow": trusted(drawing.narrow),
    }


# --- the mentions about which systems disagree ----------------------------------------------------------------------


def _case(one: Disagreement, report: ComparisonReport, slice_names: list[str]) -> dict[str, Any]:
    mention = report.mentions.get((one.dataset, one.mention_id))
    calibrated = next(found.reliability for found in report.compared.datasets if found.dataset == one.dataset)
    answers = [_answer(name, given, one, report, calibrated=name in calibrated) for name, given in one.answers.items()]
    places = {name: number for number, name in enumerate(slice_names)}
    return {
        "dataset": one.dataset,
        "id": one.mention_id,
        "mention": mention or ShownMention(before="", surface="", after=""),
        "gold": _entity(one.gold, report),
        "answers": answers,
        "right": " ".join(str(number) for number, given in enumerate(one.answers.values()) if given.is_right),
        "wrong": " ".join(str(number) for number, given in enumerate(one.answers.values()) if not given.is_right),
        "slices": " ".join(str(places[name]) for name in mention.slices) if mention else "",
    }


def _answer(
    name: str, given: SystemAnswer, one: Disagreement, report: ComparisonReport, *, calibrated: bool
) -> dict[str, Any]:
    outcome = given.outcome
    triples = given.details.triples
    return {
        "system": name,
        "right": given.is_right,
        "entity": _entity(outcome.predicted, report),
        "sure": f"{outcome.probability:.2f}" if calibrated else f"{outcome.probability:.2f} (score)",
        "rank": _rank(given),
        "candidates": [
            {
                "entity": _entity(candidate.entity_id, report),
                "score": f"{candidate.score:.3f}",
                "gold": candidate.entity_id == one.gold,
            }
            for candidate in given.candidates[:_MOST_CANDIDATES]
        ],
        "triples": None if triples is None else [(triple.phrase, triple.source) for triple in triples[:_MOST_TRIPLES]],
    }


def _rank(given: SystemAnswer) -> str:
    outcome = given.outcome
    if outcome.gold is None:
        return "–"
    if not outcome.among_candidates:
        return "no candidate"
    return f"{outcome.rank:g}"


def _entity(entity: EntityId | None, report: ComparisonReport) -> ShownEntity:
    if entity is None:
        return ShownEntity(id="", label="NIL", description="not in the KB")
    return report.entities.get(entity, ShownEntity(id=entity, label=""))
