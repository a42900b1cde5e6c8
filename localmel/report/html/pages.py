"""The pages: a comparison with its figures, tables, disagreements, method and hashes; and all runs of a folder.

In: a ComparisonReport or a Leaderboard.  Out: one HTML file each that works on a phone, in dark mode, by keyboard and
with a screen reader, and needs no network.  Knows nothing of how the numbers are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from localmel.evaluate.comparison import ComparedDataset, Disagreement, SystemAnswer
from localmel.records import EntityId
from localmel.report.comparison import ComparisonReport, ShownEntity, ShownMention
from localmel.report.html.figures import Figure, accuracy_against_speed, differences, reliability, slices
from localmel.report.html.render import render, trusted
from localmel.report.leaderboard import REASONS, WORDS, Leaderboard, commands_of, published_table, tables_of
from localmel.report.sentences import method_in_words, summary_of, warnings_of
from localmel.report.tables import (
    Table,
    costs_table,
    facts_of,
    made_from_tables,
    pairs_table,
    position_table,
    slices_table,
    systems_table,
    triples_table,
)

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
    """Return the page of a comparison."""
    datasets = [_dataset(one, number, report) for number, one in enumerate(report.compared.datasets)]
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
    return render("comparison.html.j2", values, script="browse.js")


def _dataset(one: ComparedDataset, number: int, report: ComparisonReport) -> _DatasetPart:
    key = f"d{number}"
    costs = {name: found.costs for name, found in report.systems.items()}
    drawn = [accuracy_against_speed(one, costs, f"{key}-costs"), reliability(one, f"{key}-reliability")]
    sliced = slices(one, f"{key}-slices")
    return _DatasetPart(
        name=one.dataset,
        key=key,
        facts=facts_of(one, report),
        systems=systems_table(one, report.compared.settings.k),
        pairs=pairs_table(one, report),
        slices=slices_table(one),
        differences=_figure(differences(one, f"{key}-pairs")),
        figures=[_figure(figure) for figure in drawn if figure],
        slice_figure=_figure(sliced) if sliced else None,
    )


def _figure(figure: Figure) -> dict[str, Any]:
    return {"title": figure.caption, "wide": trusted(figure.wide), "narrow": trusted(figure.narrow)}


# --- disagreements ------------------------------------------------------------------------------------------------


def _case(one: Disagreement, report: ComparisonReport, slice_names: list[str]) -> dict[str, Any]:
    mention = report.mentions.get((one.dataset, one.mention_id))
    calibrated = next(found.reliability for found in report.compared.datasets if found.dataset == one.dataset)
    answers = [
        _answer(name, answer, one, report, calibrated=name in calibrated) for name, answer in one.answers.items()
    ]
    places = {name: number for number, name in enumerate(slice_names)}
    return {
        "dataset": one.dataset,
        "id": one.mention_id,
        "mention": mention or ShownMention(before="", surface="", after=""),
        "gold": _entity(one.gold, report),
        "answers": answers,
        "right": " ".join(str(number) for number, answer in enumerate(one.answers.values()) if answer.is_right),
        "wrong": " ".join(str(number) for number, answer in enumerate(one.answers.values()) if not answer.is_right),
        "slices": " ".join(str(places[name]) for name in mention.slices) if mention else "",
    }


def _answer(
    name: str, answer: SystemAnswer, one: Disagreement, report: ComparisonReport, *, calibrated: bool
) -> dict[str, Any]:
    outcome = answer.outcome
    triples = answer.details.triples
    return {
        "system": name,
        "right": answer.is_right,
        "entity": _entity(outcome.predicted, report),
        "sure": f"{outcome.probability:.2f}" if calibrated else f"{outcome.probability:.2f} (score)",
        "rank": _rank(answer),
        "candidates": [
            {
                "entity": _entity(candidate.entity_id, report),
                "score": f"{candidate.score:.3f}",
                "gold": candidate.entity_id == one.gold,
            }
            for candidate in answer.candidates[:_MOST_CANDIDATES]
        ],
        "triples": None if triples is None else [(triple.phrase, triple.source) for triple in triples[:_MOST_TRIPLES]],
    }


def _rank(answer: SystemAnswer) -> str:
    outcome = answer.outcome
    if outcome.gold is None:
        return "–"
    if not outcome.among_candidates:
        return "not a candidate"
    return f"{outcome.rank:g}"


def _entity(entity: EntityId | None, report: ComparisonReport) -> ShownEntity:
    if entity is None:
        return ShownEntity(id="", label="NIL", description="not in the KB")
    return report.entities.get(entity, ShownEntity(id=entity, label=""))


# --- all runs ---------------------------------------------------------------------------------------------------------


def leaderboard_page(board: Leaderboard) -> str:
    """Return the page of all runs, without figures and scripts."""
    values = {
        "title": "Runs",
        "kicker": "",
        "tables": tables_of(board),
        "words": WORDS,
        "commands": commands_of(board),
        "unreadable": board.unreadable,
        "published": published_table(),
        "reasons": REASONS,
    }
    return render("leaderboard.html.j2", values)
