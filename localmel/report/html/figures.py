"""The figures of a comparison: differences, accuracy against cost, reliability, slices.

In: one compared dataset.  Out: drawings, each for a wide and for a narrow screen, with words for those who do not see
them.  Every number that is drawn stands in a table too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localmel.evaluate.answer_details import Costs
from localmel.evaluate.comparison import ComparedDataset, ComparedSlice
from localmel.evaluate.resamples import Estimate
from localmel.evaluate.significance import PairedTest
from localmel.report.comparison_sentences import signed, verdict_of
from localmel.report.html.svg import (
    GRID,
    INK,
    MARKERS,
    MUTED,
    NARROW,
    PAPER,
    SERIES,
    TEXT,
    WIDE,
    Styles,
    drawing,
    svg_of,
)
from localmel.report.html.text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PAIRS = 15
"Of more pairs only those with the leader are drawn."
_ROW = 0.42
"Height of a row in inches."
_LONGEST_NAME = 34
_BACKED = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
"Behind a text that lines would cross."


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One figure, twice."""

    caption: str
    "Above it; the section says which dataset it is of."
    wide: str
    narrow: str


def _drawn(
    key: str, caption: str, dataset: str, description: str, styles: Styles, draw: Callable[[bool], Figure]
) -> Drawing:
    title, description = shown(f"{caption}, {dataset}"), shown(description)
    with drawing():
        wide, narrow = (
            svg_of(draw(small), key=f"{key}-{name}", title=title, description=description, styles=styles)
            for small, name in ((False, "w"), (True, "n"))
        )
    return Drawing(caption=caption, wide=wide, narrow=narrow)


def forest(one: ComparedDataset, key: str, styles: Styles) -> Drawing:
    """The difference in HITS@1 of every pair, with its interval."""
    tests = (
        one.pairs
        if len(one.pairs) <= MOST_PAIRS
        else [test for test in one.pairs if one.leader in (test.first, test.second)]
    )
    said = "; ".join(
        f"{test.first} minus {test.second}: {signed(test.hits_at_1)}, {verdict_of(test)}" for test in tests
    )
    return _drawn(key, "Differences in HITS@1", one.dataset, said, styles, lambda small: _forest(tests, small))


def _forest(tests: Sequence[PairedTest], small: bool) -> Figure:
    figure = _figure(small, rows=len(tests) * (1.5 if small else 1.0) + 1.4)
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=1)
    for row, test in enumerate(tests):
        _interval(axes, test.hits_at_1, row, INK, "o", filled=test.significant)
        name = _name(f"{test.first} − {test.second}", 48 if small else 44)
        if small:
            axes.text(
                0, row - 0.34, name, transform=axes.get_yaxis_transform(), fontsize=TEXT - 1, va="center", bbox=_BACKED
            )
        else:
            axes.text(1.02, row, signed(test.hits_at_1), transform=axes.get_yaxis_transform(), va="center")
    axes.set_ylim(len(tests) - 0.4, -0.8 if small else -0.6)
    names = [_name(f"{test.first} − {test.second}", 44) for test in tests]
    axes.set_yticks([] if small else range(len(tests)), [] if small else names)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("first minus second, HITS@1; filled: beyond chance")
    return figure


def cost_scatter(one: ComparedDataset, costs: Mapping[str, Costs], key: str, styles: Styles) -> Drawing | None:
    """HITS@1 against mentions per second; None where no run tells its speed."""
    points = {
        name: (speed, one.metrics[name]["hits@1"])
        for name in one.systems
        if (speed := costs[name].mentions_per_second) is not None
    }
    if not points:
        return None
    said = "; ".join(f"{name}: {hits}, {speed:,.3g} mentions per second" for name, (speed, hits) in points.items())
    order = list(one.systems)
    return _drawn(
        key, "Accuracy against speed", one.dataset, said, styles, lambda small: _scatter(points, order, small)
    )


def _scatter(points: Mapping[str, tuple[float, Estimate]], order: Sequence[str], small: bool) -> Figure:
    from matplotlib.ticker import LogFormatter

    figure = _figure(small, rows=9 + (len(points) * 0.75 if small else 0))
    axes = figure.subplots()
    axes.set_xscale("log")
    for name, (speed, hits) in points.items():
        number = order.index(name) % len(SERIES)
        if hits.low is not None and hits.high is not None:
            axes.plot([speed, speed], [hits.low, hits.high], color=SERIES[number], linewidth=2, solid_capstyle="butt")
        axes.plot(
            speed,
            hits.value,
            MARKERS[number],
            color=SERIES[number],
            markersize=9,
            markeredgecolor=PAPER,
            label=_name(name),
        )
    axes.margins(0.12)
    axes.xaxis.set_major_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.6)))
    axes.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.6)))
    axes.tick_params(axis="x", which="both", length=3, pad=4)
    axes.set(xlabel="mentions per second, faster to the right", ylabel="HITS@1")
    axes.grid()
    _legend(figure, axes, small)
    return figure


