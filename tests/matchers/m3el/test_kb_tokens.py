"""Words and patches of a KB: only what is new is encoded, an interrupted run goes on, what is stale is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from localmel.encode.clip import Clip
from localmel.encode.kb_images import index_images, load_images
from localmel.encode.kb_vectors import index_kb, load_vectors
from localmel.encode.minilm import MiniLM
from localmel.encode.space import Space, WordEncoder
from localmel.engines.pictures import Picture
from localmel.errors import BadInput, CorruptArtifact, KbBusy
from localmel.index import ExactSettings
from localmel.kb.packed import PackedKb, entity_texts, pack
from localmel.kb.store import KnowledgeBase
from localmel.matchers.m3el.kb_tokens import index_patches, index_words, kb_features, load_patches, load_words
from localmel.matchers.m3el.network import M3el, M3elSettings
from localmel.matchers.prepared import index_sides, prepare_entities
from localmel.matchers.protocol import FeatureTable, laid_end_to_end
from localmel.matchers.two_step import TwoStepSearch
from localmel.store.progress import Listener, listening

WIDTH = 4
SPACE = Space(name="letters", width=WIDTH, weights_sha256="1" * 64)
OpenKb = Callable[[], tuple[KnowledgeBase, PackedKb]]


class Letters:
    """Each word is how often four letters stand in it, each quarter of a picture its mean colour."""

    space = image_space = SPACE
    word_width, patch_width = WIDTH, 3

    def __init__(self, stop_after: int = 10**9) -> None:
        self.encoded: list[str] = []
        self.pictures = 0
        self._stop_after = stop_after

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        return np.full((len(texts), WIDTH), 0.5, np.float32)

    def encode_images(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> NDArray[Any]:
        return np.array([[0.5] * WIDTH for _ in pictures], np.float32).reshape(-1, WIDTH)

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> list[NDArray[Any]]:
        self.encoded += texts
        if len(self.encoded) > self._stop_after:
            raise KeyboardInterrupt
        return [letters(text) for text in texts]

    def patches(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> list[NDArray[Any]]:
        made = [quarters(picture.image) for picture in pictures]
        self.pictures += len(made)
        return made


def letters(text: str) -> NDArray[Any]:
    rows = [[word.count(letter) for letter in "aeio"] for word in text.split()]
    return np.array(rows, np.float16).reshape(-1, WIDTH)


def quarters(image: Image.Image) -> NDArray[Any]:
    return np.asarray(image.resize((2, 2), Image.Resampling.BOX), np.float16).reshape(4, 3) / 256


@pytest.fixture
def folder(change_kb: Callable[..., Path]) -> Path:
    """Three entities with a picture, one of them broken, and two without."""
    folder = change_kb(
        [
            {"id": "Q1", "label": "Red", "description": "a colour", "image": "red.png"},
            {"id": "Q2", "label": "Nothing"},
            {"id": "Q3", "label": "Teal", "image": "teal.png"},
            {"id": "Q4", "label": "Broken", "image": "broken.png"},
            {"id": "Q5", "label": "Aeiou", "description": "e e e"},
        ]
    )
    beside = folder.with_name(f"{folder.name}.images")
    beside.mkdir()
    for colour in ("red", "teal"):
        Image.new("RGB", (8, 8), colour).save(beside / f"{colour}.png")
    (beside / "broken.png").write_bytes(b"\x89PNG broken")
    return folder


@pytest.fixture
def opened(folder: Path) -> Iterator[OpenKb]:
    bases: list[KnowledgeBase] = []

    def open_it() -> tuple[KnowledgeBase, PackedKb]:
        bases.append(KnowledgeBase(folder))
        return bases[-1], pack(bases[-1])

    yield open_it
    for kb in bases:
        kb.close()


def test_every_entity_has_the_words_of_its_text(opened: OpenKb) -> None:
    kb, packed = opened()
    encoder = Letters()
    assert index_words(kb, packed, encoder) == 5
    words = load_words(kb, packed, SPACE)
    for row, text in enumerate(entity_texts(kb)):
        np.testing.assert_array_equal(words.values[words.starts[row] : words.starts[row + 1]], letters(text))
    assert words.values.dtype == np.float16
    assert index_words(kb, packed, encoder) == 0  # all of them are known


def test_every_picture_that_can_be_read_has_patches_and_nothing_else_has(opened: OpenKb) -> None:
    kb, packed = opened()
    index_images(kb, packed, Letters())
    images = load_images(kb, packed, SPACE)
    assert index_patches(kb, packed, images, Letters()) == 2
    patches = load_patches(kb, packed, images)
    np.testing.assert_array_equal(np.diff(patches.starts), [4, 0, 4, 0, 0])
    np.testing.assert_array_equal(patches.values[:4], quarters(Image.new("RGB", (8, 8), "red")))
    assert index_patches(kb, packed, images, Letters()) == 0


def test_a_picture_that_went_meanwhile_leaves_its_entity_without_patches(opened: OpenKb, folder: Path) -> None:
    kb, packed = opened()
    index_images(kb, packed, Letters())
    images = load_images(kb, packed, SPACE)
    (folder.with_name(f"{folder.name}.images") / "red.png").unlink()
    assert index_patches(kb, packed, images, Letters()) == 1
    np.testing.assert_array_equal(np.diff(load_patches(kb, packed, images).starts), [0, 0, 4, 0, 0])


def test_after_a_change_only_new_texts_are_encoded(opened: OpenKb, change_kb: Callable[..., Path]) -> None:
    kb, packed = opened()
    index_words(kb, packed, Letters())
    kb.close()
    change_kb([{"id": "Q0", "label": "New one"}, {"id": "Q5", "label": "Changed"}], add=True, update=True)
    kb, packed = opened()
    with pytest.raises(BadInput, match=r"changed since its letters\.words were encoded"):
        load_words(kb, packed, SPACE)
    encoder = Letters()
    assert index_words(kb, packed, encoder) == 2
    assert sorted(encoder.encoded) == ["Changed", "New one"]
    words = load_words(kb, packed, SPACE)
    for row, text in enumerate(entity_texts(kb)):
        np.testing.assert_array_equal(words.values[words.starts[row] : words.starts[row + 1]], letters(text))


def test_a_stopped_run_goes_on_where_it_was(opened: OpenKb, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localmel.matchers.m3el.kb_tokens._TEXTS_AT_ONCE", 2)
    kb, packed = opened()
    with pytest.raises(KeyboardInterrupt):
        index_words(kb, packed, Letters(stop_after=2))
    with pytest.raises(BadInput, match="never encoded"):
        load_words(kb, packed, SPACE)
    heard: list[int] = []
    encoder = Letters()
    with listening(Listener(on_done=heard.append)):
        assert index_words(kb, packed, encoder) == 3
    assert (sum(heard), len(encoder.encoded)) == (5, 3)
    stopped = (folder / "vectors" / "letters.words" / "columns.safetensors").read_bytes()
    again = Letters()
    again.space = Space(name="whole", width=WIDTH, weights_sha256=SPACE.weights_sha256)
    index_words(kb, packed, again)
    assert (folder / "vectors" / "whole.words" / "columns.safetensors").read_bytes() == stopped
    assert sorted(path.name for path in (folder / "vectors").glob("[!.]*")) == ["letters.words", "whole.words"]
    assert not list((folder / "vectors").glob(".*.growing"))


HOLDS = """
import sys
from pathlib import Path
from localmel.store.arrays import ResumableArrays

