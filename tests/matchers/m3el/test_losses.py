"""The joint loss by hand, who is a negative, and the published form that the mended one is not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.errors import BadInput
from localmel.matchers.m3el.losses import M3elLossSettings, intra_modal_contrast, m3el_losses

MENDED = M3elLossSettings(temperature=0.5)
PUBLISHED = M3elLossSettings(temperature=0.5, published=True)
ALL3 = torch.ones(3, dtype=torch.bool)


def vectors(n: int, seed: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def contrast_by_hand(mentions: Tensor, entities: Tensor, *, itself: str) -> float:
    """Three pairs, one entity each.  itself: what stands beside a vector for its likeness to itself."""
    left, right = F.normalize(mentions.double(), dim=1), F.normalize(entities.double(), dim=1)
    total = 0.0
    for own, other in ((left, right), (right, left)):
        for row in range(3):
            across = [float(own[row] @ other[column]) / 0.5 for column in range(3)]
            within = [0.8 * float(own[row] @ own[column]) / 0.5 for column in range(3) if column != row]
            beside = [*across, *within, *([0.0] if itself == "a score of 0" else [])]
            total += math.log(sum(map(math.exp, beside))) - across[row]
    return total / 6


@pytest.mark.parametrize(("settings", "itself"), [(MENDED, "nothing"), (PUBLISHED, "a score of 0")])
def test_the_contrast_is_its_definition(settings: M3elLossSettings, itself: str) -> None:
    """The published form multiplies a vector's likeness to itself by 0 and leaves it in the denominator as exp(0)."""
    mentions, entities = vectors(3, 1), vectors(3, 2)
    found = intra_modal_contrast((mentions, ALL3), (entities, ALL3), torch.arange(3), torch.arange(3), settings)
    assert found.item() == pytest.approx(contrast_by_hand(mentions, entities, itself=itself), abs=1e-9)


def test_a_perfect_batch_costs_nothing_but_in_the_published_form() -> None:
    """Orthogonal pairs at a low temperature: the published form's own 0 stays a rival."""
    same, settings = torch.eye(4)[:3] * 5, {"temperature": 0.2, "between_sides": 0.2}
    arguments = (same, ALL3), (same, ALL3), torch.arange(3), torch.arange(3)
    mended = intra_modal_contrast(*arguments, M3elLossSettings(**settings))
    published = intra_modal_contrast(*arguments, M3elLossSettings(**settings, published=True))
    assert mended.item() == pytest.approx(math.log(1 + 4 / math.e))
    assert published.item() == pytest.approx(math.log(1 + 5 / math.e))


@pytest.mark.parametrize(("settings", "holds"), [(MENDED, True), (PUBLISHED, False)], ids=["mended", "published"])
def test_a_second_row_of_a_mentions_gold_is_not_pushed_away(settings: M3elLossSettings, holds: bool) -> None:
    """Mentions 0 and 1 have the same gold, which stands in the batch twice."""
    scores = vectors(3, 5)[:, :3].clone().requires_grad_()
    wholes = {"text": (vectors(3, 1), ALL3)}, {"text": (vectors(3, 2), ALL3)}
    m3el_losses(
        {"text": scores}, *wholes, torch.arange(3), settings, entity_ids=torch.tensor([7, 7, 8])
    ).total.backward()
    gradient = scores.grad
    assert gradient is not None
    assert (gradient[0, 1].item() == 0 and gradient[1, 0].item() == 0) is holds
    assert gradient[0, 0].item() < 0 < gradient[0, 2].item()  # the gold is drawn near, another entity is pushed away


@pytest.mark.parametrize(("settings", "holds"), [(MENDED, True), (PUBLISHED, False)], ids=["mended", "published"])
def test_mentions_of_one_entity_have_nothing_to_be_told_apart_from(settings: M3elLossSettings, holds: bool) -> None:
    scores, mentions, entities = vectors(3, 5)[:, :3], vectors(3, 1), vectors(3, 2)
    ids = torch.tensor([7, 7, 7])
    wholes = {"text": (mentions, ALL3)}, {"text": (entities, ALL3)}
    found = m3el_losses({"text": scores}, *wholes, torch.arange(3), settings, entity_ids=ids)
    for name in ("score", "contrast", "total"):
        assert (getattr(found, name).item() == pytest.approx(0.0, abs=1e-6)) is holds, name


