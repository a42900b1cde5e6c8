"""The encoders of a profile: MiniLM for texts, a CLIP for texts and pictures, by name or by path."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.encode.clip import Clip
from localmel.encode.minilm import MiniLM
from localmel.encode.registry import open_encoder
from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights
from localmel.settings import EncodeSettings
from localmel.weights.install import install_bundle
from localmel.weights.pack import pack
from tests.weights.tuned_folders import small_tuned_minilm


def test_the_default_reads_texts_only() -> None:
    found = open_encoder(EncodeSettings())
    assert isinstance(found.text, MiniLM)
    assert found.image is None


def test_a_clip_model_reads_texts_and_pictures(tiny_models: Callable[[str], Path]) -> None:
    found = open_encoder(EncodeSettings(model=str(tiny_models("tiny-clip"))))
    assert isinstance(found.text, Clip)
    assert found.image is found.text
    assert found.image.image_space == found.text.space


def test_a_model_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match="clip-vit-b-99"):
        open_encoder(EncodeSettings(model="clip-vit-b-99"))


def test_a_tuned_minilm_is_found_by_the_name_under_which_it_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    place = small_tuned_minilm(tmp_path / "seed-0" / "encoder")
    pack([str(place)], tmp_path / "e.tar")
    install_bundle(tmp_path / "e.tar")
    named, given = (open_encoder(EncodeSettings(model=model)) for model in ("encoder", str(place)))
    assert isinstance(named.text, MiniLM)
    assert named.image is None
    assert named.text.folder == tmp_path / "home" / "weights" / "encoder"
    assert named.text.space == given.text.space
    (named.text.folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptArtifact) as damaged:
        open_encoder(EncodeSettings(model="encoder"))
    assert "localmel weights install --replace" in damaged.value.hint


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace('"hidden_size": 384', '"hidden_size": 512'))


@pytest.mark.parametrize(
    ("file", "damage", "kind", "said"),
    [
        ("model.safetensors", cut, CorruptArtifact, "has changed since it was tuned"),
        ("model.safetensors", empty, CorruptArtifact, "has changed since it was tuned"),
        ("model.safetensors", Path.unlink, MissingWeights, "model.safetensors is missing"),
        ("encoder.json", empty, CorruptArtifact, "encoder.json"),
        ("encoder.json", Path.unlink, MissingWeights, "encoder.json is missing"),
        ("tokenizer.json", Path.unlink, MissingWeights, "tokenizer.json is missing"),
        ("config.json", Path.unlink, MissingWeights, "config.json is missing"),
        ("config.json", other, CorruptArtifact, "config.json has changed since it was tuned"),
        (".", shutil.rmtree, MissingWeights, "no folder"),
    ],
)
def test_a_damaged_folder_of_a_tuned_encoder_is_made_again_by_training(
    file: str, damage: Callable[[Path], None], kind: type[LocalmelError], said: str, tmp_path: Path
) -> None:
    place = small_tuned_minilm(tmp_path / "encoder")
    open_encoder(EncodeSettings(model=str(place)))
    damage(place / file)
    with pytest.raises(kind) as raised:
        open_encoder(EncodeSettings(model=str(place)))
    assert said in raised.value.fact
    assert raised.value.hint.startswith("localmel train DATA --kb KB --matcher m3el --tune-encoder --out runs/NAME")


def test_a_published_clip_in_a_folder_called_encoder_stays_one(
    tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    place = shutil.copytree(tiny_models("tiny-clip"), tmp_path / "encoder")
    assert isinstance(open_encoder(EncodeSettings(model=str(place))).text, Clip)
