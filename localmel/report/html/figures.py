"""The figures of a comparison: differences, accuracy against speed, reliability, slices.

In: one compared dataset.  Out: figures, each drawn for a wide and for a narrow screen, with a description for screen
readers.  Every number that is drawn is also in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from localmel.evaluate.answer_details import Costs
from localmel.evaluate.comparison import ComparedDataset, ComparedSlice
from localmel.evaluate.metrics import ReliabilityBin
from localmel.evaluate.resamples import Estimate
from localmel.evaluate.significance import PairedTest
from localmel.report.html.render import shown
from localmel.report.html.svg import N_SERIES, Drawing, Scale, scale_over, text_width
from localmel.report.sentences import signed, verdict_of

MOST_PAIRS = 15
"With more pairs only those with the leader are drawn."
WIDE, NARROW = 1016.0, 342.0
"Widths for a desktop and for a phone, where one unit is about one pixel."
_EDGE = 8.0
"Margin beside a plot that has no labels there."


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure, as two SVGs."""

    caption: str
    wide: str
    narrow: str


def _figure(key: str, caption: str, dataset: str, description: str, draw: Callable[[bool], Drawing]) -> Figure:
    title, description = shown(f"{caption}, {dataset}"), shown(description)
    wide, narrow = (
        draw(small).markup(key=f"{key}-{name}", title=title, description=description)
        for small, name in ((False, "w"), (True, "n"))
    )
    return Figure(caption=caption, wide=wide, narrow=narrow)


# --- differences ------------------------------------------------------------------------------------------------------


def differences(one: ComparedDataset, key: str) -> Figure:
    """Draw the difference in HITS@1 of every pair, with its interval."""
    tests = one.pairs
    if len(tests) > MOST_PAIRS:
        tests = tuple(test for test in tests if one.leader in (test.first, test.second))
    said = "; ".join(
        f"{test.first} minus {test.second}: {signed(test.hits_at_1)}, {verdict_of(test)}" for test in tests
    )
    return _figure(key, "Differences in HITS@1", one.dataset, said, lambda small: _differences(tests, small))


def _differences(tests: Sequence[PairedTest], small: bool) -> Drawing:
    names = [_shortened(f"{test.first} − {test.second}", 44) for test in tests]
    drawing, rows = _rows(names, small, height=22.0, right=190.0)
    ends = [bound for test in tests for bound in _bounds(test.hits_at_1)]
    scale = scale_over([0.0, *ends], rows.left, rows.right)
    _x_axis(drawing, scale, rows.bottom, "first minus second, HITS@1; filled: significant")
    drawing.line([(scale.at(0), 0), (scale.at(0), rows.bottom)], "axis")
    for row, (test, name) in enumerate(zip(tests, names, strict=True)):
        rows.label(drawing, row, name)
        y = rows.middle(row)
        _interval(drawing, scale, test.hits_at_1, y, "ink", 0, filled=test.significant)
        if not small:
            drawing.text(rows.right + 16, y, signed(test.hits_at_1))
    return drawing


# --- accuracy against speed -------------------------------------------------------------------------------------------


def accuracy_against_speed(one: ComparedDataset, costs: Mapping[str, Costs], key: str) -> Figure | None:
    """Draw HITS@1 against mentions per second; None where no run records its speed."""
    points = {
        name: (speed, one.metrics[name]["hits@1"])
        for name in one.systems
        if (speed := costs[name].mentions_per_second) is not None
    }
    if not points:
        return None
    said = "; ".join(f"{name}: {hits}, {speed:,.3g} mentions per second" for name, (speed, hits) in points.items())
    series = {name: place for place, name in enumerate(one.systems) if name in points}
    return _figure(
        key, "Accuracy against speed", one.dataset, said, lambda small: _against_speed(points, series, small)
    )


