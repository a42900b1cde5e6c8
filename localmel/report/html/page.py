"""One HTML file from a template: everything in it, nothing outside it, and nothing in it that could ask for more.

In: a template's name and what it shows.  Out: a page.  Everything is escaped but what is made here; style and script
are allowed by their hashes alone, so that not even an error in a template would run a caption's script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localmel.report.html.svg import Styles
from localmel.report.html.text import shown

_FOLDER = Path(__file__).parent
_INTERVAL = re.compile(r"(?P<value>[^\[]*\S) (?P<interval>\[[^\]]*\])")


def render(template: str, values: Mapping[str, Any], styles: Styles, *, script: str = "") -> str:
    """The page.  `script` names a file beside the templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    css = f"{_read('style.css')}\n{styles.css()}\n"
    code = _read(script) if script else ""
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
    return environment.get_template(template).render(
        **values,
        policy=policy,
        css=Markup(css),
        code=Markup(code),
    )


def trusted(markup: str) -> Any:
    """Markup made by `svg_of`, which escapes every text in it."""
    from markupsafe import Markup

    return Markup(markup)


def _parts(cell: str) -> tuple[str, str]:
    """`0.871 [0.856, 0.885]` -> the number and its interval; any other text is whole."""
    found = _INTERVAL.fullmatch(cell)
    return (found["value"], found["interval"]) if found else (cell, "")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
