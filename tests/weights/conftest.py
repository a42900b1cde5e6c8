"""A home of its own for every test, and a small model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localmel.weights import catalog as catalog_module
from localmel.weights.catalog import catalog
from tests.weights import small


@pytest.fixture
def stands_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`stands_for(name, parameters=16)`: what is held against this model of the catalog finds these facts of it."""

    def small_one(name: str, **facts: Any) -> None:
        changed = {**catalog(), name: replace(catalog()[name], **facts)}
        monkeypatch.setattr(catalog_module, "catalog", lambda: changed)

    return small_one


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty LOCALMEL_HOME."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("LOCALMEL_HOME", str(folder))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a small language model in two shards."""
    return small.write(tmp_path / "small", small.language_model(shards=2))
