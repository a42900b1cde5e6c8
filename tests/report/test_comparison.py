"""A comparison as JSON and as Markdown: every number, no NaN, and names that can break neither a cell nor a tag."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as some

from localmel.evaluate.answer_details import Costs
from localmel.evaluate.comparison import compare_systems
from localmel.evaluate.protocol import Outcome
from localmel.report.comparison import ComparedSystem, ComparisonReport, as_json
from localmel.report.tables import Table, as_markdown, code, costs_table, plain, systems_table, table_parts

Draw = Callable[..., list[Outcome]]
NAME = "a | <b>`*\n_[x](y)"


@pytest.fixture
def report(draw: Draw) -> ComparisonReport:
    first, second = draw(60), draw(60, share_nil=0.3)
    compared = compare_systems(
        {"d|": {"A": first, NAME: second}}, k=16, calibrated=["A"], slices={"d|": {"none": set()}}
    )
    systems = {
        name: ComparedSystem(
            name=name, run="run", system="linker", command=f"localmel eval '{NAME}'",
            costs=Costs(mentions_per_second=2.5),
            facts={"profile": "embedded"}, position_bias={}, triples={},
        )
        for name in ("A", NAME)
    }  # fmt: skip
    return ComparisonReport(
        compared=compared, systems=systems, differs={("A", NAME): ("withheld nothing / triples",)},
        inputs={"split": "val"}, notes=(NAME,), n_disagreements={"d|": 7}, examples=(), mentions={}, entities={},
    )  # fmt: skip


def test_json_has_every_number_and_no_nan(report: ComparisonReport) -> None:
    found = as_json(report)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == ["format", "summary", "inputs", "notes", "method", "systems", "datasets"]
    one = found["datasets"]["d|"]
    (pair,) = one["pairs"]
    test = report.compared.datasets[0].pairs[0]
    assert pair["hits@1"]["value"] == pytest.approx(test.hits_at_1.value, abs=1e-6)
    assert pair["beyond_chance"] is False
    assert pair["better"] is None
    assert pair["differs_in"] == ["withheld nothing / triples"]
    assert one["slices"][0] == {
        "name": "none", "n": 0, "n_in_kb": 0, "n_sentences": 0, "metric": "accuracy", "systems": {}, "differences": {},
    }  # fmt: skip
    assert sum(each["n"] for each in one["reliability"]["A"]) == 60
    assert one["disagreements"] == {"n": 7, "examples": []}


def columns(line: str) -> int:
    return line.replace("\\\\", "").replace("\\|", "").count("|")


def test_markdown_keeps_its_tables_whole_whatever_names_there_are(report: ComparisonReport) -> None:
    text = as_markdown(report)
    assert "<b>" not in text.replace("\\<b\\>", "").replace("`localmel eval 'a | <b>'", "`").split("## Made from")[0]
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) >= 6
    for block in blocks:
        assert len({columns(line) for line in block.splitlines()}) == 1
    for heading in ("# Comparison", "### Systems", "### Differences", "### Slices", "## Costs", "## Method"):
        assert f"{heading}\n" in text


@given(some.text(), some.text())
def test_no_name_ends_a_cell_or_opens_a_tag(one: str, other: str) -> None:
    _, table = table_parts(Table(title="t", head=("a", "b"), rows=((one, other),)), level=2)
    lines = table.split("\n")
    assert len(lines) == 3
    assert columns(lines[2]) == 3
    escaped = plain(one)
    assert "<" not in escaped.replace("\\\\", "").replace("\\<", "")
    assert "`" not in code(one)


def test_costs_that_no_run_records_are_named_and_not_shown(report: ComparisonReport) -> None:
    table = costs_table(report)
    assert table.head == ("system", "mentions/s")
    assert "Recorded by no run: prompt tokens, image tokens" in table.words


def test_a_metric_that_no_system_has_takes_no_column(report: ComparisonReport, draw: Draw) -> None:
    assert "NIL F1" in systems_table(report.compared.datasets[0], 16).head
    assert "recall@16" in systems_table(report.compared.datasets[0], 16).head
    in_kb = draw(30, share_nil=0.0)
    one = compare_systems({"d": {"A": in_kb, "B": in_kb}}, k=16).datasets[0]
    assert systems_table(one, 16).head == ("system", "HITS@1", "HITS@3", "MRR", "recall@16", "accuracy")
