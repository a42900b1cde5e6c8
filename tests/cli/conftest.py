"""A KB of one's own, built once by the command line itself; mentions and a KB that matchers are trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_train import FAMILIES, TRADES, rows, write

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


@pytest.fixture(scope="module")
def one_processor() -> Iterator[None]:
    """Small products on several threads wait for each other on a busy machine."""
    import torch

    threads, before = torch.get_num_threads(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Mentions of people of whom the sentence tells the trade, in both splits."""
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "one-train.jsonl", rows("one morning", 24))
    write(folder / "one-val.jsonl", rows("one evening", 12))
    return folder


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Path:
    """The people that `data` means: namesakes of several trades."""
    people = [(f"{family}-{trade}", family, trade) for family in FAMILIES for trade in TRADES]
    entities = [{"id": person, "label": family, "description": f"a {trade}"} for person, family, trade in people]
    return change_kb(entities, [(person, "occupation", "", trade) for person, _, trade in people])
