"""The tables of a comparison, as texts in cells: the same for Markdown and for the page.

In: a ComparisonReport.  Out: Tables.  A cell that has no number is a dash.  Escapes nothing: whoever prints does."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.evaluate.comparison import ComparedDataset
from localmel.evaluate.resamples import Estimate
from localmel.report.comparison import ComparisonReport
from localmel.report.comparison_sentences import p_value, signed, verdict_of
from localmel.report.costs import COST_TITLES, DASH, cost_cells

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
"The metrics of the table of systems."
_PAIR_HEAD = (
    "pair",
    "verdict",
    "HITS@1",
    "would show",
    "only one right",
    "p, McNemar",
    "p, resampled",
    "MRR",
    "accuracy",
    "not made alike in",
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
    "read from",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of texts under a heading; the first cell of a row names it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: str = ""
    "What a reader must know to read it."


def systems_table(one: ComparedDataset, k: int) -> Table:
    """Each system by itself; metrics that no system has are left out."""
    names = {f"recall@{k}" if name == "recall" else name: title for name, title in METRICS.items()}
    shown = {name: title for name, title in names.items() if any(name in found for found in one.metrics.values())}
    rows = [(name, *(_cell(one.metrics[name].get(metric)) for metric in shown)) for name in one.systems]
    head = ("system", *(title.replace("@K", f"@{k}") for title in shown.values()))
    return Table(title="Systems", head=head, rows=tuple(rows))


def pairs_table(one: ComparedDataset, report: ComparisonReport) -> Table:
    """Every two systems."""
    rows = []
    for test in one.pairs:
        differs = "; ".join(report.differs.get((test.first, test.second), ())) or "nothing that is recorded"
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
        words="First minus second. Only one right: mentions that only the first, and only the second, puts at rank 1. "
        "p-values after Holm, over all pairs of this report.",
    )


def slices_table(one: ComparedDataset) -> Table:
    """Each slice: the metric of each system, then how far each is from the leader."""
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
        words="HITS@1 over mentions whose gold is in the KB; accuracy where there are none. To look at, not to test: "
        "the intervals are not corrected for the number of slices.",
    )


def costs_table(report: ComparisonReport) -> Table:
    """What each system costs."""
    stars = any(one.costs.whole_run for one in report.systems.values())
    cells = {name: cost_cells(one.costs) for name, one in report.systems.items()}
    told = [place for place in range(len(COST_TITLES)) if any(found[place] != DASH for found in cells.values())]
    silent = [title for place, title in enumerate(COST_TITLES) if place not in told]
    words = ["Tokens are means per mention, the first token is a median."] if len(told) > 1 else []
    words += ["* The seconds of the whole run, loading and reading included."] if stars else []
    words += [f"Not told by any run: {', '.join(silent)}."] if silent else []
    return Table(
        title="Costs",
        head=("system", *(COST_TITLES[place] for place in told)),
        rows=tuple((name, *(found[place] for place in told)) for name, found in cells.items()),
        words=" ".join(words),
    )


def triples_table(report: ComparisonReport) -> Table | None:
    """How good the generated triples are; None where no run carries any."""
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
        words="Against the gold entity's own triples in the KB: word for word, and \u201cnear\u201d where the cosine "
        f"of the phrases is at least {found[0][2].threshold}. Unknown: nothing like it in the KB, and perhaps right "
        "all the same. By chance: near precision against the gold of another mention. Read from: how many, and their "
        "near precision.",
    )


def position_table(report: ComparisonReport) -> Table | None:
    """Whether the reranker prefers the first place; None where no run carries what was offered."""
    rows = [
        (
            name,
            dataset,
            f"{one.n:,}",
            signed(one.pull),
            f"{one.places[0].gold:.3f}",
            f"{one.places[0].chosen:.3f}",
        )
        for name, system in report.systems.items()
        for dataset, one in system.position_bias.items()
    ]
    if not rows:
        return None
    return Table(
        title="Position bias",
        head=("system", "dataset", "mentions", "pull of the first place", "gold is first", "first is chosen"),
        rows=tuple(rows),
        words="How much more often the first place of the list is chosen than the gold stands there; 0: no preference.",
    )


def made_from_tables(report: ComparisonReport) -> list[Table]:
    """What all runs share, and what each is made from."""
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
