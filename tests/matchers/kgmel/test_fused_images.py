"""Fused vectors of a KB with pictures: each entity with its own, none of them stale, nothing of another space."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import localmel.matchers.kgmel.fused as module
from localmel.encode.kb_images import index_images, load_images, pictures_folder
from localmel.encode.kb_vectors import load_vectors
from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact
from localmel.kb.packed import load_packed
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import KgmelMatcher, load_network, save_network
from localmel.matchers.kgmel.fused import fuse_kb, fused_folder, load_fused
from localmel.matchers.kgmel.kb_triples import KbTriples
from localmel.matchers.kgmel.settings import FusionSettings
from localmel.matchers.registry import index_matcher
from localmel.store.progress import Listener, listening
from tests.encode.colours import Colours

WIDTH, N = 6, 24
SPACE = Space(name="random", width=WIDTH, weights_sha256="c" * 64)
SETTINGS = FusionSettings(text_width=WIDTH, triple_width=WIDTH, image_width=3, width=8, kept_triples=2)


class Lengths:
    """A text encoder whose vectors say little."""

    space = SPACE

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> Any:
        vectors = np.array([np.cos(np.arange(WIDTH) * len(text)) for text in texts], np.float32).reshape(-1, WIDTH)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_weights(settings: FusionSettings) -> dict[str, Any]:
    import torch

    from localmel.matchers.kgmel.network import FusionNetwork

    torch.manual_seed(0)
    network = FusionNetwork(settings)
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(std=0.4)
    return {name: value.numpy() for name, value in network.state_dict().items()}


@pytest.fixture
def network(tmp_path: Path) -> KgmelMatcher:
    save_network(tmp_path / "network", random_weights(SETTINGS), SETTINGS, SPACE, {}, images=Colours().image_space)
    return load_network(tmp_path / "network")


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Iterator[KnowledgeBase]:
    """Every third entity names no picture, one names a file that is not there, one a broken one."""
    entities = [{"id": f"Q{n}", "label": f"Name {n}", **({"image": f"{n}.png"} if n % 3 else {})} for n in range(N)]
    folder = change_kb(entities, [(f"Q{n}", "near", "", f"place {k}") for n in range(N) for k in range(n % 4)])
    opened = KnowledgeBase(folder)
    pictures = pictures_folder(opened)
    pictures.mkdir()
    for n in range(N):
        if n % 3 and n != 4:
            Image.new("RGB", (5, 5), (10 * n, 255 - 9 * n, 40)).save(pictures / f"{n}.png")
    (pictures / "5.png").write_bytes(b"no picture")
    yield opened
    opened.close()


def expected(kb: KnowledgeBase, network: KgmelMatcher) -> Any:
    """Each entity fused alone, with its picture or without one."""
    packed, vectors = load_vectors(kb, SPACE)
    triples, images = KbTriples(packed, vectors), load_images(kb, packed, Colours().image_space)
    alone = []
    for place in range(len(packed.rows)):
        seen = {"image": images.vectors[[place]]} if images.there[place] else {}
        given = {"text": vectors.entities[[place]], "triples": triples.of(np.array([place])), **seen}
        alone.append(network.network.fuse(**given))
    return np.concatenate(alone)


@pytest.mark.parametrize("by_torch", [False, True])
def test_every_entity_gets_the_vector_it_has_alone_with_its_picture(
    kb: KnowledgeBase, network: KgmelMatcher, by_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BY_TORCH", 0 if by_torch else N + 1)
    monkeypatch.setattr("localmel.matchers.kgmel.kb_triples._ROWS_AT_ONCE", 7)
    notes: list[str] = []
    with listening(Listener(on_note=notes.append)):
        encoded = indexed(kb, network, Colours())
    assert encoded > N
    assert "the KB names: 16, missing: 1, broken: 1" in notes[0]
    fused = load_fused(kb, load_packed(kb), network)
    np.testing.assert_allclose(fused, expected(kb, network), atol=1e-3)  # they are kept in float16


def indexed(kb: KnowledgeBase, network: KgmelMatcher, images: Colours | None) -> int:
    return index_matcher(kb, network, Encoders(text=Lengths(), image=images), "scan").encoded


def test_pictures_move_the_vectors_of_the_entities_that_have_one(kb: KnowledgeBase, network: KgmelMatcher) -> None:
    indexed(kb, network, Colours())
    with_pictures = np.array(load_fused(kb, load_packed(kb), network))
    for path in pictures_folder(kb).glob("*.png"):
        path.unlink()
    indexed(kb, network, Colours())
    without = load_fused(kb, load_packed(kb), network)
    moved = np.abs(with_pictures - without).max(axis=1) > 1e-3
    assert moved.tolist() == [bool(n % 3) and n not in (4, 5) for n in range(N)]


def test_a_changed_picture_makes_the_fused_vectors_stale_once_it_is_encoded(
    kb: KnowledgeBase, network: KgmelMatcher
) -> None:
    indexed(kb, network, Colours())
    Image.new("RGB", (5, 5), "white").save(pictures_folder(kb) / "7.png")
    packed, vectors = load_vectors(kb, SPACE)
    index_images(kb, packed, Colours())
    with pytest.raises(BadInput, match="fused before it changed") as caught:
        load_fused(kb, packed, network)
    assert "localmel index" in caught.value.hint
    np.testing.assert_allclose(fuse_kb(kb, packed, vectors, network), expected(kb, network), atol=1e-3)


def test_a_second_index_makes_nothing_again(
    kb: KnowledgeBase, network: KgmelMatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(kb, network, Colours())
    monkeypatch.setattr(type(network.network), "fuse", lambda *_, **__: pytest.fail("made again"))
    encoder = Colours()
    assert indexed(kb, network, encoder) == 0
    assert encoder.asked == []


def test_a_network_that_sees_pictures_is_refused_where_none_can_be_encoded(
    kb: KnowledgeBase, network: KgmelMatcher
) -> None:
    trained = r"trained on pictures of colours \(weights a{12}\), "
    with pytest.raises(BadInput, match=f"{trained}not of no space at all"):
        indexed(kb, network, None)
    with pytest.raises(BadInput, match=rf"{trained}not of others \(weights a{{12}}\)"):
        indexed(kb, network, Colours(name="others"))
    with pytest.raises(BadInput, match=rf"{trained}not of colours \(weights d{{12}}\)"):
        indexed(kb, network, Colours(weights="d" * 64))
    assert not fused_folder(kb, network).exists()


def test_without_image_vectors_the_kb_is_not_fused_without_pictures_in_silence(
    kb: KnowledgeBase, network: KgmelMatcher
) -> None:
    indexed(kb, network, Colours())
    packed, vectors = load_vectors(kb, SPACE)
    for path in (kb.folder / "vectors" / "colours.images").iterdir():
        path.unlink()
    for attempt in (lambda: load_fused(kb, packed, network), lambda: fuse_kb(kb, packed, vectors, network)):
        with pytest.raises(BadInput, match="no image vectors of colours") as caught:
            attempt()
        assert "localmel index" in caught.value.hint


def test_a_network_without_an_image_space_looks_at_no_picture(kb: KnowledgeBase, tmp_path: Path) -> None:
    blind = FusionSettings(text_width=WIDTH, triple_width=WIDTH, width=8)
    save_network(tmp_path / "blind", random_weights(blind), blind, SPACE, {})
    encoder = Colours()
    indexed(kb, load_network(tmp_path / "blind"), encoder)
    assert encoder.asked == []
    assert not (kb.folder / "vectors" / "colours.images").exists()


@pytest.mark.parametrize("damage", [None, "colours", {"name": "colours"}], ids=str)
def test_a_card_that_does_not_name_its_image_space_is_refused(network: KgmelMatcher, damage: Any) -> None:
    path = network.folder / "network.json"
    card = json.loads(path.read_text()) | {"image_space": damage}
    path.write_text(json.dumps(card))
    with pytest.raises(CorruptArtifact, match="holds no fusion network"):
        load_network(network.folder)
