"""M3EL's network: its parts by their definition, what padding and missing pictures do, and each mend beside the
published form that fails it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.errors import BadInput
from localmel.matchers.m3el.layers import CrossModal, pooled
from localmel.matchers.m3el.network import M3el, M3elSettings
from localmel.matchers.protocol import Features, Tokens

WIDTH = 12
MENDED = M3elSettings(text_width=WIDTH, word_width=WIDTH, image_width=WIDTH, patch_width=WIDTH, width=WIDTH)
PUBLISHED = replace(MENDED, published=True, both_ways=False)


def network(settings: M3elSettings, seed: int = 0) -> M3el:
    torch.manual_seed(seed)
    made = M3el(settings).eval()
    for parameter in made.parameters():  # nothing stays at zero or one
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def features(n: int, seed: int = 0, *, words: int = 4, patches: int = 5) -> Features:
    chance = torch.Generator().manual_seed(seed)
    return Features(
        text=torch.randn(n, WIDTH, generator=chance),
        words=torch.randn(n, words, WIDTH, generator=chance),
        is_word=torch.ones(n, words, dtype=torch.bool),
        image=torch.randn(n, WIDTH, generator=chance),
        patches=torch.randn(n, patches, WIDTH, generator=chance),
        is_patch=torch.ones(n, patches, dtype=torch.bool),
    )


def longer(given: Features, by: int) -> Features:
    """The same rows padded further, with zeros."""
    return replace(
        given,
        words=F.pad(given.words, (0, 0, 0, by)), is_word=F.pad(given.is_word, (0, by)),
        patches=F.pad(given.patches, (0, 0, 0, by)), is_patch=F.pad(given.is_patch, (0, by)),
    )  # fmt: skip


def without_pictures(given: Features, rows: list[int]) -> Features:
    """As both forms are given them: what the encoder makes of an empty picture, and no mark."""
    empty = features(1, 99)
    image, patches, is_patch = (values.clone() for values in given.pictures())
    image[rows], patches[rows], is_patch[rows] = empty.pictures()[0], empty.pictures()[1][0], False
    return replace(given, image=image, patches=patches, is_patch=is_patch)


@torch.no_grad()
def scores(made: M3el, mentions: Features, entities: Features) -> Tensor:
    return made.scores(made.mentions(mentions), made.entities(entities))


@torch.no_grad()
def parts(made: M3el, mentions: Features, entities: Features) -> dict[str, Tensor]:
    return made.parts(made.mentions(mentions), made.entities(entities))


def change(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


# --- by definition ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_modality_is_its_wholes_and_what_tokens_of_the_entity_hear_from_those_of_the_mention() -> None:
    """Pair by pair and token by token."""
    made, mentions, entities = network(MENDED), features(3, 1), features(2, 2, words=6)
    layer = made.words
    wholes = {side: made.text_norm(made.adapter(given.text)) for side, given in (("m", mentions), ("e", entities))}
    for m in range(3):
        for e in range(2):
            told, asking = made.words_norm(mentions.words[m]), made.words_norm(entities.words[e])
            heard = torch.zeros(WIDTH)
            for token in asking:
                likeness = layer.key(told) @ layer.query(token) / math.sqrt(WIDTH)
                heard += likeness.softmax(dim=0) @ layer.value(told) / len(asking)
            local = layer.norm(heard) @ layer.aim(wholes["e"][e])
            expected = (wholes["m"][m] @ wholes["e"][e] + local) / 2
            assert parts(made, mentions, entities)["text"][m, e].item() == pytest.approx(expected.item(), abs=1e-4)


@torch.no_grad()
def test_pooling_is_the_mean_of_its_five_means() -> None:
    tokens = torch.randn(1, 7, WIDTH, generator=torch.Generator().manual_seed(0))
    means = [(tokens[0] * (t * tokens[0]).softmax(dim=0)).sum(dim=0) for t in (2, 2.5, 3.5, 4.5)]
    expected = tokens[0].mean(dim=0) + torch.stack([*means, tokens[0].amax(dim=0)]).mean(dim=0)
    found = pooled(tokens, torch.ones(1, 7, dtype=torch.bool), MENDED.temperatures)
    torch.testing.assert_close(found[0], expected)


def test_the_score_is_the_mean_of_its_parts_and_a_part_switched_off_is_gone() -> None:
    mentions, entities = features(3, 1), features(4, 2)
    for without, left in (
        ((), {"text", "image", "cross.0", "cross.1"}),
        (("cross",), {"text", "image"}),
        (("text", "words"), {"image", "cross.0", "cross.1"}),
        (("words",), {"text", "image", "cross.0", "cross.1"}),
    ):
        made = network(replace(MENDED, without=without))
        found = parts(made, mentions, entities)
        assert set(found) == left
        torch.testing.assert_close(scores(made, mentions, entities), sum(found.values()) / len(left))
    made = network(replace(MENDED, without=("words", "image", "patches", "cross")))
    wholes = [made.text_norm(made.adapter(given.text)) for given in (mentions, entities)]
    torch.testing.assert_close(scores(made, mentions, entities), (wholes[0] @ wholes[1].T).detach())


def test_without_an_estimate_the_inner_product_is_exactly_the_global_and_cross_modal_part() -> None:
    mentions, entities = features(3, 1), features(4, 2)
    made = network(replace(MENDED, estimate=False))
    whole = network(MENDED)
    sides = [made.mentions(mentions), made.entities(entities)]
    local = [layer(sides[0].tokens[name], sides[1].tokens[name], layer.aim(norm(wholes)))
             for name, layer, norm, wholes in (
                 ("words", made.words, made.text_norm, made.adapter(entities.text)),
                 ("patches", made.patches, made.image_norm, made.image_in(entities.image)),
             )]  # fmt: skip
    inner = sides[0].vectors @ sides[1].vectors.T
    torch.testing.assert_close(inner + sum(local) / 8, made.scores(*sides), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.scores(*sides), made.scores(*sides))  # scores do not depend on the estimate


def test_an_estimate_is_exact_where_attention_is_even() -> None:
    """One token on the mention's side: every entity hears the same."""
    made = network(MENDED)
    mentions, entities = features(3, 1, words=1, patches=1), features(4, 2)
    sides = made.mentions(mentions), made.entities(entities)
    torch.testing.assert_close(sides[0].vectors @ sides[1].vectors.T, made.scores(*sides), atol=1e-4, rtol=1e-4)


