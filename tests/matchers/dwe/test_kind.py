"""DWE+ as a kind: mentions and entities through real encoders, kept on the disk, with and without pictures."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from localmel.encode.kb_images import index_images, load_images
from localmel.encode.kb_vectors import index_kb, load_vectors
from localmel.encode.minilm import MiniLM
from localmel.encode.registry import Encoders
from localmel.errors import UsageError
from localmel.kb.packed import pack
from localmel.kb.store import KnowledgeBase
from localmel.matchers.dwe.choice import DweChoice
from localmel.matchers.dwe.features import DweFeatures, DweTable
from localmel.matchers.dwe.kind import DweKind
from localmel.matchers.dwe.mentions import OwnPortraits, dwe_entities, dwe_mentions
from localmel.matchers.dwe.network import Dwe
from localmel.matchers.dwe.sight import open_sight
from localmel.matchers.registry import MATCHERS, load_matcher, matcher_kind
from localmel.matchers.train.settings import TrainingSettings
from localmel.records import Mention, Span
from localmel.see.identity import portraits_of_pictures
from localmel.store.progress import Listener, listening

ROOT = Path(__file__).resolve().parents[3]
IMAGES = Path(os.environ.get("LOCALMEL_SHARED", ROOT.parent / "shared")) / "data" / "images"
with_clip = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="CLIP needs the extra `clip`: pip install open_clip_torch"
)
WRITER, PLAYER = "Jordan, the novelist, signed her book.", "Jordan scored 30 points for the Bulls."


def mention(sentence: str, image: Path | None = None, surface: str = "Jordan") -> Mention:
    return Mention(id=sentence, surface=surface, context=sentence, span=Span(start=0, end=len(surface)), image=image)


@pytest.fixture(scope="module")
def minilm() -> Encoders:
    return Encoders(text=MiniLM(method="torch"), image=None)


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Path:
    rows: list[dict[str, object]] = [
        {"id": "player", "label": "Michael Jordan", "description": "basketball player of the Chicago Bulls"},
        {"id": "writer", "label": "Nina Jordan", "description": "novelist and essayist"},
        {"id": "river", "label": "Jordan", "description": "river in the Middle East"},
    ]
    return change_kb(rows)


def rows_of(table: DweTable) -> DweFeatures:
    return table.of(np.arange(len(table)))


@torch.no_grad()
def best(network: Dwe, mentions: DweTable, entities: DweTable) -> list[int]:
    found = network.scores(network.mentions(rows_of(mentions)), network.entities(rows_of(entities)))
    places: list[int] = found.argmax(dim=1).tolist()
    return places


def test_it_is_one_of_the_kinds() -> None:
    assert "dwe" in MATCHERS
    assert isinstance(matcher_kind("dwe"), DweKind)
    with pytest.raises(UsageError, match="no matcher 'dwe2'"):
        matcher_kind("dwe2")


def test_the_text_half_tells_namesakes_apart_by_their_sentences(kb: Path, minilm: Encoders, tmp_path: Path) -> None:
    """Untrained, it is MiniLM's own likeness, with a real KB and real vectors."""
    kind = DweKind()
    torch.manual_seed(0)
    network = kind.new(minilm, width=None).eval()
    with KnowledgeBase(kb) as base:
        index_kb(base, minilm.text)
        packed, vectors = load_vectors(base, minilm.text.space)
        assert kind.index_parts(base, packed, minilm, None) == 0
        entities = kind.entities(base, packed, vectors, None)
        ids = [str(row[0]) for row in base.select("SELECT id FROM entities ORDER BY row")]
    table = kind.mentions([mention(WRITER), mention(PLAYER)], minilm)
    assert [ids[place] for place in best(network, table, entities)] == ["writer", "player"]
    kind.save(tmp_path / "dwe", network, minilm.text.space, None, {})
    found = load_matcher(tmp_path / "dwe")
    assert (found.kind, best(found.network, table, entities)) == ("dwe", best(network, table, entities))


def test_mentions_are_kept_and_what_is_kept_is_what_was_made(minilm: Encoders, tmp_path: Path) -> None:
    some = [mention(WRITER), mention(PLAYER), mention(WRITER)]
    said: list[str] = []
    with listening(Listener(on_step=lambda what, _, __: said.append(what))):
        made = [
            rows_of(dwe_mentions(some, minilm, folder=folder))
            for folder in (None, tmp_path / "kept", tmp_path / "kept")
        ]
    for one in made[1:]:
        assert set(one.parts) == set(made[0].parts) == {"name", "text", "words"}
        for name, part in one.parts.items():
            assert torch.equal(part.values, made[0].parts[name].values)
    assert said == ["encoding mentions of kept"]
    with listening(Listener(on_step=lambda what, _, __: said.append(what))):
        other = dwe_mentions(some[:2], minilm, folder=tmp_path / "kept")
    assert (len(other), len(said)) == (2, 2)  # other mentions: made anew
    assert len(dwe_mentions([], minilm)) == 0


