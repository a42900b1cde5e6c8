"""Flags and portraits as people publish them: a whole KB of them is read, and no picture is lost."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localmel.encode.clip import Clip
from localmel.encode.kb_images import index_images, load_images
from localmel.encode.mention_inputs import vectors_of_files
from localmel.kb.packed import pack
from localmel.kb.store import KnowledgeBase
from tests.encode.clip_folders import ROOT

IMAGES = Path(os.environ.get("LOCALMEL_SHARED", ROOT.parent / "shared")) / "data" / "images"
pytestmark = [
    pytest.mark.skipif(not IMAGES.is_dir(), reason=f"no pictures at {IMAGES}; set LOCALMEL_SHARED"),
    pytest.mark.skipif(
        importlib.util.find_spec("open_clip") is None, reason="CLIP needs the extra `clip`: pip install open_clip_torch"
    ),
]


@pytest.fixture(scope="module")
def clip(tiny_models: Callable[[str], Path]) -> Clip:
    return Clip(tiny_models("tiny-clip"), device="cpu")


@pytest.mark.parametrize(
    ("kind", "kb_view", "mention_view", "n"),
    [("flags", "kb_flat", "mention_flat64", 240), ("presidents", "kb_view", "mention_view", 44)],
)
def test_a_kb_of_real_pictures_is_read_whole(
    clip: Clip, change_kb: Callable[..., Path], kind: str, kb_view: str, mention_view: str, n: int
) -> None:
    kb_pictures, mention_pictures = (
        {path.stem: path for path in sorted((IMAGES / kind / view).iterdir())} for view in (kb_view, mention_view)
    )
    names = sorted(kb_pictures.keys() & mention_pictures.keys())
    assert len(names) == n
    different = {kb_pictures[name].read_bytes() for name in names}  # a few countries share a flag
    folder = change_kb([{"id": name, "label": name, "image": str(kb_pictures[name])} for name in names])
    with KnowledgeBase(folder) as kb:
        packed = pack(kb)
        found = index_images(kb, packed, clip)
        images = load_images(kb, packed, clip.image_space)
    assert (found.named, found.encoded, found.note()) == (n, len(different), "")
    assert images.there.all()
    asked = vectors_of_files([mention_pictures[name] for name in names], clip)
    assert asked.there.all()
    np.testing.assert_allclose(np.linalg.norm(asked.vectors, axis=1), 1, atol=1e-5)
