"""DWE+'s network: what the mention hears, by definition; what is missing and what is padding; each path apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given as drawn_from
from hypothesis import settings as how
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from localmel.errors import BadInput
from localmel.kb.packed import Lists
from localmel.matchers.dwe.features import DweFeatures, DweTable, Several, Singles, several
from localmel.matchers.dwe.network import Dwe, DweSettings, MentionAttention
from localmel.matchers.protocol import Side, Tokens

TEXT, WORD, IMAGE = 12, 10, 8
SETTINGS = DweSettings(text_width=TEXT, word_width=WORD, image_width=IMAGE, width=TEXT, heads=3, dropout=0.0)
WIDTHS = {"words": WORD, "image": IMAGE, "objects": IMAGE, "faces": IMAGE}
MENTION = ("name", "text", "words", "image", "objects", "faces", "attributes", "identity")
ENTITY = ("text", "written", "image")


def network(settings: DweSettings = SETTINGS, seed: int = 0) -> Dwe:
    torch.manual_seed(seed)
    made = Dwe(settings).eval()
    for parameter in made.parameters():  # nothing stays at zero or one
        torch.nn.init.normal_(parameter, std=0.4)
    return made


def tokens(n: int, length: int, width: int, seed: int) -> Tokens:
    chance = torch.Generator().manual_seed(seed)
    there = torch.rand(n, length, generator=chance) > 0.3
    return Tokens(values=torch.randn(n, length, width, generator=chance), there=there)


def features(n: int, parts: tuple[str, ...] = MENTION, *, length: int = 4, seed: int = 0) -> DweFeatures:
    made = {name: tokens(n, length, WIDTHS.get(name, TEXT), 100 * seed + number) for number, name in enumerate(parts)}
    return DweFeatures(n=n, parts=made)


def changed(given: DweFeatures, part: str, row: int, *, there: bool = True) -> DweFeatures:
    """Another vector in the first place of one row, or nothing left of the part in that row."""
    values, marks = given.parts[part].values.clone(), given.parts[part].there.clone()
    values[row, 0] = torch.randn(values.shape[2], generator=torch.Generator().manual_seed(9))
    marks[row] = False
    marks[row, 0] = there
    return replace(given, parts={**given.parts, part: Tokens(values=values, there=marks)})


def apart(one: Side, other: Side) -> list[bool]:
    """For each row, whether its vector differs."""
    return [float(change) > 1e-4 for change in (one.vectors - other.vectors).abs().amax(dim=1)]


# --- by definition ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_mention_hears_of_a_part_what_is_like_its_question() -> None:
    """Row by row, head by head, token by token."""
    torch.manual_seed(0)
    layer = MentionAttention(6, 2, ["objects"])
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    mention, given = torch.randn(3, 6), tokens(3, 5, 6, 1)
    given.there[:, 2] = True
    for row in range(3):
        here = given.values[row][given.there[row]]
        question = layer.query(mention[row]) + layer.asks["objects"]
        heard = []
        for head in (slice(0, 3), slice(3, 6)):
            likeness = layer.key(here)[:, head] @ question[head] / math.sqrt(3)
            heard.append(likeness.softmax(dim=0) @ layer.value(here)[:, head])
        expected = layer.out(torch.cat(heard))
        torch.testing.assert_close(layer("objects", mention, given)[row], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_mention_is_its_gated_sum_with_a_learnt_share_of_what_its_picture_says() -> None:
    """Equation 9, with gates, from the parts that enter it."""
    made, given = network(), features(4)
    side, views = made.mention_views(given)
    name, has_name = views.parts["name"]
    text, has_text = views.parts["text"]
    asking = torch.where(has_text[:, None], text, made.no_mention["name"])
    asking = torch.where(has_name[:, None], name, asking)

    def summed(layer: torch.nn.Module, parts: tuple[str, ...]) -> Tensor:
        total = torch.zeros(4, TEXT)
        for part in parts:
            values, there = views.parts[part]
            values = torch.where(there[:, None], values, made.no_mention[part])
            total += torch.sigmoid(layer.gates[part](values) + layer.hears(asking)) * values
        return total

    epsilon = torch.sigmoid(made.share)
    known = summed(made.mention_sum, ("name", "text", "image", "words", "objects"))
    shown = summed(made.shown_sum, ("faces", "identity", "attributes"))
    expected = F.normalize(made.fused((1 - epsilon) * known + epsilon * shown), dim=1)
    torch.testing.assert_close(side.vectors, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_untrained_network_ranks_texts_as_their_cosines_do() -> None:
    torch.manual_seed(0)
    made = Dwe(DweSettings(text_width=48, width=48)).eval()
    entities, noise = F.normalize(torch.randn(40, 48), dim=1), 0.5 * F.normalize(torch.randn(40, 48), dim=1)
    there = torch.ones(40, 1, dtype=torch.bool)
    sides = [
        side(DweFeatures(n=40, parts={"text": Tokens(values=values[:, None], there=there)}))
        for side, values in ((made.mentions, entities + noise), (made.entities, entities))
    ]
    assert torch.equal(made.scores(*sides).argmax(dim=1), torch.arange(40))


# --- each part its own path -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", MENTION)
@torch.no_grad()
def test_each_part_of_a_mention_reaches_its_vector_and_none_elses(part: str) -> None:
    made, given = network(), features(3)
    assert apart(made.mentions(given), made.mentions(changed(given, part, 1))) == [False, True, False]


@pytest.mark.parametrize("part", ENTITY)
@torch.no_grad()
def test_each_part_of_an_entity_reaches_its_vector(part: str) -> None:
    made, given = network(), features(3, ENTITY)
    assert apart(made.entities(given), made.entities(changed(given, part, 1))) == [False, True, False]


@torch.no_grad()
def test_faces_and_identity_take_separate_paths() -> None:
    """As published the identity slot carries the faces and the faces reach nothing."""
    made = network(replace(SETTINGS, image_width=TEXT))
    there = torch.ones(3, 1, dtype=torch.bool)
    one, other = (Tokens(values=torch.randn(3, 1, TEXT), there=there) for _ in range(2))
    as_face, as_identity, both, crossed = (
        made.mentions(DweFeatures(n=3, parts=parts))
        for parts in (
            {"faces": one}, {"identity": one}, {"faces": one, "identity": other}, {"faces": other, "identity": one},
        )
    )  # fmt: skip
    for left, right in ((as_face, as_identity), (both, crossed), (as_face, both), (as_identity, crossed)):
        assert apart(left, right) == [True] * 3


@pytest.mark.parametrize("part", [part for part in MENTION if part != "name"])
@torch.no_grad()
def test_a_part_that_is_switched_off_is_not_looked_at(part: str) -> None:
    made, given = network(replace(SETTINGS, without=(part,))), features(3)
    assert apart(made.mentions(given), made.mentions(changed(given, part, 1))) == [False] * 3
    entities = features(3, ENTITY)
    if part in ENTITY:  # what is switched off is the mention's
        assert apart(made.entities(entities), made.entities(changed(entities, part, 1))) == [False, True, False]


@torch.no_grad()
def test_the_share_of_what_a_picture_says_can_be_learnt_to_be_nothing() -> None:
    made, given = network(), features(3)
    made.share.fill_(-30.0)
    for part in ("faces", "identity", "attributes"):
        assert apart(made.mentions(given), made.mentions(changed(given, part, 1))) == [False] * 3
    assert apart(made.mentions(given), made.mentions(changed(given, "objects", 1))) == [False, True, False]


# --- what is missing, and what is too much ----------------------------------------------------------------------


@how(max_examples=25, deadline=None)
@drawn_from(st.integers(0, 10_000), st.integers(0, 6), st.integers(0, 5))
@torch.no_grad()
def test_a_row_is_the_same_in_any_company_and_with_any_padding(seed: int, more: int, row: int) -> None:
    made = network()
    for side, parts in ((made.mentions, MENTION), (made.entities, ENTITY)):
        many = features(6, parts, seed=seed)
        alone = DweFeatures(n=1, parts={name: part.rows(torch.tensor([row])) for name, part in many.parts.items()})
        padded = {
            name: Tokens(values=F.pad(part.values, (0, 0, 0, more), value=3.0), there=F.pad(part.there, (0, more)))
            for name, part in alone.parts.items()
        }
        together = side(many).vectors[row]
        torch.testing.assert_close(side(alone).vectors[0], together, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(side(replace(alone, parts=padded)).vectors[0], together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_row_of_which_nothing_is_known_has_a_direction_and_a_gradient(fresh: bool) -> None:
    torch.manual_seed(0)
    made = Dwe(SETTINGS) if fresh else network()
    empty = DweFeatures(n=2, parts={"objects": Tokens(values=torch.zeros(2, 0, IMAGE), there=torch.zeros(2, 0).bool())})
    scores = made.scores(made.mentions(empty), made.entities(DweFeatures(n=3, parts={})))
    torch.testing.assert_close(scores, scores[:1, :1].expand(2, 3))
    scores.sum().backward()
    assert all(value.grad is None or bool(torch.isfinite(value.grad).all()) for value in made.parameters())


@torch.no_grad()
def test_three_hundred_objects_and_twenty_pictures_are_taken_and_none_is_no_worse() -> None:
    made = network()
    many = features(2, ("name", "objects"), length=300)
    assert torch.isfinite(made.mentions(many).vectors).all()
    pictures = Tokens(values=torch.randn(1, 20, IMAGE), there=torch.ones(1, 20, dtype=torch.bool))
    shuffled = Tokens(values=pictures.values[:, torch.randperm(20)], there=pictures.there)
    sides = [made.entities(DweFeatures(n=1, parts={"image": tokens})) for tokens in (pictures, shuffled)]
    torch.testing.assert_close(sides[0].vectors, sides[1].vectors, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_text_half_alone_passes_pictures_over() -> None:
    made = network(DweSettings(text_width=TEXT, width=TEXT, heads=3))
    given = features(3, ("name", "text", "words", "objects", "image"))
    plain = DweFeatures(n=3, parts={name: given.parts[name] for name in ("name", "text")})
    assert apart(made.mentions(given), made.mentions(plain)) == [False] * 3
    assert not [name for name, _ in made.named_parameters() if "image" in name or "objects" in name]


# --- what is refused --------------------------------------------------------------------------------------------


def test_features_that_do_not_fit_are_refused_with_what_is_wrong() -> None:
    made, given = network(), features(3)
    poisoned = given.parts["objects"].values.clone()
    poisoned[2, 1] = torch.nan
    for parts, said in (
        ({"objects": replace(given.parts["objects"], values=poisoned)}, "objects of row 2"),
        ({"objects": tokens(3, 2, IMAGE + 1, 0)}, r"objects have the shape \(3, 2, 9\)"),
        ({"text": tokens(2, 1, TEXT, 0)}, r"text have the shape \(2, 1, 12\)"),
        ({"text": Tokens(values=torch.zeros(3, 1, TEXT), there=torch.ones(3, 2).bool())}, r"marks of text .*\(3, 2\)"),
        ({"colour": tokens(3, 1, TEXT, 0)}, "no part 'colour'"),
    ):
        with pytest.raises(BadInput, match=said):
            made.mentions(replace(given, parts=parts))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"text_width": 0}, "text_width"),
        ({"width": 10}, "3 heads"),
        ({"image_width": -1}, "image_width"),
        ({"dropout": 1.0}, "1.0"),
        ({"without": ("name",)}, "no part name"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        replace(SETTINGS, **wrong)  # type: ignore[arg-type]


# --- tables -----------------------------------------------------------------------------------------------------


def test_a_table_gives_rows_as_they_were_put_in() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    table = DweTable(
        n=3,
        parts={
            "text": Singles(values=values.astype(np.float16), there=np.array([True, False, True])),
            "objects": several([np.ones((2, 4)), np.zeros((0, 4)), 2 * np.ones((1, 4))], 4),
        },
    )
    found = table.of(np.array([2, 1, 0]))
    text, objects = found.parts["text"], found.parts["objects"]
    assert text.there[:, 0].tolist() == [True, False, True]
    np.testing.assert_array_equal(text.values[:, 0], [values[2], np.zeros(4), values[0]])
    assert objects.there.sum(dim=1).tolist() == [1, 0, 2]
    assert objects.values[0, 0].tolist() == [2] * 4
    assert len(table) == len(found) == 3
    lists = Lists(starts=np.array([0, 1, 1]), values=np.zeros((1, 4)))
    with pytest.raises(BadInput, match="objects is given for 2 rows, of 3"):
        DweTable(n=3, parts={"objects": Several(lists=lists)})
