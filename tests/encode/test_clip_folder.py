"""A CLIP model's folder: what it must say of itself, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.encode.clip_folder import Preparation, read_clip_folder
from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights
from localmel.weights.contents import UnsafeWeights
from tests.encode.clip_folders import changed_copy

Config = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tiny_models: Callable[[str], Path]) -> Path:
    return tiny_models("tiny-clip")


def test_what_open_clips_own_configurations_leave_out_is_what_they_mean(folder: Path) -> None:
    found = read_clip_folder(folder)
    assert found.preparation == Preparation(
        size=(224, 224),
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        interpolation="bicubic",
        resize_mode="shortest",
        fill_color=0,
        mode="RGB",
    )
    assert (found.width, found.context, found.weights.name) == (512, 77, "open_clip_model.safetensors")


def prepare(**values: Any) -> Callable[[Config], object]:
    return lambda config: config["preprocess_cfg"].update(values)


def drop(section: str, *keys: str) -> Callable[[Config], object]:
    return lambda config: [config[section].pop(key) for key in keys] if keys else config.pop(section)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("preprocess_cfg"), "no mean and std"),
        (drop("preprocess_cfg", "mean"), "gives no mean in preprocess_cfg; open_clip would take those of another"),
        (drop("preprocess_cfg", "std"), "gives no std"),
        (prepare(image_mean=[0.5, 0.5, 0.5]), "image_mean in preprocess_cfg, which open_clip does not read"),
        (prepare(size=336), "size 336 in preprocess_cfg, but image_size 224"),
        (prepare(interpolation="nearest"), "interpolation 'nearest'"),
        (prepare(interpolation="random"), "interpolation 'random'"),
        (prepare(resize_mode="crop"), "resize_mode 'crop'"),
        (prepare(mode="L"), "mode 'L'"),
        (prepare(mean=0.5), "mean 0.5"),
        (prepare(mean=[0.5, 0.5]), "three numbers"),
        (prepare(mean=[0.5, 0.5, "0.5"]), "three numbers"),
        (prepare(std=[0.5, 0.0, 0.5]), "std above 0"),
        (prepare(fill_color="black"), "fill_color"),
        (drop("model_cfg"), "no model_cfg"),
        (drop("model_cfg", "text_cfg"), "vision_cfg and text_cfg"),
        (drop("model_cfg", "embed_dim"), "embed_dim None"),
        (lambda config: config["model_cfg"]["text_cfg"].update(context_length="77"), "context_length '77'"),
        (lambda config: config["model_cfg"]["text_cfg"].update(hf_model_name="roberta-base"), "looked up on the hub"),
    ],
)
def test_a_configuration_with_gaps_or_contradictions_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Config], object], said: str
) -> None:
    other = changed_copy(folder, tmp_path / "other", change)
    with pytest.raises(CorruptArtifact, match=said) as caught:
        read_clip_folder(other)
    assert str(other) in caught.value.fact
    assert caught.value.hint


USUAL = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "resample": 3, "crop_size": {"height": 224, "width": 224}}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("preprocessor_config.json", {**USUAL, "image_mean": [0.5, 0.5, 0.5]}, "mean"),
        ("preprocessor_config.json", {**USUAL, "image_std": [0.5, 0.5, 0.5]}, "std"),
        ("preprocessor_config.json", {**USUAL, "resample": 2}, "interpolation bicubic, .* bilinear"),
        ("preprocessor_config.json", {**USUAL, "crop_size": 336}, r"size \(224, 224\), .* \(336, 336\)"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 256}}, r"\(256, 256\)"),
        ("config.json", {"model_type": "clip", "vision_config": {"hidden_act": "quick_gelu"}}, "quick_gelu False"),
        ("preprocessor_config.json", ["no", "table"], "is not a JSON object"),
    ],
)
def test_what_the_folder_says_elsewhere_must_agree(
    folder: Path, tmp_path: Path, name: str, content: object, said: str
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / name).write_text(json.dumps(content))
    with pytest.raises(CorruptArtifact, match=said):
        read_clip_folder(tmp_path / "other")


@pytest.mark.parametrize(
    "content",
    [
        USUAL,
        {"size": 224, "do_center_crop": False},
        {**USUAL, "size": {"shortest_edge": 256}, "do_center_crop": True},
        {**USUAL, "image_mean": [0.4815, 0.4578, 0.4082]},
    ],
    ids=str,
)
def test_what_agrees_is_taken(folder: Path, tmp_path: Path, content: object) -> None:
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "preprocessor_config.json").write_text(json.dumps(content))
    assert read_clip_folder(tmp_path / "other").sha256 == read_clip_folder(folder).sha256


def without_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")


def own_tokenizer(folder: Path) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "somebody/on-a-hub"
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "kind", "said"),
    [
        (without_weights, MissingWeights, "there is open_clip_pytorch_model.bin"),
        (own_tokenizer, MissingWeights, "no tokenizer.json"),
        (
            lambda folder: (folder / "open_clip_config.json").unlink(),
            MissingWeights,
            "open_clip_config.json is missing",
        ),
        (lambda folder: (folder / "open_clip_config.json").write_text("{"), CorruptArtifact, "cannot read"),
        (lambda folder: (folder / "open_clip_config.json").write_bytes(b"\xff\xfe"), CorruptArtifact, "cannot read"),
    ],
)
def test_half_a_model_is_refused_with_the_file_that_is_missing(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], kind: type[LocalmelError], said: str
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    damage(tmp_path / "other")
    with pytest.raises(kind, match=said):
        read_clip_folder(tmp_path / "other")


def test_a_tokenizer_that_brings_code_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "other" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsafeWeights, match="auto_map"):
        read_clip_folder(tmp_path / "other")
