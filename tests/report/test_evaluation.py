"""Reports: the same keys whatever is defined, no NaN, the protocol in words, the paper's column only when asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from localmel.errors import BadInput
from localmel.evaluate.paper import LABEL, PaperCounts, PaperMention, paper_counts
from localmel.evaluate.protocol import SLICES, Evaluation, EvaluationSettings, Outcome, evaluate, metric_names
from localmel.evaluate.significance import Comparison, compare
from localmel.report.evaluation import as_json, as_markdown, metric_title, protocol_in_words

Make = Callable[..., Outcome]
Draw = Callable[..., list[Outcome]]
QUICK = EvaluationSettings(samples=50)


def keys_of(value: Any) -> Any:
    """The shape of a JSON value: its keys, and nothing of its numbers."""
    if isinstance(value, dict):
        return {name: keys_of(inner) for name, inner in value.items()}
    return None


def systems_of(outcomes: list[Outcome]) -> tuple[dict[str, Evaluation], list[Comparison], dict[str, PaperCounts]]:
    """A system, a worse one, their comparison, and the first one counted as published."""
    worse = [replace(one, rank=2.0, predicted="Q9") if one.rank == 1.0 else one for one in outcomes]
    mentions = [
        PaperMention(mention_id=one.mention_id, gold=one.gold, rank=one.rank, answered=one.rank <= 3)
        for one in outcomes
        if one.gold is not None
    ]
    systems = {"fused": evaluate(outcomes, QUICK), "text | only": evaluate(worse, QUICK)}
    return (
        systems,
        [compare(outcomes, worse, QUICK, names=("fused", "text | only"))],
        {"fused": paper_counts(mentions)},
    )


def test_json_holds_every_number_and_no_nan(draw: Draw) -> None:
    systems, comparisons, paper = systems_of(draw(60))
    report = as_json(systems, comparisons=comparisons, paper=paper, notes=["split: val"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert list(report) == ["format", "protocol", "notes", "systems", "comparisons", "paper"]
    assert list(report["systems"]["fused"]["slices"]) == list(SLICES)
    hits = report["systems"]["fused"]["slices"]["all"]["metrics"]["hits@1"]
    estimate = systems["fused"].overall.metrics["hits@1"]
    assert hits == pytest.approx(
        {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}, abs=1e-6
    )
    assert report["comparisons"][0]["only_second"] == 0
    assert report["paper"]["fused"]["label"] == LABEL
    assert (report["protocol"]["k"], report["protocol"]["ties"], report["notes"]) == (16, "mean", ["split: val"])


def test_the_keys_are_the_same_where_nothing_is_defined(draw: Draw) -> None:
    full = as_json({"one": evaluate(draw(200), QUICK)})["systems"]["one"]["slices"]
    empty = as_json({"one": evaluate([], QUICK)})["systems"]["one"]["slices"]
    assert empty["all"] == {
        "n": 0,
        "n_in_kb": 0,
        "n_nil": 0,
        "n_sentences": 0,
        "metrics": dict.fromkeys(metric_names(QUICK)),
    }
    assert [list(one) for one in full.values()] == [list(one) for one in empty.values()]
    assert [list(one["metrics"]) for one in full.values()] == [list(one["metrics"]) for one in empty.values()]
    assert None not in full["all"]["metrics"].values()


def test_the_same_outcomes_give_the_same_report(draw: Draw) -> None:
    one, other = draw(40), draw(40)[::-1]
    assert as_markdown({"x": evaluate(one, QUICK)}) == as_markdown({"x": evaluate(other, QUICK)})
    assert as_json({"x": evaluate(one, QUICK)}) == as_json({"x": evaluate(other, QUICK)})


def test_markdown_opens_with_the_protocol_in_words(draw: Draw) -> None:
    evaluation = evaluate(draw(60), EvaluationSettings(samples=70, seed=9, k=12, ties="pessimistic"))
    page = as_markdown({"fused": evaluation}, notes=["Split: val, 3 leaked mentions dropped."], title="Linking")
    assert page.startswith("# Linking\n\n- Mentions: 60 in 20 sentences; ")
    head = page.split("## Ranking")[0]
    for words in (
        "the last of their ranks",
        "K = 12",
        "is a miss for every k up to 12",
        "70 resamples of sentences, seed 9",
        "3 leaked mentions dropped",
    ):
        assert words in head
    assert all(f"- {line}\n" in head for line in protocol_in_words(evaluation))


def test_every_table_has_as_many_cells_in_each_row(draw: Draw) -> None:
    systems, comparisons, paper = systems_of(draw(60))
    page = as_markdown(systems, comparisons=comparisons, paper=paper)
    tables = re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)
    assert len(tables) == 6
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    assert "| text \\| only |" in page
    assert "nan" not in page
    assert "inf" not in page


def test_an_empty_slice_is_a_row_of_dashes(outcome: Make) -> None:
    page = as_markdown({"fused": evaluate([outcome("a"), outcome("b")], QUICK)})
    assert "| NIL | fused | 0 | 0 | 0 | – | – | – | – | – | – |" in page


def test_the_column_of_the_paper_is_there_when_asked_for_and_labelled(draw: Draw) -> None:
    systems, _, paper = systems_of(draw(60))
    assert LABEL not in as_markdown(systems)
    assert as_json(systems)["paper"] is None
    page = as_markdown(systems, paper=paper)
    assert f"| HITS@1 ({LABEL}) |" in page
    assert f"## Counted as published: {LABEL}" in page
    assert f"| retrieval, {LABEL} | counted | HITS@1 |" in page
    assert f"| reranking, {LABEL} | counted | HITS@1 |" in page


def test_a_difference_shows_its_sign_and_a_small_p_its_bound(draw: Draw) -> None:
    systems, comparisons, _ = systems_of(draw(120))
    row = as_markdown(systems, comparisons=comparisons).split("## Paired differences")[1].splitlines()[4]
    assert re.search(r"\| \+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\] \|", row)
    assert row.endswith("| 0 | < 0.001 |")


def test_systems_that_were_asked_something_else_are_not_put_in_one_table(outcome: Make) -> None:
    one = evaluate([outcome("a")], QUICK)
    with pytest.raises(BadInput, match="'y' on 2 with other ids, sentences or golds"):
        as_markdown({"x": one, "y": evaluate([outcome("a"), outcome("b")], QUICK)})
    with pytest.raises(BadInput, match=r"'x' was evaluated with .*k=16.*, 'y' with .*k=8"):
        as_json({"x": one, "y": evaluate([outcome("a")], EvaluationSettings(k=8, samples=50))})
    with pytest.raises(BadInput, match="no evaluation to report"):
        as_json({})


def test_an_extra_of_an_unknown_system_is_refused(draw: Draw) -> None:
    systems, comparisons, paper = systems_of(draw(30))
    del systems["fused"]
    for extra in ({"comparisons": comparisons}, {"paper": paper}):
        with pytest.raises(BadInput, match=r"'fused' is not among the systems 'text \| only'"):
            as_json(systems, **extra)  # type: ignore[arg-type]


def test_metrics_are_named_for_people() -> None:
    titles = ["HITS@1", "HITS@3", "HITS@5", "HITS@10", "HITS@16", "HITS@20", "MRR", "recall@16", "accuracy"]
    titles += ["NIL precision", "NIL recall", "NIL F1", "NIL AUROC", "ECE"]
    assert [metric_title(name) for name in metric_names(QUICK)] == titles
