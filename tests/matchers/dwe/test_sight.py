"""What a trained DWE+ sees is what it was trained to see, or an error that says what is not as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingExtra, MissingWeights, UsageError
from localmel.matchers.dwe import sight as dwe_sight
from localmel.matchers.dwe.choice import DweChoice
from localmel.matchers.dwe.mentions import OwnPortraits, dwe_mentions
from localmel.matchers.dwe.sight import CARD, DweSight, open_sight, sight_of_card
from localmel.records import Mention, Span
from localmel.see.objects import Box
from localmel.settings import EngineSettings
from tests.encode.colours import Colours
from tests.matchers.hashed_tokens import HashedTokens

TRAINED = Path("runs/one/seed-0/network")


def card(choice: DweChoice) -> dict[str, Any]:
    return {CARD: json.loads(json.dumps(open_sight(choice).for_card()))}


def test_what_a_card_names_is_opened_again() -> None:
    choice = DweChoice(detector="tiles+tiles", faces="tiles", attributes="clip", asked=("setting",), identity=True)
    sight = sight_of_card(TRAINED, card(choice))
    assert sight.choice == choice
    assert sight.facts() == open_sight(choice).facts()
    nothing = sight_of_card(TRAINED, card(DweChoice(detector="none")))
    assert (nothing.objects, nothing.faces) == (None, None)


def test_a_card_of_before_there_was_a_choice_means_tiles() -> None:
    assert sight_of_card(TRAINED, {}).choice == DweChoice()
    assert sight_of_card(TRAINED, {"run": []}).choice == DweChoice()
    old: dict[str, Any] = {"run": {"pictures": {"detector": {"detector": "tiles 1"}, "attributes": None}}}
    assert sight_of_card(TRAINED, old).choice == DweChoice()
    old["run"]["pictures"]["detector"] = {"detector": "faces 1"}
    with pytest.raises(BadInput, match="does not name"):
        sight_of_card(TRAINED, old)


def changed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    made = card(DweChoice(faces="tiles", identity=True))
    place = made[CARD]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return made


@pytest.mark.parametrize(
    "edited",
    [
        changed(("choice", "threshold"), 0.1),
        changed(("choice", "identity"), False),
        changed(("choice", "detector"), "none"),
        changed(("faces",), None),
        changed(("sha256",), "0" * 64),
        {CARD: {}},
        {CARD: None},
        {CARD: []},
    ],
)
def test_a_card_that_was_edited_is_refused(edited: dict[str, Any]) -> None:
    with pytest.raises(CorruptArtifact, match="does not say what the matcher sees") as caught:
        sight_of_card(TRAINED, edited)
    assert caught.value.hint.startswith("localmel train")


def sealed(**more: Any) -> dict[str, Any]:
    """A card of another machine: whole, but what it names is not what is here."""
    made = {name: value for name, value in card(DweChoice(faces="tiles"))[CARD].items() if name != "sha256"}
    choice = {**made["choice"], **more.pop("choice", {})}
    made |= {"choice": choice, **more}
    return {CARD: {**made, "sha256": dwe_sight._hash(made)}}


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (
            sealed(choice={"detector": "rtdetr-v2-r18"}),
            MissingWeights,
            "not here: there is no detector 'rtdetr-v2-r18'",
        ),
        (sealed(choice={"detector": "/nowhere/at/all"}), MissingWeights, "no folder /nowhere/at/all"),
        (sealed(detector={"detector": "tiles 2"}), BadInput, "trained with other bytes of tiles"),
        (sealed(faces={"detector": "tiles 1", "files": "0"}), BadInput, "other bytes of tiles"),
        (sealed(sentences="0"), BadInput, "in other words"),
        (sealed(choice={"attributes": "clip", "asked": ["shoe size"]}), CorruptArtifact, "no attribute shoe size"),
    ],
)
def test_what_is_not_as_it_was_is_said_with_the_next_command(
    given: dict[str, Any], kind: type[LocalmelError], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        sight_of_card(TRAINED, given)
    assert caught.value.hint
    assert str(TRAINED) in caught.value.fact


def test_another_version_of_what_runs_a_detector_is_not_another_detector() -> None:
    from localmel.see.detectors import same_boxes

    here = {"0.detector": "faces 1", "0.opencv": "4.13", "0.cascade": "a"}
    assert same_boxes(here, {**here, "0.opencv": "4.14"})
    assert not same_boxes(here, {**here, "0.cascade": "b"})
    assert not same_boxes(here, None)


def test_without_opencvs_cascade_a_matcher_of_faces_says_what_to_install() -> None:
    from localmel.see.detectors import CascadeFaces

    try:
        CascadeFaces()
    except MissingExtra:
        with pytest.raises(MissingExtra, match="looks at pictures by what is not here") as caught:
            sight_of_card(TRAINED, sealed(choice={"faces": "faces"}))
        assert "pip install" in caught.value.hint
    else:
        pytest.skip("OpenCV has its cascade here")


def test_paths_are_kept_from_the_root_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"answer": {"setting": "stage"}}\n')
    monkeypatch.chdir(tmp_path)
    model = EngineSettings(engine="scripted", weights="./script.jsonl")
    choice = DweChoice(attributes="vlm", asked=("setting",), model=model)
    kept = card(choice)
    monkeypatch.chdir("/")
    assert sight_of_card(TRAINED, kept).model
    script.write_text('{"answer": {"setting": "office"}}\n')
    with pytest.raises(BadInput, match="what another model said of pictures"):
        sight_of_card(TRAINED, kept)
    script.unlink()
    with pytest.raises(LocalmelError):
        sight_of_card(TRAINED, kept)


def test_a_detector_that_is_not_there_is_refused_when_it_is_chosen() -> None:
    with pytest.raises(MissingWeights, match="no detector 'nothing-such'"):
        open_sight(DweChoice(detector="nothing-such"))
    with pytest.raises(UsageError):
        open_sight(DweChoice(detector="none+tiles"))


# --- what is seen of mentions -----------------------------------------------------------------------------------


class Given:
    """A detector that says what it is told to say."""

    facts: Mapping[str, str] = {"detector": "given"}

    def __init__(self, boxes: Sequence[Box]) -> None:
        self._boxes = boxes

    def boxes(self, image: Image.Image) -> Sequence[Box]:
        return self._boxes


def mention(image: Path | None) -> Mention:
    return Mention(id="m", surface="Jordan", context="Jordan played.", span=Span(start=0, end=6), image=image)


def seeing(boxes: Sequence[Box] = (), **choice: Any) -> DweSight:
    return replace(open_sight(DweChoice(**choice)), objects=Given(boxes), faces=Given(boxes))


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders(text=HashedTokens(), image=Colours())  # type: ignore[arg-type]  # no patches are wanted


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


number = st.one_of(st.floats(-100, 200), st.sampled_from([math.nan, math.inf, -math.inf, 1e300]))


@given(st.lists(st.builds(Box, left=number, top=number, right=number, bottom=number, score=number), max_size=40))
def test_whatever_a_detector_says_the_table_holds_numbers(encoders: Encoders, picture: Path, boxes: list[Box]) -> None:
    table = dwe_mentions([mention(picture), mention(None)], encoders, sight=seeing(boxes, faces="tiles"))
    seen = table.of(np.arange(2))
    for part in ("objects", "faces"):
        assert not seen.parts[part].there[1].any()
        assert seen.parts[part].there.shape[1] <= 16
        assert bool(seen.parts[part].values.isfinite().all())


def test_boxes_outside_none_at_all_and_three_hundred(encoders: Encoders, picture: Path) -> None:
    def n_objects(boxes: Sequence[Box]) -> int:
        seen = dwe_mentions([mention(picture)], encoders, sight=seeing(boxes)).of(np.arange(1))
        return int(seen.parts["objects"].there.sum())

    assert n_objects([Box(left=50, top=0, right=90, bottom=30), Box(left=-20, top=-20, right=-1, bottom=-1)]) == 0
    assert n_objects([]) == 0
    assert n_objects([Box(left=-20, top=-20, right=900, bottom=900)]) == 1
    many = [Box(left=n % 20, top=n % 10, right=20 + n % 20, bottom=10 + n % 20, score=1 / (n + 1)) for n in range(300)]
    assert n_objects(many) == 16


def test_likenesses_are_told_and_become_texts_only_where_they_are_looked_for(encoders: Encoders, picture: Path) -> None:
    from localmel.see.identity import FACES, WHOLE, Portraits

    space: Space = encoders.image_space  # type: ignore[assignment]
    vectors = np.array([[1.0, 0, 0], [0, 0, 1.0]], np.float32)  # of something red, and of something blue
    texts = np.eye(2, encoders.text.space.width, dtype=np.float16)
    face = [Box(left=0, top=0, right=20, bottom=20)]
    for of, choice, boxes in ((WHOLE, {}, ()), (FACES, {"faces": "tiles"}, face)):
        portraits = Portraits(space=space, of=of, vectors=vectors, entities=np.array([1, 0]))
        own = OwnPortraits(portraits=portraits, texts=texts, state="s")
        sight = seeing(boxes, identity=True, **choice)
        seen = dwe_mentions([mention(picture), mention(None)], encoders, sight=sight, own=own).of(np.arange(2))
        assert [[one.entity for one in row] for row in seen.alike] == [[1], []]
        assert seen.alike[0][0].similarity == pytest.approx(1.0, abs=1e-3)
        assert seen.parts["identity"].values[0, 0].tolist() == texts[1].astype(np.float32).tolist()
        assert not seen.parts["identity"].there[1].any()
    off = dwe_mentions([mention(picture)], encoders, sight=seeing(face)).of(np.arange(1))
    assert "identity" not in off.parts
    assert not off.alike or off.alike == ((),)


def test_a_model_is_asked_once_for_each_picture_and_never_again_for_what_it_has_answered(
    encoders: Encoders, picture: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"answer": {"subject": "person", "text": "BULLS", "role": "athlete"}}\n')
    model = EngineSettings(engine="scripted", weights=str(script))
    sight = open_sight(DweChoice(attributes="vlm", asked=("text", "role"), model=model))
    some = [mention(picture), mention(None), mention(picture), mention(tmp_path / "gone.png")]
    kept = dwe_mentions(some, encoders, sight=sight, folder=tmp_path / "encode" / "train").of(np.arange(4))
    assert kept.parts["attributes"].there.sum(dim=1).tolist() == [3, 0, 3, 0]
    answers = tmp_path / "encode" / "attributes" / "answers.jsonl"
    before = answers.read_bytes()
    assert before.count(b"BULLS") == 1
    dwe_mentions(some[:1], encoders, sight=sight, folder=tmp_path / "encode" / "validation")
    assert answers.read_bytes() == before
    script.write_text('{"answer": "no object"}\n')
    other = open_sight(DweChoice(attributes="vlm", asked=("text", "role"), model=model))
    unread = dwe_mentions(some, encoders, sight=other).of(np.arange(4))
    assert not unread.parts["attributes"].there.any()
