"""An encoder that is trained begins as the encoder in use, learns down to its first layer, and is kept as a folder that
gives what it gave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from localmel.encode import minilm_torch
from localmel.encode.clip import Clip
from localmel.encode.clip_tunable import TunableClip
from localmel.encode.minilm import MiniLM
from localmel.encode.minilm_torch import TunableMiniLm
from localmel.encode.registry import Encoders, open_encoder, tunable
from localmel.encode.space import MOST_WORDS
from localmel.encode.tunable import TunableEncoder
from localmel.engines.pictures import open_picture
from localmel.errors import BadInput, CorruptArtifact, MissingWeights, UsageError
from localmel.matchers.learner import encoder_weights
from localmel.matchers.train.settings import EncoderTuning
from localmel.settings import EncodeSettings
from localmel.weights.catalog import MINILM, verified_folder
from tests.encode.clip_folders import ROOT, make_tiny_siglip
from tests.matchers.hashed_tokens import token_encoders

TEXTS = ["Byron: a poet", "", "Ada Lovelace: Countess of Lovelace, who wrote of the engine", "word " * 300]
PICTURES = sorted((ROOT / "examples").glob("*.jpg"))[:3]
MINILM_FIRST, MINILM_LAST = ("weights.words", "weights.positions", "weights.0/qkv/weight"), "weights.5/down/weight"


@pytest.fixture(scope="module")
def clip(tiny_models: Callable[[str], Path]) -> Clip:
    pytest.importorskip("open_clip", reason="open_clip is not installed here: pip install 'localmel[clip]'")
    return Clip(tiny_models("tiny-clip"), device="cpu")


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM(method="onnxruntime", threads=1)


def trained(encoder: TunableEncoder, *, scale: float = 0.02) -> None:
    """As if it had been: every trained weight is moved."""
    chance = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.requires_grad:
                weight += scale * weight.abs().mean() * torch.randn(weight.shape, generator=chance)


def gradients(encoder: TunableEncoder, *, pictures: bool) -> dict[str, Tensor]:
    """Of a sum in which every output has another weight."""
    encoder.zero_grad()
    whole, words, is_word = encoder.texts(encoder.tokens(TEXTS))
    made = [whole, words[is_word]]
    if pictures:
        made += encoder.pictures(torch.stack([encoder.prepared(open_picture(path)) for path in PICTURES]))
    chance = torch.Generator().manual_seed(3)
    torch.stack([(part * torch.randn(part.shape, generator=chance)).sum() for part in made]).sum().backward()
    return {name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None}


def alike(words: Tensor, kept: NDArray[Any]) -> bool:
    """Words by two ways (n, width), of which the one in use may compute in bfloat16."""
    assert words.shape == kept.shape
    cosines = torch.nn.functional.cosine_similarity(words, torch.from_numpy(kept).float(), dim=1)
    return bool((cosines > 0.998).all())


@torch.no_grad()
def test_minilm_begins_as_the_one_in_use(minilm: MiniLM) -> None:
    whole, words, is_word = minilm.tunable(sees=False, recompute=False).texts(minilm.tokens(TEXTS))
    np.testing.assert_allclose(whole.numpy(), minilm.encode(TEXTS), atol=2e-6)
    expected = minilm.words(TEXTS)
    assert is_word.sum(dim=1).tolist() == [len(own) for own in expected]
    assert is_word.shape[1] == MOST_WORDS
    for own, there, kept in zip(words, is_word, expected, strict=True):
        assert alike(own[there], kept)
        assert not own[~there].any()


@torch.no_grad()
def test_clip_begins_as_the_one_in_use(clip: Clip) -> None:
    encoder = clip.tunable(sees=True, recompute=False)
    whole, words, is_word = encoder.texts(encoder.tokens(TEXTS))
    np.testing.assert_allclose(whole.numpy(), clip.encode(TEXTS), atol=2e-6)
    for own, there, kept in zip(words, is_word, clip.words(TEXTS), strict=True):
        np.testing.assert_allclose(own[there].numpy(), kept, atol=4e-3)
    opened = [open_picture(path) for path in PICTURES]
    seen, patches = encoder.pictures(torch.stack([encoder.prepared(one) for one in opened]))
    np.testing.assert_allclose(seen.numpy(), clip.encode_images(opened), atol=2e-6)
    np.testing.assert_allclose(patches.numpy(), np.stack(clip.patches(opened)), atol=4e-3, rtol=2e-3)


def test_every_layer_of_minilm_gets_a_gradient_and_recomputing_gives_the_same(
    minilm: MiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, calls = minilm_torch._layer, []

    def counted(weights: dict[str, Tensor], number: int, states: Tensor, mask: Tensor | None) -> Tensor:
        calls.append(number)
        return layer(weights, number, states, mask)

    monkeypatch.setattr(minilm_torch, "_layer", counted)
    found = {}
    for recompute in (False, True):
        calls.clear()
        encoder = minilm.tunable(sees=False, recompute=recompute)
        found[recompute] = gradients(encoder, pictures=False)
        assert len(calls) == (12 if recompute else 6)
        assert found[recompute].keys() == dict(encoder.named_parameters()).keys()
    for name in (*MINILM_FIRST, MINILM_LAST):
        assert float(found[False][name].abs().max()) > 1e-4, name
    for name, gradient in found[False].items():
        torch.testing.assert_close(found[True][name], gradient, rtol=1e-5, atol=1e-6)


def test_every_layer_of_clip_gets_a_gradient_and_recomputing_gives_the_same(clip: Clip) -> None:
    plain, again = (clip.tunable(sees=True, recompute=recompute) for recompute in (False, True))
    assert again.network.transformer.grad_checkpointing
    assert again.network.visual.transformer.grad_checkpointing
    found, expected = gradients(again, pictures=True), gradients(plain, pictures=True)
    trained_ones = {name for name, weight in plain.named_parameters() if weight.requires_grad}
    assert found.keys() == expected.keys() == trained_ones
    assert "network.logit_scale" not in trained_ones
    for name in ("network.token_embedding.weight", "network.visual.conv1.weight", "network.text_projection"):
        assert float(expected[name].abs().max()) > 1e-6, name
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_without_pictures_the_image_tower_is_left_alone(clip: Clip) -> None:
    encoder = clip.tunable(sees=False, recompute=False)
    assert not any(name.startswith("network.visual.") for name in gradients(encoder, pictures=False))
    groups = encoder_weights(encoder, EncoderTuning(rate=3e-5, weight_decay=0.5))
    assert [(group.rate, group.weight_decay) for group in groups] == [(3e-5, 0.5), (3e-5, 0.0)]
    held = sum(len(group.weights) for group in groups)
    assert held == sum(weight.requires_grad for weight in encoder.parameters())
    assert {weight.dim() for weight in groups[1].weights} == {1}


def test_nothing_is_drawn_by_chance_while_it_is_trained(clip: Clip) -> None:
    encoder = clip.tunable(sees=False, recompute=False).train()
    assert not any(module.training for module in encoder.modules())


@torch.no_grad()
def test_a_tuned_minilm_is_kept_as_a_folder_that_a_profile_can_name(minilm: MiniLM, tmp_path: Path) -> None:
    encoder = minilm.tunable(sees=False, recompute=False)
    trained(encoder)
    whole, words, is_word = encoder.texts(encoder.tokens(TEXTS))
    place = tmp_path / "encoder"
    encoder.save(place, {"seed": 3})
    for method in ("onnxruntime", "torch"):
        found = open_encoder(EncodeSettings(model=str(place)), method=method)
        assert isinstance(found.text, MiniLM)
        assert found.image is None
        made = found.text.encode(TEXTS)
        if method == "onnxruntime":
            np.testing.assert_allclose(made, whole.numpy(), atol=3e-6)
        assert float((made * whole.numpy()).sum(axis=1).min()) > 0.9995
    space = found.text.space
    assert space.name == f"minilm-384-{space.weights_sha256[:12]}"
    assert space.weights_sha256 != MINILM.sha256["model.safetensors"]
    assert float(np.abs(whole.numpy() - minilm.encode(TEXTS)).max()) > 1e-3
    reloaded = open_encoder(EncodeSettings(model=str(place))).text.words(TEXTS)
    assert all(alike(own[there], kept) for own, there, kept in zip(words, is_word, reloaded, strict=True))
    card = json.loads((place / "encoder.json").read_text())
    assert card["tuned_from"] == {"name": MINILM.name, "weights_sha256": MINILM.sha256["model.safetensors"],
                                  "licence": "Apache-2.0"}  # fmt: skip
    assert card["facts"] == {"seed": 3}
    again = MiniLM(tuned=place).tunable(sees=False, recompute=False)
    for name, weight in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    again.save(tmp_path / "twice", {})
    assert (tmp_path / "twice" / "model.safetensors").read_bytes() == (place / "model.safetensors").read_bytes()
    verified_folder(MINILM)  # hashes what it was tuned from


@torch.no_grad()
def test_transformers_reads_a_tuned_minilm_alike(minilm: MiniLM, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed here")
    encoder = minilm.tunable(sees=False, recompute=False)
    trained(encoder)
    encoder.save(tmp_path / "encoder", {})
    model = transformers.BertModel.from_pretrained(tmp_path / "encoder").eval()
    tokens = encoder.tokens(TEXTS[:1])
    states = model(torch.tensor(tokens)).last_hidden_state
    expected = torch.nn.functional.normalize(states.mean(dim=1), dim=1)
    torch.testing.assert_close(encoder.texts(tokens)[0], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_tuned_clip_is_kept_as_a_folder_that_a_profile_can_name(clip: Clip, tmp_path: Path) -> None:
    encoder = clip.tunable(sees=True, recompute=False)
    trained(encoder)
    opened = [open_picture(path) for path in PICTURES]
    whole = encoder.texts(encoder.tokens(TEXTS))[0].numpy()
    seen = encoder.pictures(torch.stack([encoder.prepared(one) for one in opened]))[0].numpy()
    encoder.save(tmp_path / "encoder", {"seed": 3})
    found = open_encoder(EncodeSettings(model=str(tmp_path / "encoder")))
    assert isinstance(found.text, Clip)
    np.testing.assert_allclose(found.text.encode(TEXTS), whole, atol=3e-6)
    np.testing.assert_allclose(found.text.encode_images(opened), seen, atol=3e-6)
    assert found.text.space != clip.space
    assert np.abs(clip.encode(TEXTS) - whole).max() > 1e-3
    card = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    assert card["tuned_from"]["weights_sha256"] == clip.space.weights_sha256
    assert card["sha256"] == found.text.space.weights_sha256


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


@pytest.fixture(scope="module")
def kept(minilm: MiniLM, clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kept")
    minilm.tunable(sees=False, recompute=False).save(folder / "minilm", {})
    clip.tunable(sees=True, recompute=False).save(folder / "clip", {})
    return {"minilm": folder / "minilm", "clip": folder / "clip"}


@pytest.mark.parametrize(
    ("which", "name", "error", "said"),
    [
        ("minilm", "model.safetensors", CorruptArtifact, "its card says"),
        ("clip", "open_clip_model.safetensors", CorruptArtifact, "its card says"),
        ("minilm", "tokenizer.json", CorruptArtifact, "is not that of"),
    ],
)
def test_bytes_that_were_changed_are_found(
    which: str, name: str, error: type[Exception], said: str, kept: dict[str, Path], tmp_path: Path
) -> None:
    place = shutil.copytree(kept[which], tmp_path / "encoder")
    open_encoder(EncodeSettings(model=str(place)))
    damage(place / name)
    with pytest.raises(error, match=said):
        open_encoder(EncodeSettings(model=str(place)))


@pytest.mark.parametrize("which", ["minilm", "clip"])
def test_a_configuration_that_was_changed_is_refused(which: str, kept: dict[str, Path], tmp_path: Path) -> None:
    """One that still reads, and that the vectors do not depend on."""
    place = shutil.copytree(kept[which], tmp_path / "encoder")
    files = json.loads((place / "encoder.json").read_text())["files"]
    assert files.keys() == {path.name for path in place.iterdir() if path.suffix != ".safetensors"} - {"encoder.json"}
    path = place / ("config.json" if which == "minilm" else "open_clip_config.json")
    path.write_text(path.read_text() + "\n")
    with pytest.raises(CorruptArtifact, match=rf"{path.name} has changed since it was tuned"):
        open_encoder(EncodeSettings(model=str(place)))


def test_what_is_missing_or_no_card_is_named(kept: dict[str, Path], tmp_path: Path) -> None:
    place = shutil.copytree(kept["minilm"], tmp_path / "encoder")
    settings = EncodeSettings(model=str(place))
    (place / "tokenizer.json").unlink()
    with pytest.raises(MissingWeights, match=r"tokenizer\.json is missing"):
        open_encoder(settings)
    for text in ("{", "[]", '{"kind": "tuned encoder", "version": 2}', '{"kind": "tuned encoder", "version": 1}'):
        (place / "encoder.json").write_text(text)
        with pytest.raises(CorruptArtifact, match=r"cannot read .*encoder\.json"):
            open_encoder(settings)
    (place / "encoder.json").unlink()
    with pytest.raises(MissingWeights):  # what it was tuned from is not known
        open_encoder(settings)
    with pytest.raises(MissingWeights, match="no folder"):
        open_encoder(EncodeSettings(model=str(tmp_path / "nowhere")))


def test_what_cannot_be_tuned_is_refused(clip: Clip, minilm: MiniLM, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed here")
    assert isinstance(tunable(Encoders(text=clip, image=clip), recompute=False), TunableClip)
    encoder = tunable(Encoders(text=minilm, image=None), recompute=False)
    assert isinstance(encoder, TunableMiniLm)
    with pytest.raises(BadInput, match="reads texts only"):
        encoder.prepared(open_picture(PICTURES[0]))
    with pytest.raises(UsageError, match="only MiniLM and CLIP models can be tuned"):
        tunable(token_encoders(), recompute=False)
    siglip = Clip(make_tiny_siglip(tmp_path), device="cpu")
    with pytest.raises(BadInput, match="reads the padding"):
        tunable(Encoders(text=siglip, image=siglip), recompute=False)


@pytest.mark.parametrize("rate", [0.0, -1e-5, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="it is a number above 0"):
        EncoderTuning(rate=rate)
    with pytest.raises(UsageError, match="it is a number above 0"):
        EncoderTuning(epsilon=rate)
    with pytest.raises(UsageError, match="weight_decay"):
        EncoderTuning(weight_decay=float("nan"))