def test_of_two_mentions_of_one_entity_and_one_of_another_each_is_told_from_the_other_entity_only() -> None:
    mentions, entities, ids = vectors(3, 1), vectors(3, 2), torch.tensor([7, 7, 8])
    found = intra_modal_contrast((mentions, ALL3), (entities, ALL3), torch.arange(3), ids, MENDED)
    left, right = F.normalize(mentions.double(), dim=1), F.normalize(entities.double(), dim=1)
    others, total = {0: [2], 1: [2], 2: [0, 1]}, 0.0
    for own, other in ((left, right), (right, left)):
        for row, negatives in others.items():
            across = torch.stack([own[row] @ other[column] / 0.5 for column in (row, *negatives)])
            within = torch.stack([0.8 * own[row] @ own[column] / 0.5 for column in negatives])
            total += float(torch.cat([across, within]).logsumexp(0) - across[0])
    assert found.item() == pytest.approx(total / 6)


def test_one_row_may_be_the_gold_of_several_mentions_and_more_rows_are_more_negatives() -> None:
    scores, gold = vectors(3, 5)[:, :3], torch.tensor([0, 0, 1])
    wholes = {"text": (vectors(3, 1), ALL3)}, {"text": (vectors(3, 2), ALL3)}
    found = m3el_losses({"text": scores}, *wholes, gold, MENDED)
    assert found.score.item() == pytest.approx(F.cross_entropy(scores, gold).item())
    assert found.total.item() == pytest.approx(2 * found.score.item() + found.contrast.item())


def test_pairs_that_lack_a_picture_are_left_out_of_what_compares_pictures() -> None:
    """Mention 1 has none, nor has entity 2: pair 0 is left, and nobody's missing picture is its negative."""
    mentions, entities = vectors(3, 1), vectors(3, 2)
    seen = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    arguments = torch.arange(3), torch.arange(3), MENDED
    found = intra_modal_contrast((mentions, seen[0]), (entities, seen[1]), *arguments)
    mentions[1], entities[2] = 9.0, -9.0
    assert intra_modal_contrast((mentions, seen[0]), (entities, seen[1]), *arguments).item() == found.item()
    left, right = F.normalize(mentions.double(), dim=1), F.normalize(entities.double(), dim=1)
    across, entity_within = left[0] @ right.T / 0.5, 0.8 * right[0] @ right.T / 0.5
    back, mention_within = right[0] @ left.T / 0.5, 0.8 * left[0] @ left.T / 0.5
    first = torch.stack([across[0], across[1], mention_within[2]]).logsumexp(0) - across[0]
    second = torch.stack([back[0], back[2], entity_within[1]]).logsumexp(0) - back[0]
    assert found.item() == pytest.approx(float(first + second) / 2)
    scores = {"image": vectors(3, 5)[:, :3]}
    parts = m3el_losses(scores, {"image": (mentions, seen[0])}, {"image": (entities, seen[1])}, torch.arange(3), MENDED)
    assert parts.parts["image"].item() == pytest.approx(F.cross_entropy(scores["image"][:1], torch.tensor([0])).item())


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("n", [1, 4])
def test_losses_and_gradients_are_numbers_where_nobody_has_a_picture(published: bool, n: int) -> None:
    settings = M3elLossSettings(temperature=1e-3, published=published)
    own, none = torch.zeros(n, 4, requires_grad=True), torch.zeros(n, dtype=torch.bool)
    scores = torch.zeros(n, n, requires_grad=True)
    losses = m3el_losses({"image": scores}, {"image": (own, none)}, {"image": (own, none)}, torch.arange(n), settings)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert torch.isfinite(own.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(scores.grad).all()  # type: ignore[arg-type]


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(BadInput, match=r"0\.0"):
        M3elLossSettings(temperature=0.0)
