"""Evaluations as JSON for programs and as Markdown for people: one system, or a table of several.

In: named evaluations of the same mentions under the same settings, or counts by the fuzzy-name protocol.  Out: a dict
or a string; nothing is written.  Every table comes with the protocol in words.  An undefined number is null in JSON and
a dash in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from localmel.errors import BadInput
from localmel.evaluate.fuzzy import CANDIDATES, TOP, FuzzyCounts
from localmel.evaluate.paper import LABEL, PaperCounts
from localmel.evaluate.protocol import Evaluation, EvaluationSettings, Slice, metric_names
from localmel.evaluate.resamples import Estimate
from localmel.evaluate.significance import Comparison
from localmel.report.sentences import p_value
from localmel.report.tables import DASH, bullets, markdown_table

FORMAT = 1
"Version of the JSON; raised when a key changes its meaning."

_TIES = {"mean": "their mean rank", "pessimistic": "the last of their ranks", "optimistic": "the first of their ranks"}
_TITLES = {"mrr": "MRR", "accuracy": "accuracy", "ece": "ECE"}


def as_json(
    systems: Mapping[str, Evaluation],
    *,
    comparisons: Sequence[Comparison] = (),
    paper: Mapping[str, PaperCounts] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return everything, ready for `json.dumps(..., allow_nan=False)`: always the same keys, six decimals.

    notes: what else the reader must know (split, training seed, mentions left out).  `paper` is null unless given.
    Raises BadInput where systems differ in mentions or settings, or an extra refers to an unknown system."""
    settings = _one_protocol(systems, comparisons, paper)
    return {
        "format": FORMAT,
        "protocol": {
            "k": settings.k,
            "ties": settings.ties,
            "hits_at": list(settings.hits_at),
            "samples": settings.samples,
            "seed": settings.seed,
            "interval": 0.95,
            "words": protocol_in_words(next(iter(systems.values()))),
        },
        "notes": list(notes),
        "systems": {
            name: {
                "mentions": evaluation.mentions,
                "slices": {one.name: _slice(one, settings) for one in evaluation.slices},
            }
            for name, evaluation in systems.items()
        },
        "comparisons": [_comparison(one) for one in comparisons],
        "paper": None if paper is None else {name: _paper(counts) for name, counts in paper.items()},
    }


def as_markdown(
    systems: Mapping[str, Evaluation],
    *,
    comparisons: Sequence[Comparison] = (),
    paper: Mapping[str, PaperCounts] | None = None,
    notes: Sequence[str] = (),
    title: str = "Evaluation",
) -> str:
    """Return the same as a page: protocol, all mentions, slices, paired differences, and the paper's counting if given.

    Raises BadInput like `as_json`."""
    settings = _one_protocol(systems, comparisons, paper)
    words = [*protocol_in_words(next(iter(systems.values()))), *notes]
    names = metric_names(settings)
    ranking = [name for name in names if name == "mrr" or name.startswith(("hits@", "recall@"))]
    parts = [
        f"# {title}",
        bullets(words),
        "## Ranking",
        _ranking_table(systems, ranking, paper),
        "## Answers",
        _table(
            ["system", *map(metric_title, answers := [name for name in names if name not in ranking])],
            ([name, *_cells(one.overall, answers)] for name, one in systems.items()),
        ),
        "## Slices",
        _slice_table(systems, settings),
    ]
    if comparisons:
        parts += ["## Paired differences", _comparison_table(comparisons), _COMPARISON_WORDS]
    if paper is not None:
        parts += [f"## Counted as published: {LABEL}", *_paper_tables(paper), _PAPER_WORDS]
    return "\n\n".join(parts) + "\n"


def protocol_in_words(evaluation: Evaluation) -> list[str]:
    """Explain what the numbers mean, one sentence per line."""
    settings, overall = evaluation.settings, evaluation.overall
    return [
        f"Mentions: {overall.n:,} in {overall.n_sentences:,} sentences; the gold of {overall.n_in_kb:,} is in the KB, "
        f"{overall.n_nil:,} are NIL.",
        f"HITS@k, MRR and recall@{settings.k} are over mentions whose gold is in the KB; "
        "accuracy and ECE are over all, NIL included.",
        f"Rank = 1 + the number of higher scores; among equal scores the gold gets {_TIES[settings.ties]}.",
        f"An answer is one of the K = {settings.k} candidates, or NIL; a gold outside the K is a miss for every k "
        f"up to {settings.k}, with reciprocal rank 0 where it has no rank in the whole KB.",
        f"[low, high]: 95% percentile bootstrap, {settings.samples:,} resamples of sentences, seed {settings.seed}, "
        "shared by all metrics; ECE (15 bins) has no interval, because a resample repeats mentions and therefore looks "
        "worse calibrated.",
        "A dash: undefined for these mentions.",
    ]