def _against_speed(points: Mapping[str, tuple[float, Estimate]], series: Mapping[str, int], small: bool) -> Drawing:
    drawing = Drawing(NARROW if small else WIDE)
    top, bottom, left = 28.0, 250.0, 48.0
    x = scale_over([speed for speed, _ in points.values()], left, drawing.width - _EDGE, logarithmic=True)
    y = scale_over([bound for _, hits in points.values() for bound in _bounds(hits)], bottom, top)
    drawing.text(0, 8, "HITS@1")
    for value, label in y.ticks():
        drawing.line([(left, y.at(value)), (drawing.width - _EDGE, y.at(value))], "gridline")
        drawing.text(left - 8, y.at(value), label, anchor="end")
    _x_axis(drawing, x, bottom, "mentions per second, faster to the right", top=top)
    for name, (speed, hits) in points.items():
        style = _series(series[name])
        if hits.low is not None and hits.high is not None:
            drawing.line([(x.at(speed), y.at(hits.low)), (x.at(speed), y.at(hits.high))], f"range {style}")
        drawing.mark(x.at(speed), y.at(hits.value), series[name], f"mark {style}", size=5.5)
    _legend(drawing, series)
    return drawing


# --- reliability ------------------------------------------------------------------------------------------------------


def reliability(one: ComparedDataset, key: str) -> Figure | None:
    """Draw accuracy against confidence; None where no system's scores are probabilities."""
    if not one.reliability:
        return None
    said = "; ".join(f"{name}: calibration error {one.metrics[name]['ece'].value:.3f}" for name in one.reliability)
    return _figure(key, "Reliability", one.dataset, said, lambda small: _reliability(one, small))


def _reliability(one: ComparedDataset, small: bool) -> Drawing:
    columns, left, gap = (2, 34.0, 42.0) if small else (4, 48.0, 52.0)
    drawing = Drawing(NARROW if small else WIDE)
    side = (drawing.width - left - _EDGE - gap * (columns - 1)) / columns
    drawing.text(0, 8, "share right")
    for place, (name, bins) in enumerate(one.reliability.items()):
        x0, y0 = left + place % columns * (side + gap), 52.0 + place // columns * (side + 84)
        x, y = Scale(0, 1, x0, x0 + side), Scale(0, 1, y0 + side, y0)
        drawing.text(x0, y0 - 16, _shortened(name, 18 if small else 26))
        for value, label in ((0.0, "0.0"), (0.5, "0.5"), (1.0, "1.0")):
            drawing.line([(x0, y.at(value)), (x0 + side, y.at(value))], "gridline")
            drawing.text(x.at(value), y0 + side + 14, label, anchor="middle")
            if place % columns == 0:
                drawing.text(x0 - 8, y.at(value), label, anchor="end")
        drawing.text(x0 + side / 2, y0 + side + 34, "probability given", anchor="middle")
        _curve(drawing, bins, x, y, one.systems.index(name))
        drawing.height = y0 + side + 48
    return drawing


def _curve(drawing: Drawing, bins: Sequence[ReliabilityBin], x: Scale, y: Scale, number: int) -> None:
    style = _series(number)
    drawing.line([(x.at(0), y.at(0)), (x.at(1), y.at(1))], "axis dashed")
    for found in bins:
        drawing.line([(x.at(found.sure), y.at(found.low)), (x.at(found.sure), y.at(found.high))], f"faint {style}")
    drawing.line([(x.at(found.sure), y.at(found.right)) for found in bins], f"curve {style}")
    for found in bins:
        drawing.mark(x.at(found.sure), y.at(found.right), number, f"mark {style}", size=3.5)


# --- slices -----------------------------------------------------------------------------------------------------------


def slices(one: ComparedDataset, key: str) -> Figure | None:
    """Draw every system on every slice that is neither empty nor the whole; None where there is none."""
    kept = [found for found in one.slices if found.values and found.n < one.n]
    if not kept:
        return None
    said = "; ".join(
        f"{found.name}, {found.n} mentions: "
        + ", ".join(f"{name} {value.value:.3f}" for name, value in found.values.items())
        for found in kept
    )
    return _figure(key, "Slices", one.dataset, said, lambda small: _slices(kept, one.systems, small))


