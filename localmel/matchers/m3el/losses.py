"""The loss of M3EL: cross entropy of the score and of each of its parts over a batch, and a contrastive term over whole
texts and whole pictures within and between the sides.

In: scores by part, whole vectors, gold entities.  Out: loss terms.  Source: M3EL, section 3; published code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class M3elLossSettings:
    """The terms of the loss, and which rows count as negatives."""

    temperature: float = 0.03
    "Divides the cosines of the contrastive term before the softmax."
    between_sides: float = 1.0
    "Weight of cosines between a mention and an entity."
    within_side: float = 0.8
    "Weight of cosines between two mentions, or between two entities."
    published: bool = False
    "As published: other rows with the same gold are negatives, each vector is its own negative with score 0, and "
    "missing pictures are contrasted like any other.  A batch then has one entity for each mention."

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise BadInput(f"the temperature of a loss is {self.temperature}; it must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class M3elLosses:
    """The terms and their sum, each a tensor without axes."""

    score: Tensor
    parts: Mapping[str, Tensor]
    contrast: Tensor
    total: Tensor


Wholes = Mapping[str, tuple[Tensor, Tensor]]
"By modality: vectors (b, width), and which rows have one (b,); see `M3el.whole_vectors`."


def m3el_losses(
    parts: Mapping[str, Tensor],
    mentions: Wholes,
    entities: Wholes,
    gold: Tensor,
    settings: M3elLossSettings,
    *,
    entity_ids: Tensor | None = None,
) -> M3elLosses:
    """Return the loss terms of a batch.  parts: each (m, n); gold: (m,) row of each mention's entity among the n.

    Additional entity rows are additional negatives.  `entity_ids` (n,) marks rows of the same entity, which are not
    negatives of each other; without it all rows are different entities.  The score is the mean of the parts."""
    n = next(iter(parts.values())).shape[1]
    ids = torch.arange(n, device=gold.device) if entity_ids is None else entity_ids
    same = ids[gold][:, None] == ids[None, :]
    twins = torch.zeros_like(same) if settings.published else same.scatter(1, gold[:, None], False)
    every = torch.ones(len(gold), dtype=torch.bool, device=gold.device)
    score = _tell_apart(torch.stack(list(parts.values())).mean(dim=0), gold, twins, every)
    both = {name: mentions[name][1] & entities[name][1][gold] for name in mentions}
    by_part = {}
    for name, scores in parts.items():
        counted = every if settings.published or name not in both else both[name]
        by_part[name] = _tell_apart(scores, gold, twins, counted)
    terms = [intra_modal_contrast(mentions[name], entities[name], gold, ids, settings) for name in mentions]
    contrast = torch.stack(terms).mean()
    total = score + torch.stack(list(by_part.values())).sum() + contrast
    return M3elLosses(score=score, parts=by_part, contrast=contrast, total=total)


def intra_modal_contrast(
    mentions: tuple[Tensor, Tensor],
    entities: tuple[Tensor, Tensor],
    gold: Tensor,
    entity_ids: Tensor,
    settings: M3elLossSettings,
) -> Tensor:
    """Return the mean over both sides of -log softmax at the match, among all rows of the other side and of its own.

    mentions: (m, width) and (m,) marks of rows that have a vector; entities: (n, width) and (n,).
    A pair counts if both have a vector; a row without one is never a negative.  The result is 0 if no pair counts."""
    own, theirs = (F.normalize(vectors.double(), dim=1) for vectors, _ in (mentions, entities))
    has_own, has_theirs = mentions[1], entities[1]
    if settings.published:
        has_own, has_theirs = torch.ones_like(has_own), torch.ones_like(has_theirs)
    of_mentions = entity_ids[gold]
    first = _contrast(own, own, theirs, gold, (of_mentions, of_mentions, entity_ids), (has_own, has_theirs), settings)
    places = torch.arange(len(gold), device=gold.device)
    second = _contrast(
        theirs[gold], theirs, own, places, (of_mentions, entity_ids, of_mentions), (has_theirs, has_own), settings
    )
    counted = has_own & has_theirs[gold]
    both = torch.where(counted, (first + second) / 2, 0.0)
    return both.sum() / counted.sum().clamp(min=1)


def _contrast(
    rows: Tensor,
    side: Tensor,
    other: Tensor,
    positive: Tensor,
    ids: tuple[Tensor, Tensor, Tensor],
    there: tuple[Tensor, Tensor],
    settings: M3elLossSettings,
) -> Tensor:
    """Return the contrastive loss (m,) of m rows of `side` (a, width); positive: their place in `other` (b, width).

    ids: of the rows, of `side` and of `other`; there: marks of `side` and of `other`."""
    across = settings.between_sides * (rows @ other.T) / settings.temperature
    within = settings.within_side * (rows @ side.T) / settings.temperature
    same_within, same_across = ids[0][:, None] == ids[1][None, :], ids[0][:, None] == ids[2][None, :]
    if settings.published:
        within = within * (1 - torch.eye(len(rows), dtype=within.dtype, device=within.device))
    else:
        at_gold = F.one_hot(positive, len(other)).bool()
        across = across.masked_fill((same_across | ~there[1]) & ~at_gold, -torch.inf)
        within = within.masked_fill(same_within | ~there[0], -torch.inf)
    logits = torch.cat([across, within], dim=1)
    return -logits.log_softmax(dim=1).gather(1, positive[:, None])[:, 0]


def _tell_apart(scores: Tensor, gold: Tensor, twins: Tensor, counted: Tensor) -> Tensor:
    """Return the mean cross entropy of the counted rows; 0 if there are none."""
    losses = F.cross_entropy(scores.float().masked_fill(twins, -torch.inf), gold, reduction="none")
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)