def test_a_batch_is_learnt_from_and_hidden_pictures_are_not_looked_at(minilm: Encoders) -> None:
    kind = DweKind()
    torch.manual_seed(0)
    network = kind.new(minilm, width=32)
    table = rows_of(kind.mentions([mention(WRITER), mention(PLAYER)], minilm))
    entities = DweFeatures(n=2, parts={"text": table.parts["text"]})
    total, told = kind.loss(network, table, entities, torch.arange(2), torch.arange(2), TrainingSettings())
    total.backward()
    assert torch.isfinite(total)
    assert told <= total
    assert network.settings.heads == 8
    assert set(kind.facts(network)) == {"dwe", "loss", "pictures"}
    blind = kind.without_pictures(
        replace(table, parts={**table.parts, "objects": table.parts["words"]}), torch.tensor([True, False])
    )
    assert not blind.parts["objects"].there[0].any()
    assert blind.parts["objects"].there[1].any()
    assert torch.equal(blind.parts["words"].there, table.parts["words"].there)


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tiny_models: Callable[[str], Path]) -> Encoders:
    from localmel.encode.clip import Clip

    made = Clip(tiny_models("tiny-clip"), device="cpu")
    return Encoders(text=made, image=made)


@with_clip
def test_pictures_are_seen_whole_in_pieces_and_by_attributes(clip: Encoders, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    Image.new("RGB", (5, 5), "red").save(tmp_path / "dot.png")  # nothing can be cut out of it
    (tmp_path / "broken.png").write_bytes(b"none")
    images = [tmp_path / "red.png", None, tmp_path / "broken.png", tmp_path / "dot.png"]
    some = [mention(f"{WRITER} {number}", image) for number, image in enumerate(images)]
    sight = open_sight(DweChoice(attributes="clip", asked=("setting",), least=0.0))
    tables = [
        dwe_mentions(some, clip, sight=sight, folder=folder) for folder in (None, tmp_path / "kept", tmp_path / "kept")
    ]
    found = rows_of(tables[2])
    assert found.parts["image"].there[:, 0].tolist() == [True, False, False, True]
    assert found.parts["objects"].there.sum(dim=1).tolist() == [5, 0, 0, 0]
    assert found.parts["attributes"].there[1].sum() == 0
    assert found.parts["attributes"].there[0].any()
    for table in tables[:2]:
        for name, part in rows_of(table).parts.items():
            assert torch.equal(part.values, found.parts[name].values)
    kind = DweKind(sight)
    network = kind.new(clip, width=None).eval()
    assert "attributes" not in network.settings.without
    assert torch.isfinite(network.mentions(found).vectors).all()


@with_clip
@pytest.mark.slow  # 285 pictures with five tiles each, and a second view of all of them: 40 seconds on one core
@pytest.mark.skipif(not IMAGES.is_dir(), reason=f"no pictures at {IMAGES}; set LOCALMEL_SHARED")
@pytest.mark.parametrize(
    ("kind", "kb_view", "mention_view", "n"),
    [("flags", "kb_flat", "mention_flat64", 240), ("presidents", "kb_view", "mention_view", 44)],
)
def test_real_pictures_go_the_whole_way(
    clip: Encoders, change_kb: Callable[..., Path], kind: str, kb_view: str, mention_view: str, n: int
) -> None:
    """Through detector, encoder, identity and network.  The tiny model's answers mean nothing but that it all fits."""
    views = [{path.stem: path for path in sorted((IMAGES / kind / view).iterdir())} for view in (kb_view, mention_view)]
    names = sorted(views[0].keys() & views[1].keys())
    assert len(names) == n
    folder = change_kb([{"id": name, "label": name, "image": str(views[0][name])} for name in names])
    assert clip.image is not None
    with KnowledgeBase(folder) as base:
        index_kb(base, clip.text)
        index_images(base, pack(base), clip.image)
        packed, vectors = load_vectors(base, clip.text.space)
        images = load_images(base, packed, clip.image.image_space)
    entities = dwe_entities(vectors, images)
    some = [mention(f"{name} is shown.", views[1][name], surface=name) for name in names]
    sight = open_sight(DweChoice(attributes="clip", identity=True, threshold=-1.0, least=0.0))
    own = OwnPortraits(portraits=portraits_of_pictures(images), texts=vectors.entities, state="")
    seen = dwe_mentions(some, clip, sight=sight, own=own)
    network = DweKind(sight).new(clip, width=None).eval()
    places = best(network, seen, entities)
    assert rows_of(seen).parts["objects"].there.sum().item() == 5 * n
    assert len(places) == n
    assert {len(row) for row in rows_of(seen).alike} == {3}
    with torch.no_grad():
        sides = network.mentions(rows_of(seen)), network.entities(rows_of(entities))
    assert all(bool(torch.isfinite(side.vectors).all()) for side in sides)
