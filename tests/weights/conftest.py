"""A home of its own for every test, and a small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.weights import small


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
