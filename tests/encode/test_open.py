"""The encoders of a profile: MiniLM for texts, a CLIP for texts and pictures, by name or by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.encode.clip import Clip
from localmel.encode.minilm import MiniLM
from localmel.encode.open import open_encoder
from localmel.errors import MissingWeights
from localmel.settings import EncodeSettings


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
