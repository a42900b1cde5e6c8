"""A network on disk: it comes back as it was, and only for the spaces it was trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.crowds import PATCH_WIDTH, SETTINGS, WIDTH, crowd, given
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact
from localmel.matchers.m3el.kind import load_m3el, save_m3el
from localmel.matchers.m3el.network import M3el
from localmel.store.artifacts import sha256_of

TEXT = Space(name="texts-16", width=WIDTH, weights_sha256="a" * 64)
IMAGES = Space(name="pictures-12", width=PATCH_WIDTH, weights_sha256="b" * 64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_m3el(tmp_path / "m3el", M3el(SETTINGS), TEXT, IMAGES, {"seed": 0})
    return tmp_path / "m3el"


@torch.no_grad()
def test_a_network_comes_back_with_the_same_scores(folder: Path) -> None:
    torch.manual_seed(0)
    saved, found = M3el(SETTINGS).eval(), load_m3el(folder)
    drawn = crowd(5, 3, clustered=False)
    sides = [(made.mentions(given(drawn.mentions)), made.entities(given(drawn.entities)))
             for made in (saved, found.network)]  # fmt: skip
    torch.testing.assert_close(saved.scores(*sides[0]), found.network.scores(*sides[1]), rtol=0, atol=0)
    assert (found.network.settings, found.text_space, found.image_space) == (SETTINGS, TEXT, IMAGES)
    assert found.card == {"seed": 0}
    assert not found.network.training


def test_the_same_network_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_m3el(tmp_path / "again", M3el(SETTINGS), TEXT, IMAGES, {"seed": 0})
    for name in ("matcher.safetensors", "matcher.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_vectors_of_another_space_are_refused_with_both_names(folder: Path) -> None:
    found = load_m3el(folder)
    found.check_spaces(TEXT, IMAGES)
    with pytest.raises(BadInput, match=r"texts of texts-16 \(weights aaaaaaaaaaaa\), not of other"):
        found.check_spaces(replace(TEXT, name="other"), IMAGES)
    with pytest.raises(BadInput, match="weights cccccccccccc"):
        found.check_spaces(TEXT, replace(IMAGES, weights_sha256="c" * 64))
    with pytest.raises(BadInput, match=r"pictures of pictures-12 .*not of no space at all"):
        found.check_spaces(TEXT)


def test_a_network_of_texts_takes_any_pictures(tmp_path: Path) -> None:
    save_m3el(tmp_path / "m3el", M3el(replace(SETTINGS, image_width=0, patch_width=0)), TEXT, None, {})
    found = load_m3el(tmp_path / "m3el")
    found.check_spaces(TEXT, IMAGES)
    found.check_spaces(TEXT)


def test_a_damaged_or_foreign_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match=r"matcher\.json"):
        load_m3el(tmp_path / "nowhere")
    card = json.loads((folder / "matcher.json").read_text())
    for change, said in (
        ({"kind": "dwe"}, "dwe version 1"),
        ({"version": 2}, "version 2"),
        ({"settings": {**card["settings"], "colour": 1}}, "colour"),
        ({"settings": {**card["settings"], "width": 7}}, "size mismatch"),
        ({"weights_sha256": "0" * 64}, "sha256"),
    ):
        (folder / "matcher.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(CorruptArtifact, match=said):
            load_m3el(folder)


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    weights = load_file(folder / "matcher.safetensors")
    weights["words.key.bias"][0] = torch.nan
    save_file(weights, folder / "matcher.safetensors")
    card = json.loads((folder / "matcher.json").read_text())
    card["weights_sha256"] = sha256_of(folder / "matcher.safetensors")
    (folder / "matcher.json").write_text(json.dumps(card))
    with pytest.raises(CorruptArtifact, match=r"no numbers in words\.key\.bias"):
        load_m3el(folder)
