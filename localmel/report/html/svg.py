"""A matplotlib figure as SVG that belongs to its page: its colours, its font, words for those who do not see it.

In: a figure drawn in the colours named here.  Out: an `<svg>` without style attributes, its rules collected in Styles,
so that a page can forbid every style but its own.  The same figure gives the same text.  Knows not what is drawn."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0a0{number}0b" for number in range(8))
"Stand for colours that the page defines for light and dark: `--ink`, `--muted`, `--grid`, `--paper`, `--series-N`."
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"A system has its own shape too: colour alone does not tell them apart."
WIDE, NARROW = 14.1, 4.75
"Widths in inches of 72 units: for a desktop and for a phone, where one unit is about one pixel."
TEXT = 13.0
"Font size in units."

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}
_STYLE = re.compile(r' style="([^"]*)"')
_COLOUR = re.compile("|".join(_VARIABLES))
_FONT = re.compile(r"(font: [\d.]+px |font-family: )[^;]*")
_REFERENCE = re.compile(r'(\bid="|url\(#|xlink:href="#)')
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<defs>\s*<style[^>]*>.*?</style>\s*</defs>", re.DOTALL)
_OPENING = re.compile(r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>")


@dataclass(slots=True)
class Styles:
    """Style attributes that became classes, in the order in which they came."""

    names: dict[str, str] = field(default_factory=dict)

    def name(self, style: str) -> str:
        """The class that stands for a style attribute."""
        return self.names.setdefault(style, f"s{len(self.names)}")

    def css(self) -> str:
        """One rule for each."""
        return "\n".join(f".{name}{{{style}}}" for style, name in self.names.items())


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's settings for what is drawn inside: page colours, text left as text, no markup in names."""
    from matplotlib import rc_context

    settings: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": TEXT,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": TEXT,
        "axes.axisbelow": True,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "grid.color": GRID,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def svg_of(figure: Figure, *, key: str, title: str, description: str, styles: Styles) -> str:
    """The figure as markup.  `key` is unique on the page: letters, digits and dashes."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = _DROPPED.sub("", text[text.index("<svg") :])
    text = _REFERENCE.sub(rf"\g<1>{key}-", text)
    text = _STYLE.sub(lambda found: f' class="{styles.name(_page_style(found[1]))}"', text)
    box = _OPENING.search(text)
    assert box is not None
    opening = (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{key}-t {key}-d" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(description)}</desc>'
    )
    return opening + text[box.end() :].strip()


def _page_style(style: str) -> str:
    style = _COLOUR.sub(lambda found: _VARIABLES[found[0]], style)
    return _FONT.sub(r"\1var(--font)", style).strip()
