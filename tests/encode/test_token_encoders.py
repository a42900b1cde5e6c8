"""Words and patches by real encoders: the states that make up the vectors of whole texts and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from localmel.encode.clip import Clip
from localmel.encode.clip_folder import read_clip_folder
from localmel.encode.clip_model import ClipModel, load_clip
from localmel.encode.minilm import MiniLM
from localmel.encode.minilm_torch import as_tensors, last_states
from localmel.encode.minilm_weights import read_weights
from localmel.encode.space import MOST_WORDS, PatchEncoder, WordEncoder
from localmel.engines.pictures import open_picture
from localmel.errors import BadInput
from tests.encode.clip_folders import ROOT, make_tiny_siglip

PICTURES = sorted((ROOT / "examples").glob("*.jpg"))[:5]
TEXTS = ["Michael Jordan: basketball player, born 1963", "", "a dog", "half \ud800 a character", "word " * 300]


@pytest.fixture(scope="module")
def folder(tiny_models: Callable[[str], Path]) -> Path:
    pytest.importorskip("open_clip", reason="open_clip is not installed here: pip install 'localmel[clip]'")
    return tiny_models("tiny-clip")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return Clip(folder, device="cpu")


@pytest.fixture(scope="module")
def model(folder: Path) -> ClipModel:
    return load_clip(read_clip_folder(folder), device="cpu")


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM(method="onnxruntime")


@torch.no_grad()
def states_with_padding(model: ClipModel, text: str) -> tuple[torch.Tensor, int]:
    """By open_clip's own steps over its whole context: (context, width), and the place of the last token."""
    network, tokens = model.network, model.tokenize([text])
    states = network.token_embedding(tokens) + network.positional_embedding
    states = network.ln_final(network.transformer(states, attn_mask=network.attn_mask))
    return states[0], int(tokens.argmax())


def test_clips_words_are_the_states_of_the_text_tower_between_its_marks(clip: Clip, model: ClipModel) -> None:
    found = clip.words(TEXTS)
    for text, words in zip(TEXTS, found, strict=True):
        states, end = states_with_padding(model, text.encode("utf-8", "replace").decode())
        expected = states[1:end][:MOST_WORDS]
        assert words.dtype == np.float16
        assert words.shape == (len(expected), clip.word_width)
        np.testing.assert_allclose(words, expected.numpy(), atol=4e-3)
    assert [len(found[1]), len(found[4])] == [0, MOST_WORDS]


@torch.no_grad()
def test_clips_patches_are_what_its_vector_of_the_picture_is_made_from(clip: Clip, model: ClipModel) -> None:
    opened = [open_picture(path) for path in PICTURES]
    found = clip.patches(opened)
    side, patch = model.network.visual.image_size[0], model.network.visual.patch_size[0]
    assert {array.shape for array in found} == {((side // patch) ** 2, clip.patch_width)}
    for picture, patches in zip(opened, found, strict=True):
        pixels = model.prepare(picture.image)[None]
        inner = model.network.visual.forward_intermediates(pixels, indices=1, output_fmt="NLC")
        expected = inner["image_intermediates"][0][0]
        np.testing.assert_allclose(patches, expected.numpy(), atol=4e-3, rtol=2e-3)
    assert np.abs(found[0] - found[1]).max() > 0.05
    assert np.abs(found[0][0] - found[0][-1]).max() > 0.05


def test_patches_leave_nothing_behind_in_the_model(clip: Clip) -> None:
    before = clip.encode_images([open_picture(PICTURES[0])])
    clip.patches([])
    with pytest.raises(ZeroDivisionError):
        clip.patches(1 // 0 for _ in range(3))  # type: ignore[misc]
    np.testing.assert_array_equal(clip.encode_images([open_picture(PICTURES[0])]), before)
    assert not clip._model.network.visual.transformer._forward_hooks


def test_minilms_words_average_to_its_vector_of_the_text(minilm: MiniLM) -> None:
    """With the two marks the mean of all states, scaled, is the vector; words leave the marks out."""
    texts = ["A dog plays chess", "occupation: painter", "Beyoncé & “Jay-Z”"]
    weights = as_tensors(read_weights(minilm.folder / "model.safetensors"), torch.device("cpu"), torch.float32)
    for text, own, words in zip(texts, minilm.tokens(texts), minilm.words(texts), strict=True):
        ids = torch.tensor([own])
        states = last_states(weights, ids, torch.ones_like(ids, dtype=torch.bool))[0]
        mean = torch.nn.functional.normalize(states.mean(dim=0), dim=0)
        np.testing.assert_allclose(mean, MiniLM(method="onnxruntime").encode([text])[0], atol=2e-3)
        np.testing.assert_allclose(words, states[1:-1].numpy(), atol=6e-2)  # words may be made in bfloat16


@pytest.mark.parametrize(("name", "module"), [("clip", "clip"), ("minilm", "minilm_torch")])
def test_a_texts_words_are_the_same_in_any_company(
    name: str, module: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: WordEncoder = request.getfixturevalue(name)
    heard: list[int] = []
    rounding = 4e-3 if name == "clip" else 6e-2  # MiniLM's are made in bfloat16 where the processor can
    together = encoder.words(TEXTS)
    monkeypatch.setattr(f"localmel.encode.{module}._TOKENS_AT_ONCE", {"cpu": 30, "cuda": 30})
    for one, other in zip(encoder.words(TEXTS), together, strict=True):
        np.testing.assert_allclose(one, other, atol=rounding)
    for text, words in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(encoder.words([text], heard.append)[0], words, atol=rounding)
    assert (sum(heard), encoder.words([])) == (len(TEXTS), [])
    assert len(together[1]) == 0  # an empty text has no words
    assert len(together[4]) == MOST_WORDS


def test_a_picture_encoder_is_one(clip: Clip) -> None:
    encoder: PatchEncoder = clip
    assert encoder.image_space == clip.space
    assert encoder.patches([]) == []


def test_a_text_tower_that_reads_its_padding_is_refused(folder: Path, tmp_path: Path) -> None:
    siglip = Clip(make_tiny_siglip(tmp_path / "siglip"), device="cpu")
    with pytest.raises(BadInput, match=r"cannot encode single words with .*reads the padding"):
        siglip.words(["a dog"])
