"""Compute the contrastive losses that pull a mention to its entity and away from the others of the batch.

In: unit vectors of mentions and of entities.  Out: one number.  Source: KGMEL, section 3.2; published code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.matchers.train.settings import LossSettings

_LEAST = 1e-12
"Added to each probability before its logarithm, as in the published code."


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The three terms and their weighted sum, each a scalar tensor."""

    mention_to_entity: Tensor
    between_mentions: Tensor
    between_entities: Tensor
    total: Tensor


def contrastive_losses(
    mentions: Tensor, entities: Tensor, gold: Tensor, settings: LossSettings, *, entity_ids: Tensor | None = None
) -> Losses:
    """Return the loss of one batch and its terms.

    mentions: (m, width), entities: (n, width), unit rows; gold: (m,) row of each mention's entity in `entities`. Rows
    beyond the golds are further negatives. `entity_ids` (n,) has equal values for rows of the same entity, which are
    never each other's negatives except in the published form; without it, all rows are different entities."""
    ids = torch.arange(len(entities), device=entities.device) if entity_ids is None else entity_ids
    between_gold, between_entities = None, None
    to_entities = None
    if not settings.published_negatives:
        own = ids[gold]
        to_entities = (own[:, None] == ids[None, :]).scatter(1, gold[:, None], False)
        between_gold, between_entities = _others_alike(own), _others_alike(ids)
    places = torch.arange(max(len(mentions), len(entities)), device=mentions.device)
    matched = _contrast(mentions, entities, gold, to_entities, settings)
    among_mentions = _contrast(mentions, mentions, places[: len(mentions)], between_gold, settings)
    among_entities = _contrast(entities, entities, places[: len(entities)], between_entities, settings)
    return Losses(
        mention_to_entity=matched,
        between_mentions=among_mentions,
        between_entities=among_entities,
        total=matched + settings.mention_weight * among_mentions + settings.entity_weight * among_entities,
    )


def _contrast(
    rows: Tensor, columns: Tensor, positive: Tensor, left_out: Tensor | None, settings: LossSettings
) -> Tensor:
    """Return the mean of -log softmax(rows . columns / temperature) at the positive column, ignoring `left_out`
    columns."""
    scores = (rows @ columns.T).float() / settings.temperature
    if left_out is not None:
        return F.cross_entropy(scores.masked_fill(left_out, float("-inf")), positive)
    chosen = scores.log_softmax(dim=1).gather(1, positive[:, None])
    return -(chosen.exp() + _LEAST).log().mean()


def _others_alike(ids: Tensor) -> Tensor:
    """Return true where another row has the same id, shape (n, n) bool."""
    return (ids[:, None] == ids[None, :]).fill_diagonal_(False)
