"""The tables of a comparison, the same for Markdown, the page and the terminal; and Markdown itself.

In: a ComparisonReport.  Out: Tables of plain text, and a Markdown page.  A missing number is a dash.  Tables escape
nothing; the Markdown is escaped, so that no text can end a cell or open a tag."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from localmel.evaluate.answer_details import Costs
from localmel.evaluate.comparison import ComparedDataset
from localmel.evaluate.resamples import Estimate
from localmel.report.comparison import ComparisonReport
from localmel.report.sentences import method_in_words, p_value, signed, summary_of, verdict_of

DASH = "–"
METRICS = {
    "hits@1": "HITS@1",
    "hits@3": "HITS@3",
    "mrr": "MRR",
    "recall": "recall@K",
    "accuracy": "accuracy",
    "nil_f1": "NIL F1",
    "nil_auroc": "NIL AUROC",
    "ece": "ECE",
}
"Metric -> its heading in the table of systems."
COST_TITLES = (
    "mentions/s",
    "prompt tokens",
    "image tokens",
    "output tokens",
    "first token, s",
    "peak memory",
    "unparsed",
    "failed open",
    "retried",
)
_PAIR_HEAD = (
    "pair",
    "verdict",
    "HITS@1",
    "smallest detectable",
    "only one correct",
    "p, McNemar",
    "p, bootstrap",
    "MRR",
    "accuracy",
    "setups differ in",
)
_TRIPLE_HEAD = (
    "system",
    "dataset",
    "triples",
    "precision",
    "recall",
    "near precision",
    "near recall",
    "near by chance",
    "unknown",
    "sources",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under a heading; the first cell of a row is its name."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: str = ""
    "What a reader must know to understand it."


def systems_table(one: ComparedDataset, k: int) -> Table:
    """List each system with its metrics, except those that no system has."""
    names = {f"recall@{k}" if name == "recall" else name: title for name, title in METRICS.items()}
    shown = {name: title for name, title in names.items() if any(name in found for found in one.metrics.values())}
    rows = [(name, *(_cell(one.metrics[name].get(metric)) for metric in shown)) for name in one.systems]
    head = ("system", *(title.replace("@K", f"@{k}") for title in shown.values()))
    return Table(title="Systems", head=head, rows=tuple(rows))


def pairs_table(one: ComparedDataset, report: ComparisonReport) -> Table:
    """List every pair of systems with its tests."""
    rows = []
    for test in one.pairs:
        differs = "; ".join(report.differs.get((test.first, test.second), ())) or "nothing recorded"
        rows.append(
            (
                f"{test.first} − {test.second}",
                verdict_of(test),
                signed(test.hits_at_1),
                DASH if test.smallest is None else f"{test.smallest:.3f}",
                f"{test.only_first:,} : {test.only_second:,}",
                p_value(test.mcnemar_corrected),
                p_value(test.bootstrap_corrected),
                signed(test.mrr),
                signed(test.accuracy),
                differs,
            )
        )
    return Table(
        title="Differences",
        head=_PAIR_HEAD,
        rows=tuple(rows),
        words="First minus second. Only one correct: mentions that only the first, and only the second, ranks "
        "correctly at 1. p-values are corrected by Holm over all pairs of this report.",
    )


def slices_table(one: ComparedDataset) -> Table:
    """List each slice with the metric of each system, then its difference from the leader."""
    others = [name for name in one.systems if name != one.leader]
    rows = [
        (
            found.name,
            f"{found.n:,}",
            METRICS[found.metric],
            *(_cell(found.values.get(name)) for name in one.systems),
            *(signed(found.differences[name]) if name in found.differences else DASH for name in others),
        )
        for found in one.slices
    ]
    return Table(
        title="Slices",
        head=("slice", "mentions", "metric", *one.systems, *(f"{name} − {one.leader}" for name in others)),
        rows=tuple(rows),
        words="HITS@1 over mentions whose gold is in the KB; accuracy where there are none. For exploration: "
        "the intervals are not corrected for the number of slices.",
    )


def costs_table(report: ComparisonReport) -> Table:
    """List what each system costs; columns that no run records are named below instead."""
    stars = any(one.costs.whole_run for one in report.systems.values())
    cells = {name: cost_cells(one.costs) for name, one in report.systems.items()}
    recorded = [place for place in range(len(COST_TITLES)) if any(found[place] != DASH for found in cells.values())]
    missing = [title for place, title in enumerate(COST_TITLES) if place not in recorded]
    words = ["Tokens are means per mention, the time to the first token is a median."] if len(recorded) > 1 else []
    words += ["* From the time of the whole run, loading included."] if stars else []
    words += [f"Recorded by no run: {', '.join(missing)}."] if missing else []
    return Table(
        title="Costs",
        head=("system", *(COST_TITLES[place] for place in recorded)),
        rows=tuple((name, *(found[place] for place in recorded)) for name, found in cells.items()),
        words=" ".join(words),
    )


def cost_cells(costs: Costs) -> list[str]:
    """Return one text for each of COST_TITLES.  A speed with a star is that of the whole run."""
    speed = costs.mentions_per_second
    tokens = (costs.prompt_tokens, costs.image_tokens, costs.output_tokens)
    return [
        DASH if speed is None else f"{speed:,.3g}{'*' if costs.whole_run else ''}",
        *(DASH if one is None else f"{one:,.1f}" for one in tokens),
        DASH if costs.first_token_seconds is None else f"{costs.first_token_seconds:.3g}",
        DASH if costs.peak_memory_bytes is None else size_in_words(costs.peak_memory_bytes),
        *(DASH if one is None else f"{one:.1%}" for one in (costs.unparsed, costs.failed_open, costs.retried)),
    ]


def size_in_words(n_bytes: int) -> str:
    """Format a size as `512 MiB` or `15.3 GiB`."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def triples_table(report: ComparisonReport) -> Table | None:
    """Rate the generated triples; None where no run recorded any."""
    found = [(name, dataset, one) for name, system in report.systems.items() for dataset, one in system.triples.items()]
    if not found:
        return None
    rows = [
        (
            name,
            dataset,
            f"{one.n_said:,}",
            *(_cell(share) for share in (one.precision, one.recall, one.near_precision, one.near_recall)),
            DASH if one.by_chance is None else f"{one.by_chance:.3f}",
            _cell(one.unknown),
            "; ".join(f"{source} {n:,} ({share:.3f})" for source, (n, share) in one.by_source.items()) or DASH,
        )
        for name, dataset, one in found
    ]
    return Table(
        title="Generated triples",
        head=_TRIPLE_HEAD,
        rows=tuple(rows),
        words="Compared with the KB's triples of the gold entity: word for word, and \u201cnear\u201d where the cosine "
        f"of the phrases is at least {found[0][2].threshold}. Unknown: nothing similar in the KB; such triples may be "
        "right. By chance: near precision against the gold of another mention. Sources: number of triples, and their "
        "near precision.",
    )


