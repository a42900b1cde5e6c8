"""A KB of one's own, built once by the command line itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOSTILE = "Evil \x1b[31m[bold]Jordan[/bold]\x07\u202e"
"A name that would colour, ring, format and turn a terminal that trusts it."


@pytest.fixture(scope="session")
def own_kb(
    home: Path, tables: Callable[..., list[Any]], localmel: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The name of a KB with three entities, indexed."""
    entities = [
        {"id": "x1", "label": "Ada Jordan", "description": "engineer [link=http://evil]here[/link]", "aliases": ["AJ"]},
        {"id": "x2", "label": HOSTILE.replace("\x1b", "").replace("\x07", ""), "description": "[red]" * 3},
        {"id": "x3", "label": "Ost GmbH", "popularity": 2},
    ]
    facts = [("x1", "employer", "x3", "Ost GmbH"), ("x3", "industry", "", "bridges")]
    built = localmel("kb", "build", "own", *tables(tmp_path_factory.mktemp("own"), entities, facts), "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["entities"] == 3
    return "own"