def reliability(one: ComparedDataset, key: str, styles: Styles) -> Drawing | None:
    """How often right, against how sure; None where no system means its probability as one."""
    if not one.reliability:
        return None
    said = "; ".join(f"{name}: calibration error {one.metrics[name]['ece'].value:.3f}" for name in one.reliability)
    return _drawn(key, "Reliability", one.dataset, said, styles, lambda small: _reliability(one, small))


def _reliability(one: ComparedDataset, small: bool) -> Figure:
    columns = 2 if small else 4
    rows = -(-len(one.reliability) // columns)
    figure = _figure(small, rows=rows * (5.4 if small else 7.6) + 0.6)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(one.reliability) :]:
        panel.set_visible(False)
    for panel, (name, bins) in zip(panels.flat, one.reliability.items(), strict=False):
        number = one.systems.index(name) % len(SERIES)
        panel.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        sure = [found.sure for found in bins]
        panel.vlines(
            sure, [found.low for found in bins], [found.high for found in bins], color=SERIES[number], alpha=0.45
        )
        panel.plot(sure, [found.right for found in bins], marker=MARKERS[number], markersize=5, color=SERIES[number])
        panel.set_title(_name(name, 16 if small else 24), loc="left")
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        panel.tick_params(labelbottom=True)
        panel.grid()
    for panel in panels[:, 0]:
        panel.set_ylabel("share right")
    for place in range(min(columns, len(one.reliability))):
        panels[(len(one.reliability) - 1 - place) // columns, place].set_xlabel("probability given")
    return figure


def slices(one: ComparedDataset, key: str, styles: Styles) -> Drawing | None:
    """Every system on every slice that is neither empty nor the whole; None where there is none."""
    kept = [found for found in one.slices if found.values and found.n < one.n]
    if not kept:
        return None
    said = "; ".join(
        f"{found.name}, {found.n} mentions: "
        + ", ".join(f"{name} {value.value:.3f}" for name, value in found.values.items())
        for found in kept
    )
    return _drawn(key, "Slices", one.dataset, said, styles, lambda small: _slices(kept, one.systems, small))


def _slices(kept: Sequence[ComparedSlice], systems: Sequence[str], small: bool) -> Figure:
    tall = 0.34 * len(systems) + (1.1 if small else 0.45)
    figure = _figure(small, rows=len(kept) * tall + 1.6 + len(systems) * (0.75 if small else 0.2))
    axes = figure.subplots()
    step, top = 0.34 / tall, 0.38 / tall  # the label of a row on a phone stands above its marks
    for row, found in enumerate(kept):
        label = f"{_name(found.name, 40)} ({found.n:,})"
        if small:
            axes.text(
                0,
                row - 0.5 + top,
                label,
                transform=axes.get_yaxis_transform(),
                fontsize=TEXT - 1,
                va="center",
                bbox=_BACKED,
            )
        for place, name in enumerate(systems):
            number = place % len(SERIES)
            at = row + (top / 2 + 0.04 if small else 0.0) + (place - (len(systems) - 1) / 2) * step
            _interval(
                axes, found.values[name], at, SERIES[number], MARKERS[number], label=_name(name) if not row else ""
            )
        if row:
            axes.axhline(row - 0.5, color=GRID, linewidth=0.8)
    axes.set_ylim(len(kept) - 0.5, -0.5)
    labels = [f"{_name(found.name, 40)} ({found.n:,})" for found in kept]
    axes.set_yticks([] if small else range(len(kept)), [] if small else labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("HITS@1; accuracy where no gold is in the KB")
    _legend(figure, axes, small)
    return figure


def _figure(small: bool, *, rows: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(NARROW if small else WIDE, rows * _ROW), dpi=72, layout="constrained")


def _interval(
    axes: Any, one: Estimate, row: float, colour: str, marker: str, *, filled: bool = True, label: str = ""
) -> None:
    if one.low is not None:
        axes.plot([one.low, one.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(
        one.value,
        row,
        marker,
        markersize=8 if filled else 7,
        color=colour,
        markerfacecolor=colour if filled else PAPER,
        markeredgecolor=colour if not filled else PAPER,
        markeredgewidth=1.0 if filled else 1.8,
        label=label or None,
        linestyle="none",
    )


def _legend(figure: Figure, axes: Any, small: bool) -> None:
    handles, labels = axes.get_legend_handles_labels()
    longest = max((len(label) for label in labels), default=1)
    columns = 1 if small else max(1, min(len(labels), 150 // (longest + 5)))
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, handletextpad=0.4, borderaxespad=0)


def _name(name: str, longest: int = _LONGEST_NAME) -> str:
    name = shown(name)
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[-(longest - longest // 2 - 1) :]}"
