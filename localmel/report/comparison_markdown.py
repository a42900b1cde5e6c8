"""A comparison as a Markdown page: summary, tables, how it was counted, what it is made from.

In: a ComparisonReport.  Out: a string.  The examples are left to the HTML page.  Text of users cannot end a cell or
open a tag."""

from __future__ import annotations

from localmel.report.comparison import ComparisonReport
from localmel.report.comparison_sentences import method_in_words, summary_of
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


def as_markdown(report: ComparisonReport) -> str:
    """The whole page."""
    compared = report.compared
    parts = ["# Comparison", _list(summary_of(compared))]
    for one in compared.datasets:
        nil = f", {one.n_nil:,} are NIL" if one.n_nil else ""
        parts += [
            f"## {plain(one.dataset)}, {plain(report.inputs.get('split', ''))}",
            f"{one.n:,} mentions in {one.n_sentences:,} sentences; the gold of {one.n_in_kb:,} is in the KB{nil}. "
            f"The systems disagree on {report.n_disagreements.get(one.dataset, 0):,}.",
        ]
        for each in (systems_table(one, compared.settings.k), pairs_table(one, report), slices_table(one)):
            parts += table_parts(each, level=3)
    for found in (costs_table(report), triples_table(report), position_table(report)):
        parts += table_parts(found, level=2) if found else []
    if report.notes:
        parts += ["## Notes", _list(report.notes)]
    parts += ["## Method", _list(method_in_words(compared))]
    for found in made_from_tables(report):
        parts += table_parts(found, level=2)
    commands = [f"- {plain(name)}: `{code(one.command)}`" for name, one in report.systems.items() if one.command]
    parts += ["\n".join(commands)] if commands else []
    return "\n\n".join(parts) + "\n"


def table_parts(one: Table, *, level: int) -> list[str]:
    """Heading, explanation, table."""
    lines = [list(map(plain, one.head)), ["---"] * len(one.head), *(list(map(plain, row)) for row in one.rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return [f"{'#' * level} {plain(one.title)}", *([one.words] if one.words else []), body]


def plain(text: str) -> str:
    """One line that Markdown does not read as markup: what could open a tag, a link or a cell is escaped."""
    line = _one_line(text)
    for sign in "\\`*_<>|#":
        line = line.replace(sign, f"\\{sign}")
    return line.replace("](", "]\\(")


def code(text: str) -> str:
    """One line between backticks."""
    return _one_line(text).replace("`", "'")


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() or char.isspace() else "\ufffd" for char in text).split())


def _list(lines: list[str] | tuple[str, ...]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)