def position_table(report: ComparisonReport) -> Table | None:
    """Show whether rerankers prefer the first place; None where no run recorded the order of its candidates."""
    rows = [
        (name, dataset, f"{one.n:,}", signed(one.pull), f"{one.places[0].gold:.3f}", f"{one.places[0].chosen:.3f}")
        for name, system in report.systems.items()
        for dataset, one in system.position_bias.items()
    ]
    if not rows:
        return None
    return Table(
        title="Position bias",
        head=("system", "dataset", "mentions", "excess of the first place", "gold is first", "first is chosen"),
        rows=tuple(rows),
        words="Excess: how much more often the first place is chosen than it holds the gold; 0 means no preference.",
    )


def made_from_tables(report: ComparisonReport) -> list[Table]:
    """List what all runs share, and what each is made from."""
    facts = list(dict.fromkeys(key for one in report.systems.values() for key in one.facts))
    return [
        Table(title="Shared by all", head=("what", "value"), rows=tuple(report.inputs.items())),
        Table(
            title="Made from",
            head=("name", *facts),
            rows=tuple((name, *(one.facts.get(key, DASH) for key in facts)) for name, one in report.systems.items()),
        ),
    ]


def _cell(one: Estimate | None) -> str:
    return DASH if one is None else str(one)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def as_markdown(report: ComparisonReport) -> str:
    """Write the report as a Markdown page, without the examples, which are on the HTML page."""
    compared = report.compared
    parts = ["# Comparison", bullets(map(plain, summary_of(compared)))]
    for one in compared.datasets:
        parts += [f"## {plain(one.dataset)}, {plain(report.inputs.get('split', ''))}", facts_of(one, report)]
        for each in (systems_table(one, compared.settings.k), pairs_table(one, report), slices_table(one)):
            parts += table_parts(each, level=3)
    for found in (costs_table(report), triples_table(report), position_table(report)):
        parts += table_parts(found, level=2) if found else []
    if report.notes:
        parts += ["## Notes", bullets(map(plain, report.notes))]
    parts += ["## Method", bullets(map(plain, method_in_words(compared)))]
    for found in made_from_tables(report):
        parts += table_parts(found, level=2)
    parts.append(
        bullets(f"{plain(name)}: `{code(one.command)}`" for name, one in report.systems.items() if one.command)
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def facts_of(one: ComparedDataset, report: ComparisonReport) -> str:
    """Describe a dataset in two sentences."""
    nil = f", {one.n_nil:,} are NIL" if one.n_nil else ""
    return (
        f"{one.n:,} mentions in {one.n_sentences:,} sentences; the gold of {one.n_in_kb:,} is in the KB{nil}. "
        f"The systems disagree on {report.n_disagreements.get(one.dataset, 0):,}."
    )


def table_parts(one: Table, *, level: int) -> list[str]:
    """Return heading, explanation and table as Markdown."""
    body = markdown_table(map(plain, one.head), (map(plain, row) for row in one.rows))
    return [f"{'#' * level} {plain(one.title)}", *([one.words] if one.words else []), body]


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table of cells that are escaped already."""
    cells = list(head)
    lines = [cells, ["---"] * len(cells), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """Return a Markdown list of lines that are escaped already."""
    return "\n".join(f"- {line}" for line in lines)


def plain(text: str) -> str:
    """Escape a text for Markdown: one line without anything that could open a tag, a link or a cell."""
    line = _one_line(text)
    for sign in "\\`*_<>|#":
        line = line.replace(sign, f"\\{sign}")
    return line.replace("](", "]\\(")


def code(text: str) -> str:
    """Make a text fit between backticks, on one line."""
    return _one_line(text).replace("`", "'")


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() or char.isspace() else "\ufffd" for char in text).split())