def metric_title(name: str) -> str:
    """Turn the name of a metric into a heading: `hits@1` -> `HITS@1`, `nil_f1` -> `NIL F1`."""
    if name.startswith("nil_"):
        rest = name.removeprefix("nil_")
        return f"NIL {rest if rest in ('precision', 'recall') else rest.upper()}"
    return _TITLES.get(name, name.replace("hits@", "HITS@"))


_COMPARISON_WORDS = (
    "First minus second, over the same mentions. p: McNemar's exact test on HITS@1, two-sided, treating mentions as "
    "independent, not corrected for multiple comparisons; where it disagrees with the interval, trust the interval, "
    "which resamples whole sentences."
)
_PAPER_WORDS = (
    "Retrieval: mentions of one sentence with the same gold count once; equal scores keep the order of the KB. "
    "Reranking: rank 1 when the first Q-number of the response is the gold or the gold's label occurs anywhere in it, "
    "even for a gold that was not a candidate; otherwise one rank below retrieval. NIL mentions are left out."
)


def _one_protocol(
    systems: Mapping[str, Evaluation], comparisons: Sequence[Comparison], paper: Mapping[str, PaperCounts] | None
) -> EvaluationSettings:
    if not systems:
        raise BadInput("no evaluation to report")
    (first, reference), *others = systems.items()
    for name, evaluation in others:
        if evaluation.settings != reference.settings:
            raise BadInput(f"{first!r} was evaluated with {reference.settings}, {name!r} with {evaluation.settings}")
        if evaluation.mentions != reference.mentions:
            raise BadInput(
                f"{first!r} was evaluated on {reference.overall.n} mentions, {name!r} on {evaluation.overall.n} with "
                "other ids, sentences or golds"
            )
    named = {name for one in comparisons for name in (one.first, one.second)} | set(paper or ())
    if strangers := sorted(named - systems.keys()):
        raise BadInput(f"{', '.join(map(repr, strangers))} is not among the systems {', '.join(map(repr, systems))}")
    return reference.settings


# --- JSON -----------------------------------------------------------------------------------------------------------


def _slice(one: Slice, settings: EvaluationSettings) -> dict[str, Any]:
    return {
        "n": one.n,
        "n_in_kb": one.n_in_kb,
        "n_nil": one.n_nil,
        "n_sentences": one.n_sentences,
        "metrics": {name: _estimate(one.metrics.get(name)) for name in metric_names(settings)},
    }


def _estimate(one: Estimate | None) -> dict[str, Any] | None:
    return None if one is None else one.as_json()


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "first": one.first,
        "second": one.second,
        "n": one.n,
        "n_sentences": one.n_sentences,
        "hits@1": one.hits_at_1.as_json(),
        "mrr": one.mrr.as_json(),
        "only_first": one.only_first,
        "only_second": one.only_second,
        "mcnemar_p": float(f"{one.p:.6g}"),
    }


def _paper(one: PaperCounts) -> dict[str, Any]:
    def rounded(numbers: Mapping[str, float] | None) -> dict[str, float] | None:
        return None if numbers is None else {name: round(value, 6) for name, value in numbers.items()}

    return {
        "label": LABEL,
        "n_mentions": one.n_mentions,
        "n_keys": one.n_keys,
        "retrieval": rounded(one.retrieval),
        "reranked": rounded(one.reranked),
    }


# --- Markdown -------------------------------------------------------------------------------------------------------


def _ranking_table(
    systems: Mapping[str, Evaluation], names: Sequence[str], paper: Mapping[str, PaperCounts] | None
) -> str:
    head = ["system", *map(metric_title, names)]
    rows = [[name, *_cells(one.overall, names)] for name, one in systems.items()]
    if paper is not None:
        head.append(f"HITS@1 ({LABEL})")
        for row in rows:
            row.append(_paper_cell(paper.get(row[0])))
    return _table(head, rows)


def _paper_cell(counts: PaperCounts | None) -> str:
    if counts is None:
        return DASH
    return f"{(counts.retrieval if counts.reranked is None else counts.reranked)['hits@1']:.3f}"