resumable = ResumableArrays(Path(sys.argv[1]), {})
print("at it", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_that_another_one_indexes(opened: OpenKb, folder: Path) -> None:
    kb, packed = opened()
    words = folder / "vectors" / "letters.words"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "at it\n"
        with pytest.raises(KbBusy, match="another process is indexing") as busy:
            index_words(kb, packed, Letters())
        assert busy.value.hint.startswith("fuser ")
        other.kill()
    assert index_words(kb, packed, Letters()) == 5
    with FileLock(words.with_name(f".{words.name}.lock"), timeout=0):
        assert index_words(kb, packed, Letters()) == 0  # what stands needs no lock: others of a training go on


def test_words_of_other_weights_are_refused_and_made_anew(opened: OpenKb) -> None:
    kb, packed = opened()
    index_words(kb, packed, Letters())
    other = Letters()
    other.space = Space(name="letters", width=WIDTH, weights_sha256="2" * 64)
    with pytest.raises(BadInput, match="localmel index"):
        load_words(kb, packed, other.space)
    assert index_words(kb, packed, other) == 5


def test_a_kb_that_changed_since_it_was_packed_is_refused(opened: OpenKb, change_kb: Callable[..., Path]) -> None:
    kb, packed = opened()
    kb.close()
    change_kb([{"id": "Q9", "label": "New"}], add=True)
    kb, _ = opened()
    with pytest.raises(KbBusy):
        index_words(kb, packed, Letters())


def test_damaged_words_are_refused_with_the_command(opened: OpenKb, folder: Path) -> None:
    kb, packed = opened()
    index_words(kb, packed, Letters())
    path = folder / "vectors" / "letters.words" / "columns.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptArtifact, match="damaged") as raised:
        load_words(kb, packed, SPACE)
    assert raised.value.hint.startswith("localmel index")
    assert index_words(kb, packed, Letters()) == 5  # and made anew


def test_all_that_a_matcher_sees_of_a_kb_stands_side_by_side(opened: OpenKb) -> None:
    kb, _ = opened()
    encoder = Letters()
    index_kb(kb, encoder)
    packed, vectors = load_vectors(kb, SPACE)
    index_images(kb, packed, encoder)
    images = load_images(kb, packed, SPACE)
    index_words(kb, packed, encoder)
    index_patches(kb, packed, images, encoder)
    seen = kb_features(kb, packed, vectors, images).of(np.array([0, 1]))
    assert seen.text.shape == (2, WIDTH)
    np.testing.assert_array_equal(seen.is_word, [[True] * 3, [True, False, False]])
    np.testing.assert_array_equal(seen.is_patch, [[True] * 4, [False] * 4])  # type: ignore[arg-type]
    assert kb_features(kb, packed, vectors).pictures is None


def test_a_kb_goes_through_both_steps_with_the_words_of_minilm(opened: OpenKb, tmp_path: Path) -> None:
    """Its entities are asked for by their own texts.  The network is not trained: whole texts are near themselves."""
    kb, _ = opened()
    encoder = MiniLM(method="onnxruntime")
    index_kb(kb, encoder)
    packed, vectors = load_vectors(kb, encoder.space)
    index_words(kb, packed, encoder)
    torch.manual_seed(0)
    network = M3el(M3elSettings(text_width=384, word_width=encoder.word_width, without=("words",))).eval()
    assert found_by_their_own_texts(network, kb_features(kb, packed, vectors), kb, encoder, tmp_path) == [0, 1, 2, 3, 4]


def test_a_kb_goes_through_both_steps_with_the_words_and_patches_of_clip(
    opened: OpenKb, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("open_clip", reason="open_clip is not installed here: pip install 'localmel[clip]'")
    kb, _ = opened()
    encoder = Clip(tiny_models("tiny-clip"), device="cpu")
    index_kb(kb, encoder)
    packed, vectors = load_vectors(kb, encoder.space)
    index_images(kb, packed, encoder)
    images = load_images(kb, packed, encoder.space)
    index_words(kb, packed, encoder)
    assert index_patches(kb, packed, images, encoder) == 2
    torch.manual_seed(0)
    width = encoder.space.width
    settings = M3elSettings(
        text_width=width, word_width=encoder.word_width, image_width=width, patch_width=encoder.patch_width,
    )  # fmt: skip
    table = kb_features(kb, packed, vectors, images)
    sides = prepare_entities(M3el(settings).eval(), table, tmp_path / "whole", {})
    assert len(sides.of(np.arange(5)).tokens["patches"].there.sum(dim=1).nonzero()) == 2
    network = M3el(replace(settings, without=("words", "image", "patches", "cross"))).eval()
    assert found_by_their_own_texts(network, table, kb, encoder, tmp_path) == [0, 1, 2, 3, 4]


def found_by_their_own_texts(
    network: M3el, table: FeatureTable, kb: KnowledgeBase, encoder: WordEncoder, folder: Path
) -> list[int]:
    texts = list(entity_texts(kb))
    words = laid_end_to_end(encoder.words(texts), encoder.word_width)
    mentions = FeatureTable(text=encoder.encode(texts), words=words, pictures=table.pictures).of(np.arange(len(texts)))
    sides = prepare_entities(network, table, folder / "sides", {})
    search = TwoStepSearch(network, sides, *index_sides(sides, ExactSettings()))
    return [int(best) for best in search.search(mentions, 3).entities[:, 0]]
