"""Networks that see pictures, from `train_networks` to a link: what only a picture tells is learnt from it."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from localmel.encode.clip import Clip
from localmel.encode.kb_images import pictures_folder
from localmel.encode.registry import Encoders
from localmel.errors import UsageError
from localmel.kb.packed import load_packed
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.kgmel.fused import load_fused
from localmel.matchers.kgmel.mention_vectors import encoded_pictures, mention_arrays, mention_pictures
from localmel.matchers.registry import index_matcher
from localmel.matchers.train.settings import TrainingSettings
from localmel.records import Mention, Span
from localmel.store.progress import Listener, listening
from localmel.training.data import read_datasets
from localmel.training.recipe import Recipe
from localmel.training.run import Outcome, train_networks
from tests.encode.colours import Colours

N = 24
"Entities that are all called the same."


def pattern(number: int) -> NDArray[Any]:
    """A picture of its own for each entity: nine coloured squares."""
    return np.random.default_rng(number).integers(0, 256, (3, 3, 3), np.uint8)


def paint(path: Path, number: int, view: int) -> None:
    """The entity's pattern as another photograph shows it: other size, light, noise, and JPEG's losses."""
    chance = np.random.default_rng([number, view])
    side = 60 if not view else int(chance.integers(40, 90))
    pixels = np.asarray(Image.fromarray(pattern(number)).resize((side, side), Image.Resampling.NEAREST), np.float64)
    if view:
        pixels = pixels * chance.uniform(0.9, 1.05) + chance.normal(0, 8, pixels.shape)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=70)


@pytest.fixture(scope="module")
def clip(tiny_models: Callable[[str], Path]) -> Clip:
    if importlib.util.find_spec("open_clip") is None:
        pytest.skip("CLIP needs the extra `clip`: pip install open_clip_torch")
    return Clip(tiny_models("tiny-clip"), device="cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Iterator[KnowledgeBase]:
    folder = change_kb([{"id": f"Q{n}", "label": "Sign", "image": f"{n}.jpg"} for n in range(N)])
    with KnowledgeBase(folder) as opened:
        pictures_folder(opened).mkdir()
        for n in range(N):
            paint(pictures_folder(opened) / f"{n}.jpg", n, 0)
        yield opened


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sentences that say nothing, each with a picture that says it all."""
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    for part, views in (("train", range(1, 5)), ("val", range(5, 7))):
        lines = []
        for number, (n, view) in enumerate((n, view) for view in views for n in range(N)):
            paint(folder / "pictures" / f"{n}-{view}.jpg", n, view)
            sentence = f"Sign, seen on {part} day {number}."
            line = {"id": f"{part}-{number}", "sentence": sentence, "mention": "Sign", "answer": f"Q{n}"}
            lines.append(line | {"image": f"pictures/{n}-{view}.jpg"})
        (folder / f"signs-{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def trained(data: Path, kb: KnowledgeBase, clip: Clip, folder: Path, **more: Any) -> Outcome:
    training = TrainingSettings(epochs=12, batch=48, rate=3e-3, hard_negatives=0, without_image=0.1)
    return train_networks(
        Recipe(data=data, training=training, width=64, **more), kb, Encoders(text=clip, image=clip), folder
    )


def test_what_only_the_picture_tells_is_learnt_from_it_and_from_nothing_else(
    data: Path, kb: KnowledgeBase, clip: Clip, tmp_path: Path
) -> None:
    seeing = trained(data, kb, clip, tmp_path / "seeing").best
    assert seeing.validation["all"].hits_at_1 >= 0.9
    blind = trained(data, kb, clip, tmp_path / "blind", without=("image",)).best
    assert blind.validation["all"].hits_at_1 <= 3 / N  # one of N by chance
    assert load_network(blind.network).image_space is None

    network = load_network(seeing.network)
    assert network.image_space == clip.image_space
    assert network.network.settings.image_width == clip.space.width
    index_matcher(kb, network, Encoders(text=clip, image=clip), "auto")
    entities = load_fused(kb, load_packed(kb), network)
    views = [(n, view) for view in (90, 91, 92) for n in range(N)]
    paths = [data / "pictures" / f"test-{n}-{view}.jpg" for n, view in views]
    for path, (n, view) in zip(paths, views, strict=True):
        paint(path, n, view)
    span = Span(start=0, end=4)
    mentions = [Mention(id=path.stem, surface="Sign", context="Sign", span=span, image=path) for path in paths]
    text, triples = mention_arrays(mentions, [()] * len(mentions), clip.encode)

    def right(**pictures: NDArray[Any]) -> float:
        fused = network.network.fuse(text=text, triples=triples, **pictures)
        nearest = (fused @ np.asarray(entities, np.float32).T).argmax(axis=1)
        return float((nearest == [n for n, _ in views]).mean())

    assert right(**mention_pictures(mentions, clip)) >= 0.9
    assert right() <= 3 / N


def test_without_image_is_refused_where_nothing_looks_at_pictures(
    data: Path, kb: KnowledgeBase, clip: Clip, tmp_path: Path
) -> None:
    recipe = Recipe(data=data, training=TrainingSettings(epochs=1), without=("image",))
    with pytest.raises(UsageError, match="cannot be trained without image"):
        train_networks(recipe, kb, Encoders(text=clip, image=None), tmp_path / "run")


def test_pictures_are_encoded_once_and_again_when_one_has_changed(data: Path, tmp_path: Path) -> None:
    datasets = read_datasets(data)
    splits = {"train": datasets.train, "validation": datasets.validation}
    encoder, folder = Colours(), tmp_path / "run" / "encode.pictures"
    first, facts = encoded_pictures(splits, encoder, folder)
    assert ({name: len(found.there) for name, found in first.items()}) == {"train": 4 * N, "validation": 2 * N}
    assert len(encoder.asked) == 6 * N
    again = Colours()
    for name, found in encoded_pictures(splits, again, folder)[0].items():
        assert np.array_equal(found.vectors, first[name].vectors)
        assert found.there.all()
    assert again.asked == []
    paint(data / "pictures" / "3-5.jpg", 4, 5)
    changed = Colours()
    other, more = encoded_pictures(splits, changed, folder)
    assert changed.asked
    assert facts["validation_pictures"] != more["validation_pictures"]
    assert facts["train_pictures"] == more["train_pictures"]
    moved = np.abs(other["validation"].vectors - first["validation"].vectors).max(axis=1) > 1e-3
    assert moved.sum() == 1
    assert encoded_pictures(splits, Colours(weights="e" * 64), folder)[1] != more


def test_pictures_that_cannot_be_read_are_counted_and_their_mentions_are_trained_without(
    data: Path, kb: KnowledgeBase, clip: Clip, tmp_path: Path
) -> None:
    (data / "pictures" / "0-1.jpg").unlink()
    (data / "pictures" / "1-1.jpg").write_bytes(b"no picture")
    os.truncate(data / "pictures" / "2-5.jpg", 100)
    (pictures_folder(kb) / "3.jpg").unlink()
    notes: list[str] = []
    recipe = Recipe(data=data, training=TrainingSettings(epochs=1, batch=48), width=16)
    with listening(Listener(on_note=notes.append)):
        train_networks(recipe, kb, Encoders(text=clip, image=clip), tmp_path / "run")
    assert [note for note in notes if note.startswith("2 of 96 train mentions name a picture")]
    assert [note for note in notes if note.startswith("1 of 48 val mentions name a picture")]
    assert [note for note in notes if "the KB names: 24, missing: 1, broken: 0" in note]
