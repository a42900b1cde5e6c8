"""Who counts as a negative, by hand; the published form; the edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.published import published_loss
from localmel.errors import BadInput
from localmel.matchers.kgmel.losses import contrastive_losses
from localmel.matchers.train.settings import LossSettings

ONE = LossSettings(temperature=1.0)


def units(n: int, seed: int = 0, width: int = 6) -> Tensor:
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def minus_log_share(scores: list[float]) -> float:
    """Of the first among all."""
    return math.log(sum(math.exp(score) for score in scores)) - scores[0]


def test_two_mentions_of_one_gold_are_no_negatives_of_each_other() -> None:
    """Unit vectors of the plane at 0, 90 and 180 degrees; the first two mentions have the same gold."""
    mentions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    entities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    ids, gold = torch.tensor([7, 7, 8]), torch.tensor([0, 1, 2])
    losses = contrastive_losses(mentions, entities, gold, ONE, entity_ids=ids)
    rows = [minus_log_share([1, 0]), minus_log_share([0, 1]), minus_log_share([0, -1, -1])]
    assert losses.mention_to_entity.item() == pytest.approx(sum(rows) / 3)
    rows = [minus_log_share([1, -1]), minus_log_share([1, 0]), minus_log_share([1, -1, 0])]
    assert losses.between_mentions.item() == pytest.approx(sum(rows) / 3)
    rows = [minus_log_share([1, 0]), minus_log_share([1, 0]), minus_log_share([1, 0, 0])]
    assert losses.between_entities.item() == pytest.approx(sum(rows) / 3)
    assert losses.total.item() == pytest.approx(
        (losses.mention_to_entity + 0.1 * losses.between_mentions + 0.1 * losses.between_entities).item()
    )


def test_the_published_form_takes_them_as_negatives() -> None:
    mentions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    entities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    settings = LossSettings(temperature=1.0, published_negatives=True)
    losses = contrastive_losses(mentions, entities, torch.arange(3), settings, entity_ids=torch.tensor([7, 7, 8]))
    rows = [minus_log_share([1, 1, 0]), minus_log_share([0, 0, 1]), minus_log_share([0, -1, -1])]
    assert losses.mention_to_entity.item() == pytest.approx(sum(rows) / 3)
    assert losses.total.item() == pytest.approx(published_loss(mentions, entities, temperature=1.0).item())


def test_without_repeated_golds_both_forms_are_one() -> None:
    mentions, entities, gold = units(5), units(5, 1), torch.arange(5)
    ours = contrastive_losses(mentions, entities, gold, LossSettings())
    published = contrastive_losses(mentions, entities, gold, LossSettings(published_negatives=True))
    assert ours.total.item() == pytest.approx(published.total.item(), abs=1e-6)


def test_one_row_may_be_the_gold_of_several_mentions() -> None:
    """Golds stand once, so nothing is left out."""
    mentions, entities, gold = units(3), units(2, 1), torch.tensor([0, 0, 1])
    found = contrastive_losses(mentions, entities, gold, ONE).mention_to_entity
    assert found.item() == pytest.approx(F.cross_entropy(mentions @ entities.T, gold).item())


def test_further_rows_are_negatives_for_all_but_their_own_mentions() -> None:
    mentions, entities = units(2), units(3, 1)
    few = contrastive_losses(mentions, entities[:2], torch.arange(2), ONE)
    more = contrastive_losses(mentions, entities, torch.arange(2), ONE)
    assert more.mention_to_entity > few.mention_to_entity
    own = contrastive_losses(mentions[:1], entities, torch.tensor([0]), ONE, entity_ids=torch.tensor([0, 1, 0]))
    without = contrastive_losses(mentions[:1], entities[:2], torch.tensor([0]), ONE)
    assert own.mention_to_entity.item() == pytest.approx(without.mention_to_entity.item())


@pytest.mark.parametrize("published", [True, False])
def test_a_batch_of_one_has_nothing_to_tell_apart(published: bool) -> None:
    settings = LossSettings(published_negatives=published)
    mentions = units(1).requires_grad_()
    total = contrastive_losses(mentions, units(1, 1), torch.tensor([0]), settings).total
    total.backward()
    assert total.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(mentions.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("published", [True, False])
def test_a_low_temperature_gives_no_nan(published: bool) -> None:
    settings = LossSettings(temperature=1e-4, published_negatives=published)
    mentions = units(4).requires_grad_()
    total = contrastive_losses(mentions, units(4, 1), torch.arange(4), settings).total
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(mentions.grad).all()  # type: ignore[arg-type]


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(BadInput, match=r"0\.0"):
        LossSettings(temperature=0.0)
