"""CLIP through open_clip: the vectors it is said to make, whatever stands beside a text or a picture."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from localmel.encode.clip import Clip
from localmel.encode.clip_folder import read_clip_folder
from localmel.encode.clip_model import ClipModel, load_clip
from localmel.engines.pictures import open_picture
from localmel.errors import CorruptArtifact, MissingExtra, UsageError
from tests.encode.clip_folders import ROOT, WIDTH, changed_copy, make_tiny_siglip

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="CLIP needs the extra `clip`: pip install open_clip_torch"
)

PICTURES = sorted((ROOT / "examples").glob("*.jpg"))
TEXTS = [
    "a dog", "", "Michael Jordan: basketball player, born 1963. member of Chicago Bulls", "Beyoncé & “Jay-Z”",
    "北京 東京", "half \ud800 a character", "x " * 300, "occupation: painter", "a dog", "\n\t",
    "<end_of_text> behind it",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_models: Callable[[str], Path]) -> Path:
    return tiny_models("tiny-clip")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return Clip(folder, device="cpu")


@pytest.fixture(scope="module")
def model(folder: Path) -> ClipModel:
    return load_clip(read_clip_folder(folder), device="cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def unit(values: torch.Tensor) -> NDArray[Any]:
    return torch.nn.functional.normalize(values.float(), dim=1).detach().numpy()


# --- texts ------------------------------------------------------------------------------------------------------


def test_texts_get_the_vectors_that_open_clip_gives_them_with_all_its_padding(clip: Clip, model: ClipModel) -> None:
    tokens = model.tokenize([text.encode("utf-8", "replace").decode() for text in TEXTS])
    assert tokens.shape == (len(TEXTS), 77)
    found = clip.encode(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(model.network.encode_text(tokens)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_what_lies_beyond_the_context_is_not_read(clip: Clip) -> None:
    within, beyond, short = clip.encode(["word " * 75, "word " * 75 + "and more", "word " * 74])
    np.testing.assert_allclose(within, beyond, atol=1e-5)
    assert np.abs(within - short).max() > 1e-3


@settings(max_examples=20, deadline=None)
@given(places=st.lists(st.sampled_from(range(len(TEXTS))), min_size=1, max_size=14))
def test_a_text_has_the_same_vector_in_any_company(clip: Clip, places: list[int]) -> None:
    alone = np.concatenate([clip.encode([TEXTS[place]]) for place in places])
    np.testing.assert_allclose(clip.encode([TEXTS[place] for place in places]), alone, atol=1e-5)


def test_many_texts_keep_their_order_over_the_pieces_they_are_cut_into(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, heard = clip.encode(TEXTS), []
    monkeypatch.setattr("localmel.encode.clip._TEXTS_AT_ONCE", 4)
    monkeypatch.setattr("localmel.encode.clip._TOKENS_AT_ONCE", {"cpu": 20})
    np.testing.assert_allclose(clip.encode(TEXTS, heard.append), whole, atol=1e-5)
    assert sum(heard) == len(TEXTS)
    assert len(heard) > 4


# --- pictures ---------------------------------------------------------------------------------------------------


def by_definition(picture: Image.Image, *, size: int = 224) -> NDArray[Any]:
    """(3, size, size): the short side scaled to `size`, the middle of the long one, values as CLIP was trained."""
    width, height = picture.size
    scaled = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    picture = picture.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    values = np.asarray(picture.crop((left, top, left + size, top + size)), np.float64) / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return ((values - mean) / std).transpose(2, 0, 1).astype(np.float32)


def test_pictures_get_the_vectors_of_the_model_prepared_as_the_folder_says(clip: Clip, model: ClipModel) -> None:
    opened = [open_picture(path) for path in PICTURES[:6]]
    pixels = np.stack([by_definition(picture.image) for picture in opened])
    found = clip.encode_images(opened)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(model.network.encode_image(torch.from_numpy(pixels))), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_picture_has_the_same_vector_in_any_company(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localmel.encode.clip._PICTURES_AT_ONCE", {"cpu": 4})
    heard: list[int] = []
    together = clip.encode_images((open_picture(path) for path in PICTURES), heard.append)
    assert (together.shape, sum(heard)) == ((len(PICTURES), WIDTH), len(PICTURES))
    backwards = clip.encode_images(open_picture(path) for path in reversed(PICTURES))
    np.testing.assert_allclose(backwards[::-1], together, atol=1e-5)
    for path, row in zip(PICTURES, together, strict=True):
        np.testing.assert_allclose(clip.encode_images([open_picture(path)])[0], row, atol=1e-5)
    likeness = together @ together.T
    assert (likeness - 2 * np.eye(len(PICTURES))).max() < 0.99  # different pictures are told apart


def test_the_same_picture_in_another_form_has_nearly_the_same_vector(clip: Clip, tmp_path: Path) -> None:
    source = ImageOps.exif_transpose(Image.open(PICTURES[0])).convert("RGB")
    source.save(tmp_path / "lossless.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    source.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    source.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    source.convert("RGBA").save(tmp_path / "clear.webp", lossless=True)
    forms = ["lossless.png", "turned.jpg", "print.jpg", "clear.webp"]
    original, *others = clip.encode_images(open_picture(path) for path in [PICTURES[0], *(tmp_path / f for f in forms)])
    for name, vector in zip(forms, others, strict=True):
        assert original @ vector > 0.995, name
    untagged = source.rotate(90, expand=True)
    untagged.save(tmp_path / "really-turned.png")
    (turned,) = clip.encode_images([open_picture(tmp_path / "really-turned.png")])
    assert original @ turned < 0.99


@pytest.mark.parametrize("size", [(1, 2048), (2048, 1), (1, 1), (37, 500)], ids=str)
def test_a_picture_of_any_shape_is_encoded_in_bounded_memory(
    clip: Clip, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled: list[int] = []
    real = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *more: Any, **named: Any) -> Image.Image:
        scaled.append(size[0] * size[1])
        return real(self, size, *more, **named)

    Image.new("RGB", size, "teal").save(tmp_path / "odd.png")
    monkeypatch.setattr(Image.Image, "resize", watched)
    vectors = clip.encode_images([open_picture(tmp_path / "odd.png")])
    assert np.isfinite(vectors).all()
    assert scaled
    assert max(scaled) <= 224 * 224 * 16


# --- other layouts, precisions ----------------------------------------------------------------------------------


def test_a_model_with_its_own_tokenizer_that_reads_its_padding_is_given_all_of_it(siglip: Path) -> None:
    clip, model = Clip(siglip, device="cpu"), load_clip(read_clip_folder(siglip), device="cpu")
    texts = ["a dog plays chess", "A CAT!", "", "a dog on red mars " * 9]
    tokens = model.tokenize(texts)
    assert tokens.shape == (4, 16)
    assert tokens[0].tolist() == [3, 4, 6, 7, 1, *[0] * 11]
    np.testing.assert_allclose(clip.encode(texts), unit(model.network.encode_text(tokens)), atol=1e-5)
    picture = open_picture(PICTURES[0])
    bent = np.asarray(picture.image.resize((32, 32), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
    expected = model.network.encode_image(torch.from_numpy(bent.transpose(2, 0, 1)[None]))
    np.testing.assert_allclose(clip.encode_images([picture]), unit(expected), atol=1e-4)
    assert clip.space.width == 24


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_half_precision_vectors_are_nearly_the_same(clip: Clip, folder: Path, precision: str) -> None:
    half = Clip(folder, device="cpu", precision=precision)
    assert (half.encode(TEXTS) * clip.encode(TEXTS)).sum(axis=1).min() > 0.995
    opened = [open_picture(path) for path in PICTURES]
    assert (half.encode_images(opened) * clip.encode_images(opened)).sum(axis=1).min() > 0.995
    assert half.space == clip.space


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_a_gpu_gives_nearly_the_vectors_of_the_cpu(clip: Clip, folder: Path) -> None:
    there = Clip(folder)
    assert (there.encode(TEXTS) * clip.encode(TEXTS)).sum(axis=1).min() > 0.995
    opened = [open_picture(path) for path in PICTURES]
    assert (there.encode_images(opened) * clip.encode_images(opened)).sum(axis=1).min() > 0.995


def test_an_unknown_precision_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="int3"):
        Clip(folder, precision="int3").encode(["a"])


# --- spaces -----------------------------------------------------------------------------------------------------


def test_a_space_is_named_by_all_that_its_vectors_depend_on(folder: Path, siglip: Path, tmp_path: Path) -> None:
    own = Clip(folder).space
    assert own == Clip(folder).image_space
    assert own.name == f"clip-512-{own.weights_sha256[:12]}"
    shutil.copytree(folder, tmp_path / "moved")
    assert Clip(tmp_path / "moved").space == own
    others = [own]
    mean = changed_copy(folder, tmp_path / "mean", lambda config: config["preprocess_cfg"].update(mean=[0.5, 0.5, 0.5]))
    others.append(Clip(mean).space)
    activation = changed_copy(folder, tmp_path / "gelu", lambda config: config["model_cfg"].update(quick_gelu=True))
    others.append(Clip(activation).space)
    weights = tmp_path / "moved" / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    others.append(Clip(tmp_path / "moved").space)
    others.append(Clip(siglip).space)
    shutil.copytree(siglip, tmp_path / "words")
    words = tmp_path / "words" / "tokenizer.json"
    words.write_text(words.read_text().replace("chess", "shogi"))
    others.append(Clip(tmp_path / "words").space)
    assert len({space.name for space in others}) == len(others)


# --- what a load leaves behind, what is missing -----------------------------------------------------------------


def test_loading_prints_nothing_and_leaves_logging_and_chance_alone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before, disabled = list(root.handlers), logging.root.manager.disable
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Clip(folder, device="cpu").encode(["a"])
    assert torch.equal(torch.rand(2), expected)
    assert (root.handlers, logging.root.manager.disable) == (before, disabled)
    assert capfd.readouterr() == ("", "")


def test_with_nothing_to_encode_nothing_heavy_is_loaded(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from localmel.encode.clip import Clip; "
        f"clip = Clip(Path({str(folder)!r})); "
        "assert clip.encode([]).shape == clip.encode_images([]).shape == (0, 512); "
        "assert not {'torch', 'open_clip', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        ("raise ImportError('No module named ftfy')", "open_clip", r"localmel\[clip\]"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "torchvision", "pip install torch"),
    ],
)
def test_a_missing_package_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, said: str, hint: str
) -> None:
    (tmp_path / "open_clip.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    with pytest.raises(MissingExtra, match=said) as caught:
        Clip(folder).encode(["a"])
    assert caught.value.exit_code == 5
    assert hint.replace("\\", "") in caught.value.hint


# --- what does not fit itself -----------------------------------------------------------------------------------


def test_a_tokenizer_with_another_vocabulary_is_refused(siglip: Path, tmp_path: Path) -> None:
    shutil.copytree(siglip, tmp_path / "more")
    path = tmp_path / "more" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] |= {f"new{number}": 11 + number for number in range(30)}
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(CorruptArtifact, match="vocab_size 11, but open_clip built 41"):
        Clip(tmp_path / "more", device="cpu").encode(["a"])


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("text_cfg", "context_length", 40, r"positional_embedding of shape \(77, 32\), but open_clip built \(40, 32\)"),
        ("vision_cfg", "image_size", 448, r"visual.positional_embedding of shape \(50, 64\).*open_clip built \(197"),
        ("vision_cfg", "layers", 3, "cannot load"),
        (None, "embed_dim", 256, r"text_projection of shape \(32, 512\), but open_clip built \(32, 256\)"),
        ("text_cfg", "no_such_thing", 3, "cannot load"),
        ("text_cfg", "vocab_size", 1000, "token_embedding.weight of shape"),
    ],
)
def test_weights_of_another_size_are_refused_and_not_stretched(
    folder: Path, tmp_path: Path, section: str | None, key: str, value: object, said: str
) -> None:
    def change(config: dict[str, Any]) -> None:
        model = config["model_cfg"]
        (model[section] if section else model)[key] = value

    other = changed_copy(folder, tmp_path / "other", change)
    with pytest.raises(CorruptArtifact, match=said):
        Clip(other, device="cpu").encode(["a"])


def test_weights_that_make_no_numbers_are_refused(siglip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(siglip, tmp_path / "nan")
    weights = load_file(siglip / "open_clip_model.safetensors")
    weights["text.text_projection.bias"][3] = float("nan")
    save_file(weights, tmp_path / "nan" / "open_clip_model.safetensors")
    with pytest.raises(CorruptArtifact, match="vectors of texts are not finite"):
        Clip(tmp_path / "nan", device="cpu").encode(["a"])


def test_a_preparation_that_open_clip_builds_otherwise_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before `local-dir:` did: the values of another model, without a word."""
    import open_clip

    real = open_clip.create_model

    def otherwise(*arguments: Any, **named: Any) -> Any:
        network = real(*arguments, **named)
        network.visual.preprocess_cfg["mean"] = (0.5, 0.5, 0.5)
        return network

    monkeypatch.setattr(open_clip, "create_model", otherwise)
    with pytest.raises(CorruptArtifact, match=r"mean of pictures \(0.48145466, .*open_clip built \(0.5, 0.5, 0.5\)"):
        Clip(folder, device="cpu").encode(["a"])