def _slices(kept: Sequence[ComparedSlice], systems: Sequence[str], small: bool) -> Drawing:
    step = 13.0
    names = [f"{_shortened(found.name, 40)} ({found.n:,})" for found in kept]
    drawing, rows = _rows(names, small, height=step * len(systems) + 8.0, right=_EDGE)
    ends = [bound for found in kept for estimate in found.values.values() for bound in _bounds(estimate)]
    scale = scale_over(ends, rows.left, rows.right)
    _x_axis(drawing, scale, rows.bottom, "HITS@1; accuracy where no gold is in the KB")
    for row, (found, name) in enumerate(zip(kept, names, strict=True)):
        if row:
            drawing.line([(0, rows.top(row)), (rows.right, rows.top(row))], "gridline")
        rows.label(drawing, row, name)
        for place, system in enumerate(systems):
            y = rows.middle(row) + (place - (len(systems) - 1) / 2) * step
            _interval(drawing, scale, found.values[system], y, _series(place), place)
    _legend(drawing, {name: place for place, name in enumerate(systems)})
    return drawing


# --- parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Positions of the rows of a figure: labels left of the plot, or above each row on a narrow screen."""

    small: bool
    height: float
    left: float
    right: float
    bottom: float

    def top(self, row: int) -> float:
        return row * self.height

    def middle(self, row: int) -> float:
        """Return the height at which a row's marks are centred."""
        return self.top(row) + (self.height + (22 if self.small else 0)) / 2

    def label(self, drawing: Drawing, row: int, name: str) -> None:
        """Write the name of a row."""
        if self.small:
            drawing.text(0, self.top(row) + 12, name, style="backed")
        else:
            drawing.text(self.left - 12, self.middle(row), name, anchor="end")


def _rows(names: Sequence[str], small: bool, *, height: float, right: float) -> tuple[Drawing, _Rows]:
    """Lay out one row per name.  height: for the marks of a row; right: margin to the right on a wide screen."""
    drawing = Drawing(NARROW if small else WIDE)
    height += 22 if small else 8
    rows = _Rows(
        small=small,
        height=height,
        left=_EDGE if small else 14 + max(map(text_width, names)),
        right=drawing.width - (_EDGE if small else right),
        bottom=height * len(names),
    )
    return drawing, rows


def _x_axis(drawing: Drawing, scale: Scale, bottom: float, label: str, *, top: float = 0.0) -> None:
    """Draw vertical grid lines, the axis, its ticks and its label, and end the drawing below them."""
    ticks = scale.ticks(5 if drawing.width == NARROW else 10)
    for value, text in ticks:
        drawing.line([(scale.at(value), top), (scale.at(value), bottom)], "gridline")
        drawing.text(scale.at(value), bottom + 16, text, anchor="middle")
    drawing.line([(scale.start, bottom), (scale.end, bottom)], "axis")
    drawing.text((scale.start + scale.end) / 2, bottom + 38, label, anchor="middle")
    drawing.height = bottom + 52


def _interval(
    drawing: Drawing, scale: Scale, one: Estimate, y: float, style: str, number: int, *, filled: bool = True
) -> None:
    if one.low is not None and one.high is not None:
        drawing.line([(scale.at(one.low), y), (scale.at(one.high), y)], f"range {style}")
    drawing.mark(scale.at(one.value), y, number, f"{'mark' if filled else 'hollow'} {style}")


def _legend(drawing: Drawing, series: Mapping[str, int]) -> None:
    """Name the marks below the drawing, as many per line as fit."""
    x, y = 8.0, drawing.height + 12
    for name, number in series.items():
        label = _shortened(name, 34)
        if x > 8 and x + 16 + text_width(label) > drawing.width:
            x, y = 8.0, y + 24
        drawing.mark(x, y, number, f"mark {_series(number)}")
        drawing.text(x + 14, y, label)
        x += 40 + text_width(label)
    drawing.height = y + 14


def _bounds(one: Estimate) -> list[float]:
    return [one.value if bound is None else bound for bound in (one.low, one.value, one.high)]


def _series(number: int) -> str:
    return f"series-{number % N_SERIES}"


def _shortened(name: str, longest: int) -> str:
    name = shown(name)
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[-(longest - longest // 2 - 1) :]}"
