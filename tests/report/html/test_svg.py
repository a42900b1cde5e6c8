"""Figures as parts of a page: its colours, no style of their own, words for those who do not see them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace

import pytest

from localmel.report.comparison import ComparisonReport
from localmel.report.html.figures import MOST_PAIRS, cost_scatter, forest, reliability, slices
from localmel.report.html.svg import SERIES, Styles

SVG = "{http://www.w3.org/2000/svg}"


def drawings(report: ComparisonReport, styles: Styles) -> list[str]:
    one = report.compared.datasets[0]
    costs = {name: found.costs for name, found in report.systems.items()}
    drawn = [
        forest(one, "a", styles),
        cost_scatter(one, costs, "b", styles),
        reliability(one, "c", styles),
        slices(one, "d", styles),
    ]
    return [svg for drawing in drawn if drawing for svg in (drawing.wide, drawing.narrow)]


@pytest.fixture(scope="session")
def drawn(report: ComparisonReport) -> tuple[list[str], str]:
    """The figures of a dataset, wide and narrow, and their rules."""
    styles = Styles()
    return drawings(report, styles), styles.css()


def test_every_figure_is_well_formed_and_says_what_it_shows(drawn: tuple[list[str], str]) -> None:
    found, _ = drawn
    assert len(found) == 8
    for svg in found:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        title, description = root.findall(f"{SVG}title")[0], root.findall(f"{SVG}desc")[0]
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert "one <b>" in (title.text or "")
        assert re.search(r"\d\.\d{3}", description.text or "")
        assert not list(root.iter(f"{SVG}script"))


def test_colours_are_those_of_the_page(drawn: tuple[list[str], str]) -> None:
    text, css = "".join(drawn[0]), drawn[1]
    assert "style=" not in text
    assert "DejaVu" not in text + css
    assert not re.search(r"#[0-9a-fA-F]{6}", css)
    assert {"var(--ink)", "var(--muted)", "var(--grid)", "var(--paper)", "var(--series-0)", "var(--font)"} <= set(
        re.findall(r"var\(--[\w-]+\)", css)
    )
    assert all(colour not in text for colour in SERIES)


def test_ids_of_two_figures_are_never_the_same(drawn: tuple[list[str], str]) -> None:
    ids = [found for svg in drawn[0] for found in set(re.findall(r'\bid="([^"]*)"', svg))]
    assert len(ids) == len(set(ids)) > 50
    for svg in drawn[0]:
        inside = set(re.findall(r'\bid="([^"]*)"', svg))
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]*)', svg)) <= inside


def test_the_same_report_gives_the_same_figures(report: ComparisonReport, drawn: tuple[list[str], str]) -> None:
    assert drawings(report, Styles()) == drawn[0]


def test_names_are_neither_markup_nor_mathematics(drawn: tuple[list[str], str]) -> None:
    texts = [node.text for svg in drawn[0] for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert any("$x_1$" in (text or "") for text in texts)


def test_of_many_pairs_only_those_with_the_leader_are_drawn(make: Callable[..., ComparisonReport]) -> None:
    names = ("linker", *(f"s{number}" for number in range(6)))
    one = make(systems=names, datasets=("one <b>",), n=30).compared.datasets[0]
    assert len(one.pairs) == 21 > MOST_PAIRS
    said = ElementTree.fromstring(forest(one, "a", Styles()).wide).findall(f"{SVG}desc")[0].text or ""
    assert said.count("minus") == 6
    assert said.count(one.leader) >= 6


def test_what_there_is_not_is_not_drawn(report: ComparisonReport) -> None:
    one = report.compared.datasets[0]
    silent = {name: replace(found.costs, mentions_per_second=None) for name, found in report.systems.items()}
    assert cost_scatter(one, silent, "b", Styles()) is None
    assert reliability(replace(one, reliability={}), "c", Styles()) is None
    assert slices(replace(one, slices=()), "d", Styles()) is None


def test_names_in_every_script_are_drawn_without_a_warning(make: Callable[..., ComparisonReport]) -> None:
    report = make(systems=("日本語の系", "نظام"), datasets=("数据",), n=20, examples=4)
    assert "日本語の系" in "".join(drawings(report, Styles()))
