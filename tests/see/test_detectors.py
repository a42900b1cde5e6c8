"""Detectors: tiles, faces where OpenCV has its cascade, and the two layouts of transformers, with random weights."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from localmel.engines.pictures import open_picture
from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingExtra, MissingWeights
from localmel.see.detectors import CascadeFaces, Tiles, TransformersDetector, open_detector
from localmel.see.objects import ObjectSettings, kept_boxes
from localmel.weights.catalog import entry_of

ROOT = Path(__file__).resolve().parents[2]
PORTRAITS = Path(os.environ.get("LOCALMEL_SHARED", ROOT.parent / "shared")) / "data" / "images" / "presidents"


def has_cascade() -> bool:
    try:
        CascadeFaces()
    except MissingExtra:
        return False
    return True


faces = pytest.mark.skipif(not has_cascade(), reason="no OpenCV 4 with its cascade of faces is installed")
slow = pytest.mark.slow  # the detection models of transformers take long to import; over 30 seconds on a busy machine
with_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed here: scripts/test"
)


def test_tiles_are_the_quarters_and_the_middle() -> None:
    kept = kept_boxes(Tiles().boxes(Image.new("RGB", (101, 60))), 101, 60, ObjectSettings())
    assert [(one.left, one.top, one.right, one.bottom) for one in kept.boxes] == [
        (0, 0, 51, 30), (0, 30, 51, 60), (25, 15, 76, 45), (50, 0, 101, 30), (50, 30, 101, 60),
    ]  # fmt: skip
    assert not kept_boxes(Tiles().boxes(Image.new("RGB", (9, 9))), 9, 9, ObjectSettings()).boxes


def test_names_are_said_and_an_unknown_one_is_missing() -> None:
    assert isinstance(open_detector("tiles"), Tiles)
    with pytest.raises(BadInput, match="is not a detector"):
        open_detector("tiles+")
    with pytest.raises(LocalmelError, match="rtdetr-v2-r18"):
        open_detector("rtdetr-v2-r18")  # in the catalog, not on this machine
    assert entry_of("rtdetr-v2-r18").purpose == "detector"


def test_several_detectors_take_turns() -> None:
    boxes = open_detector("tiles + tiles").boxes(Image.new("RGB", (40, 40)))
    assert [one.score for one in boxes] == [1 / rank for rank in (1, 2, 3, 4, 5)] * 2
    facts = open_detector("tiles+tiles").facts
    assert facts == {"0.detector": "tiles 1", "1.detector": "tiles 1"}


def test_without_opencvs_cascade_the_next_command_is_said() -> None:
    if has_cascade():
        pytest.skip("OpenCV has its cascade here")
    with pytest.raises(MissingExtra) as error:
        open_detector("faces")
    assert error.value.hint == "pip install 'opencv-python-headless<5'"


@faces
@pytest.mark.skipif(not PORTRAITS.is_dir(), reason=f"no pictures at {PORTRAITS}; set LOCALMEL_SHARED")
def test_portraits_have_a_face_each_and_a_plain_picture_has_none() -> None:
    detector = open_detector("faces")
    assert not detector.boxes(Image.new("RGB", (200, 200), "grey"))
    found = []
    for path in sorted((PORTRAITS / "kb_view").iterdir())[:12]:
        picture = open_picture(path)
        kept = kept_boxes(detector.boxes(picture.image), *picture.image.size, ObjectSettings(most=1))
        found.append(len(kept.boxes))
    assert sum(found) >= 9


# --- transformers -----------------------------------------------------------------------------------------------


def save_rtdetr(folder: Path) -> None:
    """RT-DETRv2 as it is published, small and untrained."""
    from transformers import RTDetrImageProcessor, RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, layer_type="basic",
        downsample_in_first_stage=False, out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrV2Config(
        backbone_config=backbone, encoder_in_channels=[16] * 3, decoder_in_channels=[16] * 3, encoder_hidden_dim=16,
        d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, decoder_layers=2, num_queries=20,
        encoder_attention_heads=2, decoder_attention_heads=2, num_labels=4, num_denoising=0,
    )  # fmt: skip
    RTDetrV2ForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def save_detr(folder: Path) -> None:
    """DETR likewise."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=12, num_labels=4,
    )  # fmt: skip
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


@slow
@with_transformers
@pytest.mark.parametrize(("save", "n"), [(save_rtdetr, 20), (save_detr, 12)], ids=["rt-detr-v2", "detr"])
def test_a_model_of_transformers_finds_boxes_in_pixels_of_the_picture(
    save: Callable[[Path], None], n: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    torch.manual_seed(0)
    save(tmp_path)
    capfd.readouterr()
    detector = TransformersDetector(tmp_path, device="cpu", least_score=0.0)
    picture = Image.new("RGB", (200, 90), "red")
    boxes = detector.boxes(picture)
    assert len(boxes) == n
    assert all(0 <= one.score <= 1 and one.label.startswith("LABEL_") for one in boxes)
    assert max(one.right for one in boxes) > 90  # pixels, not shares, and in the picture's own shape
    assert list(boxes) == list(detector.boxes(picture))
    sure = open_detector(f"{tmp_path}/")
    assert sure.facts["files"] == detector.facts["files"]
    assert all(one.score >= 0.5 for one in sure.boxes(picture))
    assert capfd.readouterr() == ("", "")


@slow
@with_transformers
def test_a_folder_that_holds_no_detector_is_refused(tmp_path: Path, tiny_models: Callable[[str], Path]) -> None:
    with pytest.raises(MissingWeights, match="safetensors"):
        TransformersDetector(tmp_path)
    wrong: Any = TransformersDetector(tiny_models("tiny-qwen2"), device="cpu")
    with pytest.raises(CorruptArtifact, match=r"cannot load .* as a detector"):
        wrong.boxes(Image.new("RGB", (20, 20)))