# --- mends: what the published form fails ---------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "holds"), [(MENDED, True), (PUBLISHED, False)], ids=["mended", "published"])
def test_padding_changes_no_score(settings: M3elSettings, holds: bool) -> None:
    made, mentions, entities = network(settings), features(3, 1), features(4, 2)
    plain = scores(made, mentions, entities)
    for padded in ((longer(mentions, 9), entities), (mentions, longer(entities, 30))):
        assert (change(scores(made, *padded), plain) < 1e-4) is holds


@pytest.mark.parametrize(("settings", "holds"), [(MENDED, True), (PUBLISHED, False)], ids=["mended", "published"])
def test_a_mention_without_a_picture_is_indifferent_to_those_of_entities(settings: M3elSettings, holds: bool) -> None:
    made, entities = network(settings), features(6, 2)
    mentions = without_pictures(features(2, 1), [1])
    found = parts(made, mentions, entities)
    assert (float(found["image"][1].abs().max()) < 1e-6) is holds
    assert (float(found["cross.0"][1].abs().max()) < 1e-6) is holds
    assert float(found["image"][0].abs().max()) > 0.1


def test_where_both_lack_a_picture_the_published_form_takes_them_for_alike() -> None:
    """Two empty pictures are the same picture: a mention without one prefers entities without one."""
    mentions, entities = without_pictures(features(1, 1), [0]), without_pictures(features(6, 2), [3])
    torch.manual_seed(0)
    assert parts(M3el(PUBLISHED).eval(), mentions, entities)["image"][0].argmax() == 3
    assert not parts(network(MENDED), mentions, entities)["image"].any()


def test_an_entity_without_a_picture_gets_what_was_learnt_for_it() -> None:
    made, mentions = network(MENDED), features(3, 1)
    entities = without_pictures(features(4, 2), [0, 2])
    found = parts(made, mentions, entities)
    whole = made.image_norm(made.image_in(mentions.image))
    expected = (whole @ made.no_image).detach() / 2
    torch.testing.assert_close(found["image"][:, 0], expected)
    torch.testing.assert_close(found["image"][:, 2], expected)


