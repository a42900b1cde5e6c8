"""Pictures that mentions name: each opened and encoded once, rows in order, bad ones marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from localmel.encode.mention_inputs import vectors_of_files
from localmel.engines.pictures import open_picture
from tests.encode.colours import Colours

COLOURS = ["red", "teal", "navy"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    for colour in COLOURS:
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return {name: tmp_path / f"{name}.png" for name in (*COLOURS, "broken", "missing")}


def test_each_row_has_its_own_picture_and_each_picture_is_encoded_once(files: dict[str, Path]) -> None:
    names: list[Any] = ["teal", None, "red", "broken", "teal", "missing", "navy", "broken"]
    encoder, heard = Colours(), []
    found = vectors_of_files([files.get(name) for name in names], encoder, heard.append)
    assert [path.stem for path in encoder.asked] == ["teal", "red", "navy"]
    assert found.there.tolist() == [name in COLOURS for name in names]
    assert found.vectors.dtype == np.float32
    for name, row in zip(names, found.vectors, strict=True):
        expected = Colours.vector(open_picture(files[name])) if name in COLOURS else np.zeros(3)
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert sum(heard) == 5
    assert [("broken.png" in fact, "missing.png" in fact) for fact in found.unreadable] == [
        (True, False),
        (False, True),
    ]
    assert found.space == encoder.image_space


def test_no_picture_at_all_is_legal() -> None:
    assert vectors_of_files([None, None], Colours()).vectors.shape == (2, 3)
    assert vectors_of_files([], Colours()).vectors.shape == (0, 3)
