"""A network's folder and the vectors it makes of a KB: tied together by hashes, made once, resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import localmel.matchers.kgmel.fused as module
from localmel.encode.kb_vectors import KbVectors
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, OutOfSpace
from localmel.kb.packed import PackedKb, pack, relation_texts
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import remove_from_kb
from localmel.matchers.kgmel.folder import KgmelMatcher, load_network, save_network
from localmel.matchers.kgmel.fused import fuse_kb, fused_folder, load_fused
from localmel.matchers.kgmel.kb_triples import KbTriples
from localmel.matchers.kgmel.settings import FusionSettings

WIDTH = 6
SPACE = Space(name="random", width=WIDTH, weights_sha256="c" * 64)
SETTINGS = FusionSettings(text_width=WIDTH, triple_width=WIDTH, width=4, kept_triples=2)
N = 50


def random_weights(seed: int) -> dict[str, Any]:
    import torch

    from localmel.matchers.kgmel.network import FusionNetwork

    torch.manual_seed(seed)
    return {name: value.numpy() for name, value in FusionNetwork(SETTINGS).state_dict().items()}


@pytest.fixture
def network(tmp_path: Path) -> KgmelMatcher:
    save_network(tmp_path / "network", random_weights(0), SETTINGS, SPACE, {"trained_on": ["nothing"]})
    return load_network(tmp_path / "network")


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Iterator[KnowledgeBase]:
    entities = [{"id": f"Q{number}", "label": f"Name {number}"} for number in range(N)]
    facts = [(f"Q{n}", "near", "", f"place {k}") for n in range(N) for k in range(n % 5)]
    opened = KnowledgeBase(change_kb(entities, facts))
    yield opened
    opened.close()


def arrays_of(kb: KnowledgeBase) -> tuple[PackedKb, KbVectors]:
    packed, random = pack(kb), np.random.default_rng(0)

    def units(n: int) -> Any:
        values = random.standard_normal((n, WIDTH))
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)

    return packed, KbVectors(
        space=SPACE,
        entities=units(len(packed.rows)),
        phrases=units(len(packed.phrase_triple)),
        relations=units(len(list(relation_texts(kb)))),
    )


def expected(network: KgmelMatcher, packed: PackedKb, vectors: KbVectors) -> Any:
    """Each entity fused alone."""
    triples = KbTriples(packed, vectors)
    alone = [
        network.network.fuse(text=vectors.entities[place : place + 1], triples=triples.of(np.array([place])))
        for place in range(len(packed.rows))
    ]
    return np.concatenate(alone)


@pytest.mark.parametrize("by_torch", [False, True])
def test_every_entity_gets_the_vector_it_has_alone(
    kb: KnowledgeBase, network: KgmelMatcher, by_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BY_TORCH", 0 if by_torch else N + 1)
    monkeypatch.setattr("localmel.matchers.kgmel.kb_triples._ROWS_AT_ONCE", 7)
    packed, vectors = arrays_of(kb)
    fused = fuse_kb(kb, packed, vectors, network)
    assert fused.shape == (N, 4)
    np.testing.assert_allclose(fused, expected(network, packed, vectors), atol=1e-3)  # they are kept in float16
    np.testing.assert_allclose(np.linalg.norm(fused.astype(np.float32), axis=1), 1, atol=2e-3)
    assert not list((kb.folder / "fused").glob(".*"))


def test_vectors_that_stand_there_are_not_made_again(
    kb: KnowledgeBase, network: KgmelMatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, vectors = arrays_of(kb)
    fuse_kb(kb, packed, vectors, network)
    monkeypatch.setattr(type(network.network), "fuse", lambda *_, **__: pytest.fail("made again"))
    fuse_kb(kb, packed, vectors, network)


def test_an_interrupted_run_goes_on_behind_the_last_piece(
    kb: KnowledgeBase, network: KgmelMatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localmel.matchers.kgmel.kb_triples._ROWS_AT_ONCE", 7)
    packed, vectors = arrays_of(kb)
    real, calls = type(network.network).fuse, []

    def dying(self: Any, **inputs: Any) -> Any:
        calls.append(len(inputs["text"]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, **inputs)

    monkeypatch.setattr(type(network.network), "fuse", dying)
    with pytest.raises(KeyboardInterrupt):
        fuse_kb(kb, packed, vectors, network)
    with pytest.raises(BadInput, match="never fused"):
        load_fused(kb, packed, network)
    fused = fuse_kb(kb, packed, vectors, network)
    assert sum(calls) == N + calls[3]  # the piece that was cut off is the only one made twice
    np.testing.assert_allclose(fused, expected(network, packed, vectors), atol=1e-3)


def test_after_a_change_of_the_kb_its_vectors_are_refused_and_made_anew(
    change_kb: Callable[..., Path], kb: KnowledgeBase, network: KgmelMatcher
) -> None:
    fuse_kb(kb, *arrays_of(kb), network)
    remove_from_kb(kb.folder, ["Q7"])
    with KnowledgeBase(kb.folder) as changed:
        packed, vectors = arrays_of(changed)
        with pytest.raises(BadInput, match="changed") as caught:
            load_fused(changed, packed, network)
        assert "localmel index" in caught.value.hint
        assert fuse_kb(changed, packed, vectors, network).shape == (N - 1, 4)


def test_vectors_of_two_networks_stand_side_by_side(kb: KnowledgeBase, network: KgmelMatcher, tmp_path: Path) -> None:
    save_network(tmp_path / "other", random_weights(1), SETTINGS, SPACE, {})
    other = load_network(tmp_path / "other")
    packed, vectors = arrays_of(kb)
    first, second = fuse_kb(kb, packed, vectors, network), fuse_kb(kb, packed, vectors, other)
    assert fused_folder(kb, network) != fused_folder(kb, other)
    assert np.abs(first - second).max() > 0.1
    assert np.array_equal(load_fused(kb, packed, network), first)


def test_a_network_of_another_space_is_refused(kb: KnowledgeBase, tmp_path: Path) -> None:
    for number, space in enumerate((Space(name="clip", width=WIDTH, weights_sha256="c" * 64),
                                    Space(name="random", width=WIDTH, weights_sha256="d" * 64))):  # fmt: skip
        save_network(tmp_path / str(number), random_weights(0), SETTINGS, space, {})
        with pytest.raises(BadInput, match="trained on texts of"):
            fuse_kb(kb, *arrays_of(kb), load_network(tmp_path / str(number)))


def changed_card(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        card = json.loads((folder / "network.json").read_text())
        (folder / "network.json").write_text(json.dumps({**card, **changes}))

    return change


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no card": lambda folder: (folder / "network.json").unlink(),
    "no weights": lambda folder: (folder / "network.safetensors").unlink(),
    "card is no JSON": lambda folder: (folder / "network.json").write_text("{"),
    "card is a list": lambda folder: (folder / "network.json").write_text("[]"),
    "weights cut": lambda folder: (folder / "network.safetensors").write_bytes(b"x"),
    "version": changed_card(version=99),
    "hash": changed_card(weights_sha256="0" * 64),
    "no space": changed_card(space_sha256=None, fusion={}),
    "other width": changed_card(fusion={"text_width": 7, "triple_width": WIDTH, "width": 4}),
    "nonsense settings": changed_card(fusion={"text_width": 6, "triple_width": 6, "width": -1}),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_network_is_refused(network: KgmelMatcher, how: str) -> None:
    DAMAGE[how](network.folder)
    with pytest.raises(CorruptArtifact) as caught:
        load_network(network.folder)
    assert str(network.folder) in caught.value.fact


def test_damaged_vectors_are_found_and_made_anew(kb: KnowledgeBase, network: KgmelMatcher) -> None:
    packed, vectors = arrays_of(kb)
    before = np.array(fuse_kb(kb, packed, vectors, network))
    (file,) = fused_folder(kb, network).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CorruptArtifact, match="damaged") as caught:
        load_fused(kb, packed, network)
    assert "localmel index" in caught.value.hint
    assert np.array_equal(fuse_kb(kb, packed, vectors, network), before)


def test_a_full_disk_is_reported_and_leaves_nothing_half_done(
    kb: KnowledgeBase, network: KgmelMatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    packed, vectors = arrays_of(kb)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutOfSpace):
        fuse_kb(kb, packed, vectors, network)
    monkeypatch.undo()
    assert fuse_kb(kb, packed, vectors, network).shape == (N, 4)