@pytest.mark.parametrize("both_ways", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize(("published", "holds"), [(False, True), (True, False)], ids=["mended", "published"])
@torch.no_grad()
def test_what_patches_hear_depends_on_the_patches(both_ways: bool, published: bool, holds: bool) -> None:
    """The text stays; the vector that pools what each patch hears must follow the patches.

    The other half, the text that asks the patches, is held still: patches differ, but their mean asks the same."""
    torch.manual_seed(0)
    layer = CrossModal(WIDTH, WIDTH, WIDTH, both_ways=both_ways, published=published)
    given = features(1, 3)
    image, patches, is_patch = given.pictures()
    words = Tokens(values=given.words, there=given.is_word)
    heard = []
    for shown in (patches, patches.flip(-1), patches * 3):
        layer.ask.forward = recorded(layer, heard)  # type: ignore[method-assign]
        tokens = Tokens(values=shown, there=is_patch)
        layer(text=given.text, words=words, image=image, patches=tokens, temperatures=MENDED.temperatures)
    by_patches = [made for made in heard if made.shape[1] == patches.shape[1]]
    assert len(by_patches) == 3
    follows = [change(by_patches[0], other) > 1e-3 for other in by_patches[1:]]
    assert follows == [holds, holds]
    spread = float(by_patches[0].std(dim=1).max())
    assert (spread > 1e-3) is holds  # as published all patches hear the same


def recorded(layer: CrossModal, heard: list[Tensor]):  # type: ignore[no-untyped-def]
    """`layer.ask.forward`, each result noted down."""
    plain = type(layer.ask).forward

    def forward(*given: Tensor) -> Tensor:
        heard.append(plain(layer.ask, *given))
        return heard[-1]

    return forward


@pytest.mark.parametrize(("published", "holds"), [(False, True), (True, False)], ids=["mended", "published"])
def test_the_branch_that_was_trained_is_the_one_that_is_used(published: bool, holds: bool) -> None:
    made = network(replace(MENDED, published=published, both_ways=True)).train()
    mentions, entities = features(3, 1), features(4, 2)
    made.scores(made.mentions(mentions), made.entities(entities)).sum().backward()
    learning = {name for name, value in made.named_parameters() if value.grad is not None and value.grad.any()}
    made.eval()
    made.zero_grad()
    made.scores(made.mentions(mentions), made.entities(entities)).sum().backward()
    used = {name for name, value in made.named_parameters() if value.grad is not None and value.grad.any()}
    assert (used == learning) is holds
    assert any(name.startswith("cross.") for name in used - learning) is not holds


# --- at the edges -----------------------------------------------------------------------------------------------


def test_a_row_has_the_same_side_in_any_company() -> None:
    made, many = network(MENDED), features(6, 1)
    together = made.entities(longer(without_pictures(many, [2, 3]), 4))
    for row in range(6):
        alone = made.entities(without_pictures(picked(many, [row]), [0] if row in (2, 3) else []))
        torch.testing.assert_close(together.vectors[row], alone.vectors[0], atol=1e-5, rtol=1e-5)


def picked(given: Features, rows: list[int]) -> Features:
    image, patches, is_patch = given.pictures()
    return Features(
        text=given.text[rows], words=given.words[rows], is_word=given.is_word[rows],
        image=image[rows], patches=patches[rows], is_patch=is_patch[rows],
    )  # fmt: skip


@pytest.mark.parametrize("lacks", ["text", "picture", "both"])
def test_a_row_that_lacks_something_gives_scores_and_gradients_that_are_numbers(lacks: str) -> None:
    made = network(MENDED).train()
    some, others = features(3, 1), features(3, 2)
    for side in (some, others):
        if lacks in ("text", "both"):
            side.text[1], side.words[1], side.is_word[1] = 0, 0, False
    if lacks in ("picture", "both"):
        some, others = (without_pictures(side, [1]) for side in (some, others))
    total = made.scores(made.mentions(some), made.entities(others))
    total.sum().backward()
    assert torch.isfinite(total).all()
    assert all(torch.isfinite(value.grad).all() for value in made.parameters() if value.grad is not None)
    if lacks == "both":
        assert not total[1].any()  # of this mention nothing is known, so no entity is better than another


def test_a_text_only_network_looks_at_no_picture() -> None:
    made = network(M3elSettings(text_width=WIDTH, word_width=WIDTH, width=8))
    given = features(3, 1)
    blind = replace(given, image=None, patches=None, is_patch=None)
    torch.testing.assert_close(scores(made, given, given), scores(made, blind, blind))
    assert set(parts(made, blind, blind)) == {"text"}


def test_many_entities_are_scored_in_pieces_to_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    made, mentions, entities = network(MENDED), features(3, 1), features(11, 2)
    whole = scores(made, mentions, entities)
    monkeypatch.setattr("localmel.matchers.m3el.network._WEIGHTS_AT_ONCE", 3 * (4 * 4 + 5 * 5) * 2)
    torch.testing.assert_close(scores(made, mentions, entities), whole)


@pytest.mark.parametrize("name", ["text", "words", "image", "patches"])
def test_features_that_are_no_numbers_are_refused_with_their_row(name: str) -> None:
    given = features(3, 1)
    getattr(given, name)[2].view(-1)[0] = torch.nan
    with pytest.raises(BadInput, match=r"row 2 hold a value that is no number"):
        network(MENDED).mentions(given)


def test_features_of_another_width_are_refused_with_both_widths() -> None:
    given = features(3, 1)
    with pytest.raises(BadInput, match=r"vectors of words .*\(3, 4, 12\).*\(3, 4, 7\)"):
        network(replace(MENDED, word_width=7)).entities(given)
    with pytest.raises(BadInput, match="looks at pictures, and got no vectors"):
        network(MENDED).entities(replace(given, image=None, patches=None, is_patch=None))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width": 0}, "width"),
        ({"patch_width": 0}, "pictures need both widths"),
        ({"without": ("faces",)}, "no part faces"),
        ({"without": ("text", "words", "image", "patches", "cross")}, "nothing is left"),
        ({"temperatures": ()}, "temperatures"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        replace(MENDED, **wrong)  # type: ignore[arg-type]
