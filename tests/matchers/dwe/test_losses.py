"""DWE+'s losses: each by its definition, and what the printed and the published forms do instead."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.errors import BadInput
from localmel.matchers.dwe.features import DweFeatures
from localmel.matchers.dwe.losses import DweLossSettings, dwe_losses, mean_shifted, told_apart
from localmel.matchers.dwe.network import Dwe, DweSettings, DweViews
from localmel.matchers.protocol import Side, Tokens

MENDED = DweLossSettings()
PAPER = DweLossSettings(form="paper")
PUBLISHED = DweLossSettings(form="published")
WIDTH = 6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(
    m: int, n: int, *, lacks: tuple[str, ...] = (), seed: int = 0
) -> tuple[tuple[Side, DweViews], tuple[Side, DweViews]]:
    """Sides and views of m mentions and n entities."""
    parts = {}
    for number, name in enumerate(("name", "text", "image", "objects", "faces")):
        there = torch.zeros(m, dtype=torch.bool) if name in lacks else torch.ones(m, dtype=torch.bool)
        parts[name] = drawn(m, WIDTH, seed=seed + number + 2).requires_grad_(), there
    raw = [drawn(rows, WIDTH, seed=seed + rows).requires_grad_() for rows in (m, n)]
    sides = [Side(vectors=F.normalize(one, dim=1)) for one in raw]
    return (sides[0], DweViews(raw=raw[0], parts=parts)), (sides[1], DweViews(raw=raw[1], parts={}))


def everyone(b: int) -> Tensor:
    return torch.eye(b, dtype=torch.bool)


# --- equation 10 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [MENDED, PAPER], ids=["mended", "paper"])
def test_the_contrast_is_taken_of_shifted_cosines_pair_by_pair(settings: DweLossSettings) -> None:
    one, other = drawn(4, WIDTH, seed=1), drawn(4, WIDTH, seed=2)
    rows = [F.normalize(side - side.mean(dim=0), dim=1) for side in (one, other)]
    both = [*rows[0], *rows[1]]
    total = 0.0
    for i, row in enumerate(both):
        right = (i + 4) % 8
        below = [j for j in range(8) if j != i and (settings.form == "mended" or j != right)]
        weights = [math.exp(float(row @ both[j]) / 0.25) for j in below]
        total += math.log(sum(weights)) - float(row @ both[right]) / 0.25
    assert float(mean_shifted(one, other, everyone(4), settings)) == pytest.approx(total / 8, abs=1e-4)


def test_without_the_right_one_below_the_contrast_has_no_floor() -> None:
    """Four pairs that agree and stand apart: as printed, closer pairs are rewarded without end."""
    one = torch.eye(4)
    assert float(mean_shifted(one, one, everyone(4), replace(PAPER, temperature=0.05))) < -10
    assert float(mean_shifted(one, one, everyone(4), replace(MENDED, temperature=0.05))) >= 0


def test_rows_of_one_gold_are_no_negatives_but_as_printed_they_are() -> None:
    one, other = drawn(5, WIDTH, seed=1), drawn(5, WIDTH, seed=2)
    alike = everyone(5)
    alike[0, 1] = alike[1, 0] = True
    assert mean_shifted(one, other, alike, MENDED) < mean_shifted(one, other, everyone(5), MENDED)
    torch.testing.assert_close(mean_shifted(one, other, alike, PAPER), mean_shifted(one, other, everyone(5), PAPER))


def test_what_all_rows_share_says_nothing() -> None:
    """Texts and pictures lie in different corners of a space; the shift takes the corner away."""
    one, other = drawn(5, WIDTH, seed=1), drawn(5, WIDTH, seed=2)
    moved = mean_shifted(one + 7.0, other - 3.0, everyone(5), MENDED)
    torch.testing.assert_close(moved, mean_shifted(one, other, everyone(5), MENDED), atol=1e-4, rtol=1e-4)


# --- equation 13 ------------------------------------------------------------------------------------------------


def test_the_right_entity_is_to_score_higher_than_wrong_ones_by_the_margin() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.6], [0.2, 0.3, 0.2]])
    gold, ids = torch.tensor([0, 1]), torch.arange(3)
    expected = (max(0, 0.1 - 0.9 + 0.5) + max(0, 0.6 - 0.9 + 0.5) + 2 * (0.2 - 0.3 + 0.5)) / 4
    assert float(told_apart(scores, gold, ids, MENDED)) == pytest.approx(expected)
    hardest = (0.6 - 0.9 + 0.5 + 0.2 - 0.3 + 0.5) / 2
    assert float(told_apart(scores, gold, ids, replace(MENDED, hardest=1))) == pytest.approx(hardest)


def test_a_step_downhill_raises_the_right_one_and_the_printed_sign_would_lower_it() -> None:
    for sign, rises in ((1.0, True), (-1.0, False)):
        scores = torch.tensor([[0.1, 0.2]], requires_grad=True)
        right_first = scores if sign > 0 else scores.flip(1)  # the printed signs: right and wrong change places
        told_apart(right_first, torch.tensor([0]), torch.arange(2), MENDED).backward()
        assert scores.grad is not None
        assert bool(scores.grad[0, 0] < 0) is rises


def test_the_same_entity_twice_is_no_negative_and_further_rows_are() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.5]])
    gold = torch.tensor([0])
    assert float(told_apart(scores, gold, torch.tensor([7, 7, 7]), MENDED)) == 0
    assert float(told_apart(scores, gold, torch.tensor([7, 7, 8]), MENDED)) == pytest.approx(0.5)


# --- the sum ----------------------------------------------------------------------------------------------------


def test_the_sum_is_weighted_as_equation_14_says() -> None:
    mentions, entities = batch(4, 6)
    gold = torch.tensor([0, 1, 2, 3])
    found = dwe_losses(mentions, entities, gold, MENDED)
    torch.testing.assert_close(found.total, found.fine + found.coarse + 10 * found.triplet)
    alike, parts = everyone(4), mentions[1].parts
    fine = [mean_shifted(parts["name"][0], parts[shown][0], alike, MENDED) for shown in ("objects", "faces")]
    torch.testing.assert_close(found.fine, torch.stack(fine).mean())
    torch.testing.assert_close(found.coarse, mean_shifted(parts["text"][0], parts["image"][0], alike, MENDED))


@pytest.mark.parametrize("settings", [MENDED, PAPER, PUBLISHED], ids=lambda settings: settings.form)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 2), (3, 7)])
def test_small_batches_and_missing_parts_give_numbers_and_gradients(settings: DweLossSettings, m: int, n: int) -> None:
    for lacks in ((), ("objects", "faces"), ("image",), ("name", "text", "image", "objects", "faces")):
        mentions, entities = batch(m, n, lacks=lacks)
        found = dwe_losses(mentions, entities, torch.arange(m), settings)
        found.total.backward()
        given = [mentions[1].raw, entities[1].raw, *(values for values, _ in mentions[1].parts.values())]
        assert torch.isfinite(found.total)
        assert all(one.grad is None or bool(torch.isfinite(one.grad).all()) for one in given)


def test_rows_without_a_picture_are_left_out_of_what_compares_pictures() -> None:
    mentions, entities = batch(4, 4)
    text, image = mentions[1].parts["text"], mentions[1].parts["image"]
    image[1][3] = False
    found = dwe_losses(mentions, entities, torch.arange(4), MENDED)
    expected = mean_shifted(text[0][:3], image[0][:3], everyone(3), MENDED)
    torch.testing.assert_close(found.coarse, expected)


def test_the_published_form_is_an_n_pair_loss_of_raw_products_and_clips_loss_of_name_and_objects() -> None:
    mentions, entities = batch(3, 5)
    gold, scale = torch.arange(3), torch.tensor(2.0)
    found = dwe_losses(mentions, entities, gold, PUBLISHED, scale=scale)
    products = mentions[1].raw @ entities[1].raw.T
    values = products.tolist()
    pairs = [math.log(1 + sum(math.exp(values[i][j] - values[i][i]) for j in (3, 4))) for i in range(3)]
    # the two further rows are wrong for every mention
    lengths = (mentions[1].raw.square().sum(dim=1) + entities[1].raw[:3].square().sum(dim=1)).mean()
    assert found.triplet.item() == pytest.approx(sum(pairs) / 3 + 0.02 * lengths.item(), rel=1e-5)
    name, objects = (F.normalize(mentions[1].parts[part][0], dim=1) for part in ("name", "objects"))
    logits = math.exp(2.0) * name @ objects.T
    clip = (F.cross_entropy(logits, gold) + F.cross_entropy(logits.T, gold)) / 2
    torch.testing.assert_close(found.fine, clip)
    torch.testing.assert_close(found.total, found.fine + found.triplet)  # the coarse term goes nowhere


def test_the_networks_scale_is_learnt_in_the_published_form_only() -> None:
    torch.manual_seed(0)
    network = Dwe(DweSettings(text_width=WIDTH, image_width=WIDTH, width=WIDTH, heads=2))
    there = torch.ones(4, 1, dtype=torch.bool)
    given = DweFeatures(
        n=4, parts={name: Tokens(values=torch.randn(4, 1, WIDTH), there=there) for name in ("name", "objects")}
    )
    texts = DweFeatures(n=4, parts={"text": given.parts["name"]})
    for settings, learnt in ((MENDED, False), (PUBLISHED, True)):
        network.zero_grad()
        views = network.mention_views(given), network.entity_views(texts)
        dwe_losses(*views, torch.arange(4), settings, scale=network.scale).total.backward()
        assert (network.scale.grad is not None and bool(network.scale.grad)) is learnt


@pytest.mark.parametrize(
    "wrong", [{"form": "other"}, {"temperature": 0.0}, {"temperature": math.nan}, {"hardest": -1}, {"triplet": -1.0}]
)
def test_settings_out_of_their_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        DweLossSettings(**wrong)  # type: ignore[arg-type]
