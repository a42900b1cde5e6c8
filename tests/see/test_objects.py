"""Objects cut out of pictures: whatever a detector says, what is cut lies in the picture, and nothing is done twice."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from localmel.engines.pictures import open_picture
from localmel.errors import BadInput
from localmel.see.objects import Box, ObjectSettings, kept_boxes, objects_of_files
from localmel.store.journal import Journal, JournalBusy
from tests.encode.colours import Colours

ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
NEAR = st.floats(-60, 160)
BOXES = st.builds(
    Box,
    left=NEAR | ANYTHING, top=NEAR | ANYTHING, right=NEAR | ANYTHING, bottom=NEAR | ANYTHING,
    score=st.sampled_from([0.1, 0.5, 0.9]) | ANYTHING, label=st.sampled_from(["", "person"]),
)  # fmt: skip


class Stated:
    """A detector that says the same of every picture, and how often it was asked."""

    def __init__(self, *boxes: Box, name: str = "stated") -> None:
        self.said, self.name, self.asked = boxes, name, 0

    @property
    def facts(self) -> Mapping[str, str]:
        return {"detector": self.name}

    def boxes(self, image: Image.Image) -> Sequence[Box]:
        self.asked += 1
        return self.said


def box(left: float, top: float, right: float, bottom: float, score: float = 1.0) -> Box:
    return Box(left=left, top=top, right=right, bottom=bottom, score=score)


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """Red on the left, blue on the right, 100 x 60."""
    picture = Image.new("RGB", (100, 60), "red")
    picture.paste(Image.new("RGB", (50, 60), "blue"), (50, 0))
    picture.save(tmp_path / "halves.png")
    return tmp_path / "halves.png"


LEFT, RIGHT = box(0, 0, 50, 60, 0.7), box(50, 0, 100, 60, 0.9)


# --- boxes ------------------------------------------------------------------------------------------------------


@given(st.lists(BOXES, max_size=30), st.integers(1, 120), st.integers(1, 120), st.integers(1, 5), st.randoms())
def test_kept_boxes_lie_in_the_picture_and_every_other_one_is_counted(
    boxes: list[Box], width: int, height: int, most: int, random: object
) -> None:
    settings = ObjectSettings(most=most, smallest=4)
    kept = kept_boxes(boxes, width, height, settings)
    for one in kept.boxes:
        assert (max(one.left, 0), min(one.right, width)) == (one.left, one.right)
        assert (max(one.top, 0), min(one.bottom, height)) == (one.top, one.bottom)
        assert min(one.right - one.left, one.bottom - one.top) >= 4
    assert len(kept.boxes) <= most
    assert len(kept.boxes) + sum(kept.dropped.values()) == len(boxes)
    assert [one.score for one in kept.boxes] == sorted((one.score for one in kept.boxes), reverse=True)
    shuffled = list(boxes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert kept_boxes(shuffled, width, height, settings) == kept


def test_each_reason_is_counted() -> None:
    nan, inf = math.nan, math.inf
    found = [
        box(10, 10, 60, 60, 0.9), box(-20, -20, 40, 200, 0.8),  # the second one is clipped
        box(nan, 0, 9, 9), box(0, 0, inf, 50), box(30, 30, 20, 40), box(5, 5, 5, 50), box(0, 0, 50, 50, nan),
        box(120, 0, 150, 50), box(-30, 0, -5, 50), box(40, 40, 42, 42), box(10.2, 10.4, 59.7, 59.5, 0.5),
        box(0, 0, 90, 90, 0.1),
    ]  # fmt: skip
    kept = kept_boxes(found, 100, 100, ObjectSettings(most=2))
    assert [(one.left, one.top, one.right, one.bottom) for one in kept.boxes] == [(10, 10, 60, 60), (0, 0, 40, 100)]
    assert kept.dropped == {"no box": 5, "outside the picture": 2, "one too many": 1, "too small": 1, "twice": 1}


def test_of_three_hundred_objects_the_surest_are_kept() -> None:
    found = [box(n % 20 * 20, n // 20 * 20, n % 20 * 20 + 20, n // 20 * 20 + 20, n / 300) for n in range(300)]
    kept = kept_boxes(found, 400, 400, ObjectSettings())
    assert [one.score for one in kept.boxes] == [n / 300 for n in range(299, 283, -1)]
    assert kept.dropped == {"one too many": 284}


@pytest.mark.parametrize("wrong", [{"most": 0}, {"smallest": 0}])
def test_settings_that_keep_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        ObjectSettings(**wrong)


# --- vectors ----------------------------------------------------------------------------------------------------


def test_an_object_has_the_vector_of_what_is_cut_out(halves: Path) -> None:
    found = objects_of_files([halves, None, halves], Stated(LEFT, RIGHT), Colours())
    red, blue = (np.array(one) / np.linalg.norm(one) for one in ([256, 1, 1], [1, 1, 256]))
    np.testing.assert_allclose(found.of(0), [blue, red], atol=1e-3)  # the surer one first
    np.testing.assert_array_equal(found.of(2), found.of(0))
    assert found.of(1).shape == (0, 3)
    assert [one.score for one in found.boxes[0]] == [0.9, 0.7]
    assert found.boxes[1] == ()
    assert found.note() == ""


def test_a_picture_without_objects_and_one_that_cannot_be_read_have_none(halves: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    os.mkfifo(tmp_path / "pipe.png")
    paths = [halves, tmp_path / "broken.jpg", tmp_path / "nowhere.png", tmp_path, tmp_path / "pipe.png"]
    found = objects_of_files(paths, Stated(), Colours())
    assert found.lists.starts.tolist() == [0, 0, 0, 0, 0, 0]
    assert found.lists.values.shape == (0, 3)
    assert len(found.unreadable) == 4
    assert "4 unreadable" in found.note()


def test_objects_of_two_pixels_are_dropped_and_told(halves: Path) -> None:
    found = objects_of_files([halves], Stated(box(3, 3, 5, 5), LEFT), Colours())
    assert found.lists.starts.tolist() == [0, 1]
    assert found.dropped == {"too small": 1}
    assert found.note() == "objects that were not cut out: 1 too small"


def test_what_was_looked_at_is_not_looked_at_again(halves: Path, tmp_path: Path) -> None:
    first, detector, encoder = Colours(), Stated(LEFT, RIGHT, box(3, 3, 5, 5)), Colours()
    made = objects_of_files([halves], detector, first, folder=tmp_path / "kept")
    again = objects_of_files([halves], detector, encoder, folder=tmp_path / "kept")
    np.testing.assert_array_equal(made.lists.values, again.lists.values)
    assert (made.boxes, made.dropped) == (again.boxes, again.dropped)
    assert (detector.asked, len(first.asked), encoder.asked) == (1, 2, [])
    moved = tmp_path / "moved.png"
    moved.write_bytes(halves.read_bytes())
    objects_of_files([moved], detector, encoder, folder=tmp_path / "kept")  # the bytes count, not the name
    assert (detector.asked, encoder.asked) == (1, [])


def test_another_picture_detector_setting_or_encoder_is_looked_at_anew(halves: Path, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "kept", Colours()
    objects_of_files([halves], Stated(LEFT, RIGHT), encoder, folder=folder)
    other = Stated(LEFT, name="other")
    assert len(objects_of_files([halves], other, encoder, folder=folder).of(0)) == 1
    assert other.asked == 1
    assert len(encoder.asked) == 2  # the box is known, whoever found it
    one = objects_of_files([halves], Stated(LEFT, RIGHT), encoder, ObjectSettings(most=1), folder=folder)
    assert len(one.of(0)) == 1
    Image.new("RGB", (100, 60), "green").save(halves)
    objects_of_files([halves], Stated(LEFT, RIGHT), encoder, folder=folder)
    assert len(encoder.asked) == 4
    other_weights = Colours(weights="b" * 64)
    objects_of_files([halves], Stated(LEFT, RIGHT), other_weights, folder=folder)
    assert len(other_weights.asked) == 2


def test_a_run_that_died_goes_on_behind_what_it_wrote(halves: Path, tmp_path: Path) -> None:
    """Boxes are on the disk as they are found: a picture that stops the encoder is not detected again."""

    class Dies(Colours):
        def encode_images(self, pictures: object, on_pictures: object = None) -> object:  # type: ignore[override]
            for _ in pictures:  # type: ignore[attr-defined]
                raise RuntimeError("out of memory")
            return None

    detector = Stated(LEFT, RIGHT)
    with pytest.raises(RuntimeError):
        objects_of_files([halves], detector, Dies(), folder=tmp_path / "kept")
    path = tmp_path / "kept" / "boxes.jsonl"
    path.write_bytes(path.read_bytes() + b'{"check":"0000')  # and its last line was torn
    found = objects_of_files([halves], detector, Colours(), folder=tmp_path / "kept")
    assert (len(found.of(0)), detector.asked) == (2, 1)


def test_two_writers_of_one_folder_are_told(halves: Path, tmp_path: Path) -> None:
    with Journal(tmp_path / "kept" / "boxes.jsonl"), pytest.raises(JournalBusy):
        objects_of_files([halves], Stated(LEFT), Colours(), folder=tmp_path / "kept")


def test_many_pictures_are_taken_in_their_order(tmp_path: Path) -> None:
    paths = []
    for number in range(70):  # more than are encoded at once
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 20), (number * 3, 0, 255 - number * 3)).save(paths[-1])
    done: list[int] = []
    whole = box(0, 0, 20, 20)
    found = objects_of_files(paths, Stated(whole), Colours(), on_pictures=done.append)
    for row in (0, 33, 63, 64, 69):
        expected = Colours.vector(open_picture(paths[row]))
        np.testing.assert_allclose(found.of(row)[0], expected, atol=1e-3)
    assert sum(done) == 70
