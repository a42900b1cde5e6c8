"""Identity: the nearest portraits of one's own KB, only where switched on, faces with faces and wholes with wholes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from localmel.encode.kb_images import index_images, load_images
from localmel.encode.space import Space
from localmel.errors import BadInput
from localmel.kb.packed import pack
from localmel.kb.store import KnowledgeBase
from localmel.see import identity
from localmel.see.identity import (
    FACES,
    WHOLE,
    IdentitySettings,
    Likeness,
    Portraits,
    identities,
    identity_texts,
    portraits_of_faces,
    portraits_of_pictures,
)
from localmel.see.objects import Box, objects_of_files
from tests.encode.colours import Colours

SPACE = Space(name="faces", width=4, weights_sha256="a" * 64)
ON = IdentitySettings(on=True)


def portraits(vectors: Sequence[Sequence[float]], entities: Sequence[int]) -> Portraits:
    rows = np.array(vectors, np.float32).reshape(-1, 4)
    return Portraits(space=SPACE, of=FACES, vectors=rows, entities=np.array(entities, np.int64))


OWN = portraits([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0.8, 0.6, 0, 0]], [7, 3, 5, 3])


def test_nothing_is_looked_for_unless_it_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_nearest", lambda *_: pytest.fail("a portrait was looked at"))
    assert identities(OWN, [np.eye(4), np.eye(4)], SPACE, FACES, IdentitySettings()) == [(), ()]


def test_entities_above_the_threshold_are_told_with_their_similarity() -> None:
    faces = [np.array([[1, 0, 0, 0]], np.float32), np.zeros((0, 4), np.float32), np.array([[0, 0, 0, 1]], np.float32)]
    first, nobody, stranger = identities(OWN, faces, SPACE, FACES, ON)
    assert [(one.entity, round(one.similarity, 2)) for one in first] == [(7, 1.0), (3, 0.8)]  # the better of two
    assert (nobody, stranger) == ((), ())
    assert first[1].words("Ann") == "like a picture of Ann (similarity 0.80)"
    (only,) = identities(OWN, faces[:1], SPACE, FACES, replace(ON, most=1))
    assert [one.entity for one in only] == [7]


def test_a_likeness_of_exactly_the_threshold_is_none() -> None:
    asked = [np.array([[0.5, 0, 0, 0]], np.float32)]
    assert identities(OWN, asked, SPACE, FACES, ON) == [()]
    assert identities(OWN, asked, SPACE, FACES, replace(ON, threshold=0.49))[0][0].entity == 7


@given(st.integers(0, 10_000), st.integers(0, 30), st.integers(0, 4), st.sampled_from([-1.0, 0.0, 0.3]))
def test_the_nearest_are_those_of_the_definition(seed: int, p: int, q: int, threshold: float) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(p + q, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    owners = chance.integers(0, 6, p)
    best: dict[int, float] = {}
    for owner, vector in zip(owners.tolist(), vectors[:p], strict=True):
        for face in vectors[p:]:
            if float(vector @ face) > threshold:
                best[owner] = max(best.get(owner, -2.0), float(vector @ face))
    expected = sorted(best, key=lambda owner: (-best[owner], owner))
    settings = IdentitySettings(on=True, threshold=threshold, most=4)
    (found,) = identities(portraits(vectors[:p].tolist(), owners.tolist()), [vectors[p:]], SPACE, FACES, settings)
    np.testing.assert_allclose([one.similarity for one in found], [best[owner] for owner in expected][:4], atol=1e-6)
    assert len({one.entity for one in found}) == len(found)


def test_faces_are_not_held_against_whole_pictures_nor_spaces_against_each_other() -> None:
    with pytest.raises(BadInput, match="cannot compare whole pictures with faces"):
        identities(OWN, [np.eye(4)], SPACE, WHOLE, ON)
    with pytest.raises(BadInput, match="cannot compare faces of other"):
        identities(OWN, [np.eye(4)], replace(SPACE, name="other"), FACES, ON)
    for wrong in ({"threshold": 1.5}, {"threshold": float("nan")}, {"most": 0}):
        with pytest.raises(BadInput):
            IdentitySettings(**wrong)  # type: ignore[arg-type]


def test_what_is_told_becomes_the_texts_of_those_entities() -> None:
    texts = np.arange(20, dtype=np.float16).reshape(5, 4)
    rows = identity_texts([(Likeness(entity=4, similarity=0.9), Likeness(entity=1, similarity=0.6)), ()], texts)
    assert [row.tolist() for row in rows] == [[texts[4].tolist(), texts[1].tolist()], []]
    assert [row.shape for row in rows] == [(2, 4), (0, 4)]


# --- the KB's own pictures --------------------------------------------------------------------------------------


class UpperHalf:
    """Takes the upper half of every picture for a face."""

    facts: Mapping[str, str] = {"detector": "upper half"}

    def boxes(self, image: Image.Image) -> Sequence[Box]:
        return [Box(left=0, top=0, right=image.width, bottom=image.height / 2)]


@pytest.fixture
def kb(tmp_path: Path, change_kb: Callable[..., Path]) -> Path:
    """Ann's face is red, Bea's is green; below both the picture is black.  Cy has no picture, Dan's is broken."""
    for name, colour in (("ann", "red"), ("bea", "lime")):
        picture = Image.new("RGB", (40, 80), "black")
        picture.paste(Image.new("RGB", (40, 40), colour), (0, 0))
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "dan.png").write_bytes(b"no picture")
    rows: list[dict[str, object]] = [
        {"id": name, "label": name, "image": str(tmp_path / f"{name}.png")} for name in ("ann", "bea", "dan")
    ]
    return change_kb([*rows, {"id": "cy", "label": "Cy"}])


def test_faces_of_the_kb_are_found_by_those_of_a_mention(kb: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 60), "red").save(tmp_path / "mention.png")
    encoder, detector = Colours(), UpperHalf()
    with KnowledgeBase(kb) as base:
        packed = pack(base)
        own = portraits_of_faces(base, packed, detector, encoder, folder=tmp_path / "faces")
        labels = {
            packed.positions(np.array([row]))[0]: label for row, label in base.select("SELECT row, label FROM entities")
        }
    mention = objects_of_files([tmp_path / "mention.png"], detector, encoder)
    (found,) = identities(own, [mention.of(0)], mention.space, FACES, replace(ON, threshold=0.9))
    assert [labels[one.entity] for one in found] == ["ann"]
    assert sorted(labels[entity] for entity in own.entities.tolist()) == ["ann", "bea"]


def test_without_a_detector_whole_pictures_are_compared(kb: Path) -> None:
    encoder = Colours()
    with KnowledgeBase(kb) as base:
        packed = pack(base)
        index_images(base, packed, encoder)
        images = load_images(base, packed, encoder.image_space)
    own = portraits_of_pictures(images)
    assert (own.of, len(own.vectors)) == (WHOLE, 2)
    (found,) = identities(own, [images.vectors[own.entities[:1]]], images.space, WHOLE, replace(ON, threshold=0.99))
    assert [one.entity for one in found] == [int(own.entities[0])]
