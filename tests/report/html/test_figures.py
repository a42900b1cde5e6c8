"""Figures as parts of a page: its colours, no style of their own, words for those who do not see them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import localmel.report.html
from localmel.report.comparison import ComparisonReport
from localmel.report.html.figures import MOST_PAIRS, accuracy_against_speed, differences, reliability, slices
from localmel.report.html.svg import Drawing, Scale, scale_over, text_width

SVG = "{http://www.w3.org/2000/svg}"


def drawings(report: ComparisonReport) -> list[str]:
    one = report.compared.datasets[0]
    costs = {name: found.costs for name, found in report.systems.items()}
    drawn = [differences(one, "a"), accuracy_against_speed(one, costs, "b"), reliability(one, "c"), slices(one, "d")]
    return [svg for figure in drawn if figure for svg in (figure.wide, figure.narrow)]


@pytest.fixture(scope="session")
def drawn(report: ComparisonReport) -> list[str]:
    """The figures of a dataset, wide and narrow."""
    return drawings(report)


def test_every_figure_is_well_formed_and_says_what_it_shows(drawn: list[str]) -> None:
    assert len(drawn) == 8
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        title, description = root.findall(f"{SVG}title")[0], root.findall(f"{SVG}desc")[0]
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert "one <b>" in (title.text or "")
        assert re.search(r"\d\.\d{3}", description.text or "")
        assert not list(root.iter(f"{SVG}script"))


def test_colours_and_fonts_are_those_of_the_page(drawn: list[str]) -> None:
    css = (Path(localmel.report.html.__file__).parent / "style.css").read_text()
    text = "".join(drawn)
    for attribute in ("style", "fill", "stroke", "color", "font-family"):
        assert f" {attribute}=" not in text
    classes = {name for found in re.findall(r'class="([^"]*)"', text) for name in found.split()}
    assert {"ink", "gridline", "axis", "range", "mark", "series-0", "series-1"} <= classes
    assert all(f".{name} {{" in css for name in classes)
    assert all(f"series-{number} {{ color: var(--series-{number}); }}" in css for number in range(8))


def test_ids_of_two_figures_are_never_the_same(drawn: list[str]) -> None:
    ids = [found for svg in drawn for found in re.findall(r'\bid="([^"]*)"', svg)]
    assert len(ids) == len(set(ids)) == 16


def test_the_same_report_gives_the_same_figures(report: ComparisonReport, drawn: list[str]) -> None:
    assert drawings(report) == drawn


def test_everything_is_drawn_inside_its_figure(drawn: list[str]) -> None:
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        _, _, width, height = map(float, (root.get("viewBox") or "").split())
        points = [pair.split(",") for node in root.iter() for pair in (node.get("points") or "").split()]
        points += [[node.get("x") or "", node.get("y") or ""] for node in root.iter(f"{SVG}text")]
        assert len(points) > 20
        assert all(-1 <= float(x) <= width + 1 and -1 <= float(y) <= height + 1 for x, y in points)


def test_an_interval_ends_where_its_bounds_are() -> None:
    scale = scale_over([0.5, 0.9], 100, 300)
    assert scale.at(scale.low) == pytest.approx(100)
    assert scale.at(scale.high) == pytest.approx(300)
    assert scale.at(0.7) == pytest.approx(200)
    speeds = scale_over([1.0, 100.0], 0, 400, logarithmic=True)
    assert speeds.at(10) == pytest.approx(200)
    for same in (scale_over([0.3], 0, 10), scale_over([7.0, 7.0], 0, 10, logarithmic=True)):
        assert same.at(0.3 if same.low < 0.3 else 7.0) == pytest.approx(5)


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "labels"),
    [
        (-0.17, 0.24, False, ["−0.1", "0.0", "0.1", "0.2"]),
        (0.69, 0.95, False, ["0.70", "0.75", "0.80", "0.85", "0.90", "0.95"]),
        (0.0, 1.0, False, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (2.2, 12.0, True, ["3", "5", "7", "10"]),
        (0.8, 45.0, True, ["1", "2", "5", "10", "20"]),
        (0.05, 3000.0, True, ["0.1", "1", "10", "100", "1,000"]),
        (8.7, 9.6, True, ["8.8", "9.0", "9.2", "9.4", "9.6"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, logarithmic: bool, labels: list[str]) -> None:
    ticks = Scale(low, high, 0, 100, logarithmic).ticks()
    assert [label for _, label in ticks] == labels
    assert all(low <= value <= high + 1e-9 for value, _ in ticks)


def test_names_are_neither_markup_nor_mathematics(drawn: list[str]) -> None:
    texts = [node.text for svg in drawn for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert any("$x_1$" in (text or "") for text in texts)
    drawing = Drawing(10, 10)
    drawing.text(0, 0, "</text><script>")
    assert "<script>" not in drawing.markup(key="k", title="<b>", description='"<i>')


def test_of_many_pairs_only_those_with_the_leader_are_drawn(make: Callable[..., ComparisonReport]) -> None:
    names = ("linker", *(f"s{number}" for number in range(6)))
    one = make(systems=names, datasets=("one <b>",), n=30).compared.datasets[0]
    assert len(one.pairs) == 21 > MOST_PAIRS
    said = ElementTree.fromstring(differences(one, "a").wide).findall(f"{SVG}desc")[0].text or ""
    assert said.count("minus") == 6
    assert said.count(one.leader) >= 6


def test_what_there_is_not_is_not_drawn(report: ComparisonReport) -> None:
    one = report.compared.datasets[0]
    silent = {name: replace(found.costs, mentions_per_second=None) for name, found in report.systems.items()}
    assert accuracy_against_speed(one, silent, "b") is None
    assert reliability(replace(one, reliability={}), "c") is None
    assert slices(replace(one, slices=()), "d") is None


def test_names_in_every_script_are_drawn(make: Callable[..., ComparisonReport]) -> None:
    report = make(systems=("日本語の系", "نظام"), datasets=("数据",), n=20, examples=4)
    assert "日本語の系" in "".join(drawings(report))
    assert text_width("日本語の系") > text_width("abcde")
