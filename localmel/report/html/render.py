"""Fill a template: one HTML file with everything in it, and nothing in it that could request anything more.

In: the name of a template and its values.  Out: a page.  Every text is escaped except markup made here; style and
script are allowed by their hashes alone, so that not even a mistake in a template could run a caption's script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_INTERVAL = re.compile(r"(?P<value>[^\[]*\S) (?P<interval>\[[^\]]*\])")
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"Embeddings, overrides and isolates affect more than the word they are in.  Direction marks (RLM, LRM) do not."
_JOINERS_AND_MARKS = frozenset("\u200c\u200d\u200e\u200f\u00ad\u061c")


def render(template: str, values: Mapping[str, Any], *, script: str = "") -> str:
    """Return the page.  script: the name of a file in the folder of the templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    css, code = _read("style.css"), _read(script) if script else ""
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src 'sha256-{_hash(css)}'",
            f"script-src 'sha256-{_hash(code)}'" if code else "script-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shown"] = shown
    environment.filters["parts"] = _parts
    return environment.get_template(template).render(**values, policy=policy, css=Markup(css), code=Markup(code))


def trusted(markup: str) -> Any:
    """Mark as safe what `svg.Drawing` made, which escapes every text in it."""
    from markupsafe import Markup

    return Markup(markup)


def shown(text: str) -> str:
    """Make the invisible visible: control characters become `[U+202E]`, line breaks and tabs become spaces."""
    return "".join(_visible(char) for char in text)


def _visible(char: str) -> str:
    if char in _JOINERS_AND_MARKS or (char.isprintable() and char not in _BIDI_CONTROLS):
        return char
    return " " if char.isspace() else f"[U+{ord(char):04X}]"


def _parts(cell: str) -> tuple[str, str]:
    """Split `0.871 [0.856, 0.885]` into the number and its interval; any other text stays whole."""
    found = _INTERVAL.fullmatch(cell)
    return (found["value"], found["interval"]) if found else (cell, "")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
