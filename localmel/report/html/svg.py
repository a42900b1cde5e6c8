"""Draw SVG that belongs to its page: colours, fonts and line widths are classes of style.css.

In: lines, marks and texts in units of about one pixel.  Out: an `<svg>` with a title and a description for screen
readers and without style attributes, so that a page can forbid every style but its own.  Knows not what is drawn."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

TEXT = 13.0
"Font size of texts in units, as in style.css."
N_SERIES = 8
"Colours (`series-0`, ... in style.css) and marks: colour alone does not distinguish systems for everyone."
_HALF_PLUS = ((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4))
_PLUS = (*_HALF_PLUS, *((-x, -y) for x, y in _HALF_PLUS))
_MARKS: tuple[tuple[tuple[float, float], ...], ...] = (
    tuple((math.cos(turn * math.pi / 12), math.sin(turn * math.pi / 12)) for turn in range(24)),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0.0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
    ((0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)),
    ((0.0, 1.1), (-1.1, -0.9), (1.1, -0.9)),
    _PLUS,
    tuple(((x - y) * math.sqrt(0.5), (x + y) * math.sqrt(0.5)) for x, y in _PLUS),
    tuple(
        (radius * math.sin(turn * math.pi / 5), -radius * math.cos(turn * math.pi / 5))
        for turn, radius in enumerate((1.3, 0.55) * 5)
    ),
)
"Outlines around (0, 0): circle, square, triangle, diamond, triangle down, plus, cross, star."


@dataclass(slots=True)
class Drawing:
    """An SVG being drawn; y grows downwards."""

    width: float
    height: float = 0.0
    "May be set last."
    parts: list[str] = field(default_factory=list)

    def line(self, points: Iterable[tuple[float, float]], style: str) -> None:
        """Draw a line through the points."""
        self.parts.append(f'<polyline class="{style}" points="{_points(points)}"/>')

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", style: str = "") -> None:
        """Write a text, centred vertically on y.  anchor: start, middle or end."""
        given = f' class="{style}"' if style else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{given}>{escape(text)}</text>')

    def mark(self, x: float, y: float, number: int, style: str, *, size: float = 4.5) -> None:
        """Draw the mark of a series."""
        outline = ((x + size * dx, y + size * dy) for dx, dy in _MARKS[number % N_SERIES])
        self.parts.append(f'<polygon class="{style}" points="{_points(outline)}"/>')

    def markup(self, *, key: str, title: str, description: str) -> str:
        """Return the `<svg>`.  key: unique on the page, of letters, digits and dashes."""
        return (
            f'<svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" role="img" aria-labelledby="{key}-t {key}-d" '
            f'xmlns="http://www.w3.org/2000/svg"><title id="{key}-t">{escape(title)}</title>'
            f'<desc id="{key}-d">{escape(description)}</desc>{"".join(self.parts)}</svg>'
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from `low` to `high` to positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value."""
        low, high, here = (math.log(one) if self.logarithmic else one for one in (self.low, self.high, value))
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 7) -> list[tuple[float, str]]:
        """Return round values within the scale with their labels, at most so many (fewer than `most` decades)."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ratio = self.high / self.low
            steps = (1, 2, 3, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 500 else (1,)
            values = [step * 10.0**power for power in powers for step in steps]
            inside = [(value, f"{value:,g}") for value in values if self.low <= value <= self.high]
            if len(inside) > 1:
                return inside
        least = (self.high - self.low) / most
        power = math.floor(math.log10(least))
        step = next(one * 10.0**power for one in (1, 2, 5, 10) if one * 10.0**power >= least)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return [(number * step, f"{number * step:.{decimals}f}".replace("-", "−")) for number in numbers]


def scale_over(values: Sequence[float], start: float, end: float, *, logarithmic: bool = False) -> Scale:
    """Return a scale that contains the values with a margin; a single value is put in the middle."""
    low, high = min(values), max(values)
    if logarithmic:
        margin = (high / low) ** 0.12 if high > low else 2.0
        return Scale(low / margin, high * margin, start, end, logarithmic=True)
    margin = 0.06 * (high - low) or 0.05
    return Scale(low - margin, high + margin, start, end)


def text_width(text: str, size: float = TEXT) -> float:
    """Estimate the width of a text in units, generously: the font is the reader's own."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return size * (0.58 * (len(text) - wide) + 1.05 * wide)


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
