"""The card of a tuned encoder says which model reads its folder; what cannot be read is no MiniLM."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from localmel.errors import CorruptArtifact, MissingWeights
from localmel.weights.catalog import MINILM
from localmel.weights.find import find_model
from localmel.weights.sources import adopt
from localmel.weights.tuned import CLIP, TunedCard, folder_named, is_minilm, tuned_card, write_tuned_card
from tests.weights.tuned_folders import small_tuned_minilm

CARD = TunedCard(model=MINILM.name, sha256="a" * 64, tuned_from={"name": MINILM.name}, facts={"seed": 1})


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert tuned_card(tmp_path) is None
    write_tuned_card(tmp_path, CARD)
    assert tuned_card(tmp_path) == CARD
    CARD.check(tmp_path, "a" * 64)
    with pytest.raises(CorruptArtifact, match="its card says aaaa"):
        CARD.check(tmp_path, "b" * 64)


def test_files_beside_the_weights_are_held_against_the_card(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    whole = replace(CARD, files={"config.json": hashlib.sha256(b"{}").hexdigest()})
    write_tuned_card(tmp_path, whole)
    assert tuned_card(tmp_path) == whole
    whole.check(tmp_path, CARD.sha256)
    (tmp_path / "config.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(CorruptArtifact, match=r"config\.json has changed since it was tuned") as changed:
        whole.check(tmp_path, CARD.sha256)
    assert "--tune-encoder" in changed.value.hint
    (tmp_path / "config.json").unlink()
    with pytest.raises(MissingWeights, match=r"config\.json is missing"):
        whole.check(tmp_path, CARD.sha256)
    CARD.check(tmp_path, CARD.sha256)  # of a card from before files were written down


def test_a_name_means_what_was_installed_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    place = small_tuned_minilm(tmp_path / "encoder")
    assert folder_named("encoder") is None
    assert not is_minilm("encoder")
    assert not is_minilm("no name")
    adopt(place)
    assert folder_named("encoder") == place
    assert is_minilm("encoder")


def test_which_model_a_setting_means(tmp_path: Path) -> None:
    assert is_minilm(MINILM.name)
    assert not is_minilm("clip-vit-b-32-openai")
    assert not is_minilm(str(tmp_path))
    assert not is_minilm(str(tmp_path / "nowhere"))
    assert not is_minilm("~nobody-of-that-name/encoder")
    write_tuned_card(tmp_path, CARD)
    assert is_minilm(str(tmp_path))
    write_tuned_card(tmp_path, replace(CARD, model=CLIP))
    assert not is_minilm(str(tmp_path))
    (tmp_path / "encoder.json").write_text("{", encoding="utf-8")
    assert not is_minilm(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"kind": "m3el"}',
        '{"kind": "tuned encoder", "version": 1, "model": "bert"}',
        "[" * 9999,
        '{"kind": "tuned encoder", "version": 1, "model": "clip", "sha256": "", "tuned_from": {}, "facts": {},'
        ' "files": {"../a": ""}}',
    ],
)
def test_what_is_no_card_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text(text, encoding="utf-8")
    with pytest.raises(CorruptArtifact, match=r"cannot read .*encoder\.json"):
        tuned_card(tmp_path)


def test_a_tuned_folder_without_weights_is_made_again_by_training(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(MissingWeights, match=r"model\.safetensors") as missing:
        find_model(str(tmp_path))
    assert "--tune-encoder" in missing.value.hint
