"""A trained DWE+ beside a KB: texts and portraits of the KB reach it, and their change makes what was made stale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from localmel.encode.kb_images import index_images, load_images
from localmel.encode.kb_vectors import load_vectors
from localmel.encode.registry import Encoders
from localmel.errors import BadInput, CorruptArtifact, UsageError
from localmel.kb.store import KnowledgeBase
from localmel.kb.texts import ABSTRACT, WRITTEN, KeptText, TextSource, keep_texts
from localmel.matchers.dwe.choice import DweChoice
from localmel.matchers.dwe.kind import DweKind
from localmel.matchers.dwe.sight import open_sight
from localmel.matchers.registry import index_matcher, kind_of, load_matcher, open_search
from localmel.matchers.trained import TrainedMatcher
from localmel.matchers.two_step_kind import TwoStepKbSearch
from localmel.records import Mention, Span
from localmel.retrieve.candidates import CandidateFinder
from localmel.see.identity import FACES, index_faces, load_faces
from localmel.settings import RetrieveSettings
from tests.encode.colours import Colours
from tests.matchers.hashed_tokens import HashedTokens, token_encoders

LEVELS = {"search": {"first": 0.9, "last": 0.1}}
RED, GREEN, BLUE = (250, 5, 5), (5, 250, 5), (5, 5, 250)


def seeing() -> Encoders:
    return Encoders(text=HashedTokens(), image=Colours())  # type: ignore[arg-type]  # no patches are wanted


def trained(folder: Path, choice: DweChoice, encoders: Encoders) -> Any:
    kind = DweKind(open_sight(choice))
    torch.manual_seed(0)
    network = kind.new(encoders, width=None)
    kind.save(folder, network, encoders.text.space, encoders.image_space, LEVELS)
    return load_matcher(folder)


def write(kb: KnowledgeBase, source: TextSource, model: str, texts: dict[str, str]) -> None:
    keep_texts(kb.folder, source, model, [KeptText(entity_id=name, text=text) for name, text in texts.items()])


def paint(path: Path, colours: Sequence[tuple[int, int, int]]) -> Path:
    """Quarters of these colours: tiles find each of them."""
    image = Image.new("RGB", (40, 40))
    for place, colour in enumerate(colours):
        image.paste(colour, (20 * (place % 2), 20 * (place // 2), 20 + 20 * (place % 2), 20 + 20 * (place // 2)))
    image.save(path)
    return path


@pytest.fixture
def kb(change_kb: Callable[..., Path], tmp_path: Path) -> Iterator[KnowledgeBase]:
    pictures = {name: paint(tmp_path / f"{name}.png", [colour] * 4) for name, colour in (("a", RED), ("b", BLUE))}
    rows = [{"id": name, "label": "Jordan", "image": str(path)} for name, path in pictures.items()]
    with KnowledgeBase(change_kb([*rows, {"id": "c", "label": "Jordan"}])) as base:
        yield base


def mention(context: str, image: Path | None = None) -> Mention:
    return Mention(id="m", surface="Jordan", context=context, span=Span(start=0, end=6), image=image)


def best(search: TwoStepKbSearch, kb: KnowledgeBase, one: Mention) -> str:
    place = int(search.best(search.shown([one]), 1).entities[0, 0])
    return str(kb.select("SELECT id FROM entities ORDER BY row")[place][0])


# --- texts ------------------------------------------------------------------------------------------------------


def test_what_a_model_wrote_tells_namesakes_apart_and_without_it_nothing_does(
    kb: KnowledgeBase, tmp_path: Path
) -> None:
    write(kb, WRITTEN, "m", {"a": "plays basketball in Chicago", "b": "wrote novels in Rome", "c": "a river"})
    chosen = trained(tmp_path / "chosen", DweChoice(written=(WRITTEN,)), token_encoders())
    index_matcher(kb, chosen, token_encoders(), "auto")
    search = open_search(kb, chosen, token_encoders(), "auto")
    assert best(search, kb, mention("Jordan plays basketball in Chicago")) == "a"
    assert best(search, kb, mention("Jordan wrote novels in Rome")) == "b"
    plain = trained(tmp_path / "plain", DweChoice(), token_encoders())
    index_matcher(kb, plain, token_encoders(), "auto")
    blind = open_search(kb, plain, token_encoders(), "auto")
    scores = blind.best(blind.shown([mention("Jordan plays basketball in Chicago")]), 3).scores
    np.testing.assert_allclose(scores, scores[0, 0], atol=1e-6)


def test_two_kinds_of_texts_are_taken_together(kb: KnowledgeBase, tmp_path: Path) -> None:
    write(kb, WRITTEN, "m", {"a": "plays basketball"})
    write(kb, ABSTRACT, "", {"a": "of Chicago", "b": "of Rome"})
    both = DweKind(open_sight(DweChoice(written=(WRITTEN, ABSTRACT))))
    both.index_features(kb, token_encoders())
    packed, vectors = load_vectors(kb, HashedTokens.space)
    seen = both.entities(kb, packed, vectors, None).of(np.arange(3)).parts["written"]
    assert seen.there.sum(dim=1).tolist() == [2, 1, 0]
    texts = HashedTokens().encode(["Jordan: of Rome"]).astype(np.float16)
    np.testing.assert_array_equal(seen.values[1, 0], texts[0].astype(np.float32))


def test_texts_that_changed_or_are_gone_make_the_kb_stale(kb: KnowledgeBase, tmp_path: Path) -> None:
    write(kb, WRITTEN, "m", {"a": "plays basketball"})
    chosen = trained(tmp_path / "chosen", DweChoice(written=(WRITTEN,), written_by="m"), token_encoders())
    index_matcher(kb, chosen, token_encoders(), "auto")
    open_search(kb, chosen, token_encoders(), "auto")
    write(kb, ABSTRACT, "", {"a": "nobody takes this"})
    write(kb, WRITTEN, "another", {"a": "nor this"})
    open_search(kb, chosen, token_encoders(), "auto")
    state = kind_of(chosen).texts_state(kb)
    write(kb, WRITTEN, "m", {"b": "wrote novels"})
    assert kind_of(chosen).texts_state(kb) != state
    assert kind_of(trained(tmp_path / "plain", DweChoice(), token_encoders())).texts_state(kb) == {}
    with pytest.raises(BadInput, match="has changed since it was made ready") as stale:
        open_search(kb, chosen, token_encoders(), "auto")
    assert stale.value.hint.startswith(f"localmel index {kb.folder} --matcher {chosen.folder}   # with the --profile")
    index_matcher(kb, chosen, token_encoders(), "auto")
    open_search(kb, chosen, token_encoders(), "auto")


def test_texts_that_nobody_wrote_are_refused_with_the_command(
    kb: KnowledgeBase, tmp_path: Path, change_kb: Callable[..., Path]
) -> None:
    nothing = trained(tmp_path / "nothing", DweChoice(written=(WRITTEN,)), token_encoders())
    with pytest.raises(BadInput, match="has no descriptions that a model wrote") as missing:
        index_matcher(kb, nothing, token_encoders(), "auto")
    assert "localmel kb describe" in missing.value.hint
    write(kb, WRITTEN, "m", {"a": "x"})
    write(kb, WRITTEN, "n", {"a": "y"})
    with pytest.raises(UsageError, match="2 models wrote") as several:
        DweKind(open_sight(DweChoice(written=(WRITTEN,)))).index_features(kb, token_encoders())
    assert several.value.hint == "--written-by m"


def test_whoever_wrote_the_only_texts_is_named_in_the_card(kb: KnowledgeBase, tmp_path: Path) -> None:
    write(kb, WRITTEN, "m", {"a": "x"})
    kind = DweKind(open_sight(DweChoice(written=(WRITTEN,))))
    kind.index_features(kb, token_encoders())
    packed, vectors = load_vectors(kb, HashedTokens.space)
    bound = kind.bound_to_kb(kb, packed, vectors, None)
    bound.save(tmp_path / "dwe", bound.new(token_encoders(), width=None), HashedTokens.space, None, LEVELS)
    assert load_matcher(tmp_path / "dwe").card["sees"]["choice"]["written_by"] == "m"


# --- portraits --------------------------------------------------------------------------------------------------


def by_portraits(folder: Path, **more: Any) -> TrainedMatcher[Any]:
    found: TrainedMatcher[Any] = trained(folder, DweChoice(identity=True, threshold=0.9, **more), seeing())
    return found


@pytest.mark.parametrize("faces", ["", "tiles"])
def test_the_kbs_own_portraits_are_told_with_their_similarity(kb: KnowledgeBase, tmp_path: Path, faces: str) -> None:
    matcher = by_portraits(tmp_path / "dwe", faces=faces)
    index_matcher(kb, matcher, seeing(), "auto")
    search = open_search(kb, matcher, seeing(), "auto")
    packed, _ = load_vectors(kb, HashedTokens.space)
    finder = CandidateFinder(kb, packed, search, RetrieveSettings(by_name=3, by_vector=3))
    whole, part = paint(tmp_path / "1.png", [RED] * 4), paint(tmp_path / "2.png", [GREEN, BLUE, GREEN, GREEN])
    given = search.shown([mention("Jordan", whole), mention("Jordan", part), mention("Jordan")])
    red, corner, nobody = (found.alike for found in finder.find(["Jordan"] * 3, given))
    assert [(one.entity_id, one.label, round(one.similarity, 2)) for one in red] == [("a", "Jordan", 1.0)]
    assert [one.entity_id for one in corner] == (["b"] if faces else [])  # a face in a corner, not the whole picture
    assert nobody == ()


def test_nothing_is_told_where_identity_was_not_chosen(kb: KnowledgeBase, tmp_path: Path) -> None:
    matcher = trained(tmp_path / "dwe", DweChoice(faces="tiles"), seeing())
    index_matcher(kb, matcher, seeing(), "auto")
    assert not list((kb.folder / "vectors").glob("*.faces.*"))
    search = open_search(kb, matcher, seeing(), "auto")
    given = search.shown([mention("Jordan", paint(tmp_path / "1.png", [RED] * 4))])
    assert not any(search.alike(given))
    assert "identity" not in given.parts


def test_a_picture_that_changed_makes_the_kb_stale(kb: KnowledgeBase, tmp_path: Path) -> None:
    matcher = by_portraits(tmp_path / "dwe", faces="tiles")
    index_matcher(kb, matcher, seeing(), "auto")
    paint(tmp_path / "a.png", [GREEN] * 4)
    packed, _ = load_vectors(kb, HashedTokens.space)
    index_images(kb, packed, Colours())
    with pytest.raises(BadInput, match="has changed since it was made ready") as stale:
        open_search(kb, matcher, seeing(), "auto")
    assert stale.value.hint.startswith("localmel index")
    index_matcher(kb, matcher, seeing(), "auto")
    search = open_search(kb, matcher, seeing(), "auto")
    given = search.shown([mention("Jordan", paint(tmp_path / "1.png", [GREEN] * 4))])
    assert [one.entity_id for one in search.alike(given)[0]] == ["a"]


def test_faces_that_are_gone_or_damaged_are_looked_for_again(kb: KnowledgeBase, tmp_path: Path) -> None:
    matcher = by_portraits(tmp_path / "dwe", faces="tiles")
    index_matcher(kb, matcher, seeing(), "auto")
    (folder,) = (kb.folder / "vectors").glob("[!.]*.faces.*")
    file = folder / "portraits.safetensors"
    whole = file.read_bytes()
    file.unlink()
    with pytest.raises(CorruptArtifact, match="is missing") as gone:
        open_search(kb, matcher, seeing(), "auto")
    assert gone.value.hint.startswith(f"localmel index {kb.folder} --matcher {matcher.folder}   # with the --profile")
    index_matcher(kb, matcher, seeing(), "auto")
    open_search(kb, matcher, seeing(), "auto")
    assert file.read_bytes() == whole


def test_a_kb_without_a_single_face_has_none(kb: KnowledgeBase) -> None:
    class Nobody:
        facts: Mapping[str, str] = {"detector": "nobody"}

        def boxes(self, image: object) -> list[Any]:
            return []

    encoders = seeing()
    DweKind().index_features(kb, encoders)
    packed, _ = load_vectors(kb, HashedTokens.space)
    images = load_images(kb, packed, Colours().image_space)
    with pytest.raises(BadInput, match="no index of the faces"):
        load_faces(kb, packed, images, Nobody())
    index_faces(kb, packed, images, Nobody(), Colours())
    found = load_faces(kb, packed, images, Nobody())
    assert (found.of, len(found.vectors), len(found.entities)) == (FACES, 0, 0)
