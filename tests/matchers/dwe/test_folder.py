"""A DWE+ network on disk: it comes back as it was, and only for the spaces it was trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact
from localmel.matchers.dwe.kind import load_dwe, save_dwe
from localmel.matchers.dwe.network import Dwe, DweSettings
from localmel.matchers.m3el.kind import load_m3el
from tests.matchers.dwe.test_network import ENTITY, SETTINGS, features

TEXT = Space(name="texts-12", width=12, weights_sha256="a" * 64)
IMAGES = Space(name="pictures-8", width=8, weights_sha256="b" * 64)
OFF = replace(SETTINGS, without=("identity", "faces"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_dwe(tmp_path / "dwe", Dwe(OFF), TEXT, IMAGES, {"seed": 0})
    return tmp_path / "dwe"


@torch.no_grad()
def test_a_network_comes_back_with_the_same_scores_and_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved, found = Dwe(OFF).eval(), load_dwe(folder)
    mentions, entities = features(3), features(5, ENTITY)
    scores = [made.scores(made.mentions(mentions), made.entities(entities)) for made in (saved, found.network)]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0)
    assert (found.network.settings, found.text_space, found.image_space) == (OFF, TEXT, IMAGES)
    assert not found.network.training
    save_dwe(tmp_path / "again", found.network, TEXT, IMAGES, {"seed": 0})
    for name in ("matcher.safetensors", "matcher.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_matcher_trained_for_another_space_is_refused_with_both_names(folder: Path, tmp_path: Path) -> None:
    found = load_dwe(folder)
    found.check_spaces(TEXT, IMAGES)
    with pytest.raises(BadInput, match=r"texts of texts-12 \(weights aaaaaaaaaaaa\), not of minilm"):
        found.check_spaces(replace(TEXT, name="minilm"), IMAGES)
    with pytest.raises(BadInput, match="weights cccccccccccc"):
        found.check_spaces(TEXT, replace(IMAGES, weights_sha256="c" * 64))
    save_dwe(tmp_path / "texts", Dwe(DweSettings(text_width=12, width=12, heads=3)), TEXT, None, {})
    load_dwe(tmp_path / "texts").check_spaces(TEXT, IMAGES)


def test_a_damaged_or_foreign_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="DWE"):
        load_dwe(tmp_path / "nowhere")
    with pytest.raises(CorruptArtifact, match="dwe version 1"):
        load_m3el(folder)
    card = json.loads((folder / "matcher.json").read_text())
    for change, said in (
        ({"settings": {**card["settings"], "colour": 1}}, "colour"),
        ({"settings": {**card["settings"], "width": 24}}, "size mismatch"),
        ({"settings": {**card["settings"], "heads": 5}}, "5 heads"),
        ({"weights_sha256": "0" * 64}, "sha256"),
    ):
        (folder / "matcher.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(CorruptArtifact, match=said):
            load_dwe(folder)