def _slice_table(systems: Mapping[str, Evaluation], settings: EvaluationSettings) -> str:
    names = [f"hits@{settings.hits_at[0]}", "mrr", f"recall@{settings.k}", "accuracy", "nil_f1", "ece"]
    evaluations = list(systems.items())
    rows = []
    for place, first in enumerate(evaluations[0][1].slices):
        for name, evaluation in evaluations:
            one = evaluation.slices[place]
            counts = [f"{count:,}" for count in (one.n, one.n_in_kb, one.n_sentences)]
            rows.append([first.name, name, *counts, *_cells(one, names)])
    return _table(["slice", "system", "n", "in the KB", "sentences", *map(metric_title, names)], rows)


def _comparison_table(comparisons: Sequence[Comparison]) -> str:
    head = ["first", "second", "n", "HITS@1", "MRR", "only first right", "only second right", "p"]
    rows = []
    for one in comparisons:
        differences = [_difference(one.hits_at_1), _difference(one.mrr)]
        only = [str(one.only_first), str(one.only_second)]
        rows.append([one.first, one.second, f"{one.n:,}", *differences, *only, p_value(one.p)])
    return _table(head, rows)


def _difference(one: Estimate) -> str:
    if one.low is None or one.high is None:
        return f"{one.value:+.3f}"
    return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _paper_tables(paper: Mapping[str, PaperCounts]) -> Iterable[str]:
    stages = {
        "retrieval": [(name, one.n_keys, one.retrieval) for name, one in paper.items()],
        "reranking": [(name, one.n_mentions, one.reranked) for name, one in paper.items() if one.reranked is not None],
    }
    for stage, found in stages.items():
        rows = [[name, f"{n:,}", *(f"{value:.3f}" for value in numbers.values())] for name, n, numbers in found]
        if rows:
            yield _table([f"{stage}, {LABEL}", "counted", *map(metric_title, found[0][2])], rows)


def _cells(one: Slice, names: Sequence[str]) -> list[str]:
    return [str(one.metrics[name]) if name in one.metrics else DASH for name in names]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return markdown_table(map(_cell, head), (map(_cell, row) for row in rows))


def _cell(text: str) -> str:
    """Escape a name: a bar or a line break would end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


# --- the protocol with candidates by fuzzy name -----------------------------------------------------------------------

_FUZZY_WORDS = (
    f"Candidates: the {CANDIDATES} entities whose label is most similar to the surface (RapidFuzz WRatio over folded "
    "names; ties by plain ratio, then by a fixed shuffle). The gold is never added: where it is not among them, it is "
    "a miss for every k.",
    "T@k: share of the mentions whose gold is at rank k or better among the candidates; equal scores get their mean "
    "rank. recall: share of the mentions whose gold is among the candidates.",
    "T@k given: only over the mentions whose gold is among the candidates. The published figures are of this kind, "
    "because there the gold was always added to the candidates.",
)


def fuzzy_json(counts: Mapping[str, FuzzyCounts], *, left_out: int) -> dict[str, Any]:
    """Return the counts for programs, six decimals."""
    return {
        "candidates": CANDIDATES,
        "words": list(_FUZZY_WORDS),
        "left_out": left_out,
        "systems": {
            name: {
                "n": one.n,
                f"recall@{CANDIDATES}": _estimate(one.recall),
                "top": {f"T@{k}": share.as_json() for k, share in one.top.items()},
                "top_given": {f"T@{k}": share.as_json() for k, share in one.top_given.items()},
            }
            for name, one in counts.items()
        },
    }


def fuzzy_markdown(counts: Mapping[str, FuzzyCounts], *, left_out: int) -> str:
    """Return a section of a page: heading, explanation, and a table with a line per system."""
    head = ["order", "mentions", f"recall@{CANDIDATES}"]
    head += [f"T@{k}" for k in TOP] + [f"T@{k} given" for k in TOP]
    rows = []
    for name, one in counts.items():
        shares = [str(one.top[k]) if k in one.top else DASH for k in TOP]
        given = [f"{one.top_given[k].value:.3f}" if k in one.top_given else DASH for k in TOP]
        rows.append([name, f"{one.n:,}", str(one.recall or DASH), *shares, *given])
    words = [*_FUZZY_WORDS, f"Left out because they are NIL or their gold is not in the KB: {left_out:,}."]
    return f"\n## {CANDIDATES} candidates by fuzzy name\n\n{bullets(words)}\n\n{markdown_table(head, rows)}\n"
