"""Attributes by CLIP: the likeliest choice, only where it is likely enough, of people only where there are some."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.encode.clip import Clip
from localmel.encode.mention_inputs import vectors_of_files
from localmel.encode.space import Space
from localmel.errors import BadInput, UsageError
from localmel.see.clip_attributes import ClipAttributes, attribute_texts
from localmel.see.picture_attributes import Attribute, AttributeSettings, Shown, attributes, told
from tests.encode.colours import Colours

ROOT = Path(__file__).resolve().parents[2]
PORTRAITS = Path(os.environ.get("LOCALMEL_SHARED", ROOT.parent / "shared")) / "data" / "images" / "presidents"


class Sentences(Colours):
    """Texts in a space of their own axes: each different one has one."""

    def __init__(self) -> None:
        super().__init__()
        self.axes: dict[str, int] = {}
        self.space = self.image_space = Space(name="axes", width=256, weights_sha256="a" * 64)

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), 256), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[self.axes.setdefault(text, len(self.axes))] = 1
        return rows

    def picture(self, *sentences: str) -> NDArray[np.float32]:
        """A picture that shows what these sentences say, and nothing else."""
        rows = self.encode(sentences).sum(axis=0)
        return np.asarray(rows / np.linalg.norm(rows), np.float32)


def sentence(attribute: str, value: str) -> str:
    return attributes()[attribute].choices[value]


# --- which are asked --------------------------------------------------------------------------------------------


def test_by_default_all_are_asked_but_skin_colour_and_ethnicity() -> None:
    asked = [one.name for one in AttributeSettings().attributes]
    assert asked == [
        "subject", "age group", "clothing", "insignia", "role", "number", "text", "setting", "gender", "appearance",
    ]  # fmt: skip
    off = {name: one.off for name, one in attributes().items() if one.off}
    assert set(off) == {"skin colour", "ethnicity"}
    assert all(len(why) > 20 for why in off.values())


def test_what_is_off_is_asked_only_where_it_is_named() -> None:
    asked = [one.name for one in AttributeSettings(asked=("ethnicity", "setting")).attributes]
    assert asked == ["subject", "setting", "ethnicity"]  # the subject, because the other is asked of people
    assert [one.name for one in AttributeSettings(asked=("setting",)).attributes] == ["setting"]


def test_an_unknown_attribute_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no attribute shoe size; known are subject, age group"):
        AttributeSettings(asked=("shoe size",))
    with pytest.raises(UsageError):
        AttributeSettings(least=1.5)


def test_what_is_asked_of_people_is_told_of_people_only() -> None:
    asked = [
        Attribute(name="subject", question="", choices={}),
        Attribute(name="role", question="", choices={}, of_people=True),
    ]
    role = Shown(attribute="role", value="athlete")
    person, place = (Shown(attribute="subject", value=value, probability=0.6) for value in ("person", "place"))
    assert told([person, role], asked, 0.5) == (person, role)
    assert told([place, role], asked, 0.5) == (place,)
    assert told([person, role], asked, 0.7) == ()  # it is not sure that there is one
    assert told([role], asked, 0.5) == ()


# --- by CLIP ----------------------------------------------------------------------------------------------------


def test_the_choice_that_fits_is_the_answer_and_what_does_not_fit_is_not_told() -> None:
    encoder = Sentences()
    asking = ClipAttributes(encoder)
    athlete = encoder.picture(
        sentence("subject", "person"), sentence("role", "athlete"), sentence("insignia", "none"),
    )  # fmt: skip
    flag = encoder.picture(sentence("subject", "sign or logo"), sentence("role", "athlete"))
    found = asking.shown(np.stack([athlete, flag]), encoder.space)
    assert [(one.attribute, one.value) for one in found[0]] == [("subject", "person"), ("role", "athlete")]
    assert [(one.attribute, one.value) for one in found[1]] == [("subject", "sign or logo")]
    assert all(one.probability > 0.99 for one in found[0])
    assert [one.text for one in found[0]] == ["subject: person", "role: athlete"]


def test_probabilities_are_a_softmax_over_the_choices_of_one_attribute() -> None:
    encoder = Sentences()
    asking = ClipAttributes(encoder, AttributeSettings(asked=("setting",), least=0.0))
    stage, street = sentence("setting", "stage"), sentence("setting", "street")
    vector = encoder.encode([stage])[0] * 0.03 + encoder.encode([street])[0] * 0.02
    weights = np.exp(100 * (encoder.encode([*attributes()["setting"].choices.values()]) @ vector))
    (found,) = asking.shown(vector[None], encoder.space)[0]
    assert (found.value, found.probability) == ("stage", pytest.approx(weights.max() / weights.sum()))


def test_no_pictures_have_no_attributes_and_another_space_is_refused() -> None:
    encoder = Sentences()
    asking = ClipAttributes(encoder)
    assert asking.shown(np.zeros((0, 256), np.float32), encoder.space) == []
    with pytest.raises(BadInput, match="pictures of axes cannot be asked"):
        asking.shown(np.zeros((1, 256), np.float32), replace(encoder.space, weights_sha256="b" * 64))
    encoder.image_space = replace(encoder.space, name="pictures")
    with pytest.raises(BadInput, match="another space"):
        ClipAttributes(encoder)


def test_answers_become_texts_and_each_different_one_is_encoded_once() -> None:
    encoder = Sentences()
    role, age = Shown(attribute="role", value="athlete"), Shown(attribute="age group", value="child")
    rows = attribute_texts([(role, age), (), (role,)], encoder)
    assert [len(row) for row in rows] == [2, 0, 1]
    np.testing.assert_array_equal(rows[2][0], rows[0][0])
    assert list(encoder.axes) == ["role: athlete", "age group: child"]


@pytest.mark.skipif(not PORTRAITS.is_dir(), reason=f"no pictures at {PORTRAITS}; set LOCALMEL_SHARED")
@pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="CLIP needs the extra `clip`: pip install open_clip_torch"
)
def test_real_portraits_go_through_a_clip_model(tiny_models: Callable[[str], Path]) -> None:
    """The tiny model's answers mean nothing; their form is the real one's."""
    clip = Clip(tiny_models("tiny-clip"), device="cpu")
    asking = ClipAttributes(clip, AttributeSettings(least=0.0))
    pictures = vectors_of_files(sorted((PORTRAITS / "kb_view").iterdir())[:3], clip)
    for row in asking.shown(pictures.vectors, pictures.space):
        assert all(one.value in attributes()[one.attribute].choices for one in row)
        assert row == () or row[0].attribute == "subject"
        assert attribute_texts([row], clip)[0].shape == (len(row), clip.space.width)
