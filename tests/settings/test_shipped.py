"""Files that travel with the package are found in a checkout and in an installed wheel, or missed by name."""

from __future__ import annotations

from pathlib import Path

import pytest

import localmel.settings.shipped as module
from localmel.errors import CorruptArtifact
from localmel.settings.shipped import shipped, weights_folder


def test_a_checkout_finds_them_beside_the_package() -> None:
    assert shipped("examples").is_dir()
    assert shipped("weights/minilm-l6-v2/graph.onnx").is_file()


def test_a_wheel_finds_them_inside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    monkeypatch.setattr(module, "_IN_WHEEL", tmp_path)
    assert shipped("examples") == tmp_path / "examples"
    with pytest.raises(CorruptArtifact, match="installation of localmel lacks 'weights/none'") as caught:
        shipped("weights/none")
    assert "pip install --force-reinstall" in caught.value.hint


def test_a_checkout_that_lacks_one_says_how_to_get_it_back() -> None:
    with pytest.raises(CorruptArtifact, match="checkout of localmel lacks 'weights/none'") as caught:
        shipped("weights/none")
    assert "checkout -- weights/none" in caught.value.hint


def test_weights_are_named_under_weights_or_given_by_a_path(tmp_path: Path) -> None:
    assert weights_folder("evidence-scorer") == shipped("weights/evidence-scorer")
    assert weights_folder(str(tmp_path)) == tmp_path
    assert weights_folder("runs/lab/seed-0/network") == Path("runs/lab/seed-0/network")
    with pytest.raises(CorruptArtifact):
        weights_folder("evidence-scorer-of-nobody")
