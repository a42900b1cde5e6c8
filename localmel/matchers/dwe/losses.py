"""The losses of DWE+: a contrast of each mention's text and picture within a batch, and a triplet loss over entities.

In: sides and views of a batch, gold entities.  Out: loss terms.  Source: DWE+, equations 10-14.  Equation 13 as
printed swaps the signs of the right and the wrong entity; here the right one should score higher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.errors import BadInput
from localmel.matchers.dwe.network import DweViews
from localmel.matchers.protocol import Side

FORMS = ("mended", "paper", "published")


@dataclass(frozen=True, slots=True, kw_only=True)
class DweLossSettings:
    """The terms of the loss and their weights."""

    form: str = "mended"
    "`mended`; `paper`: the positive pair is left out of its denominator, and rows with the same gold are negatives; "
    "`published`: the loss of the published code (`_published`)."
    temperature: float = 0.25
    "Divides the cosines of the contrastive terms before the softmax."
    fine: float = 1.0
    "Weight of a mention's name against its objects and its faces."
    coarse: float = 1.0
    "Weight of a mention's text against its whole picture: the paper's alpha."
    triplet: float = 10.0
    "Weight of the right entity against wrong ones: the paper's beta."
    margin: float = 0.5
    "Margin by which the right entity's cosine should be higher."
    hardest: int = 8
    "Number of wrong entities with the highest cosines that count, out of the batch and additional rows; 0 for all."

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise BadInput(f"the loss has no form {self.form!r}; there are {', '.join(FORMS)}")
        if not self.temperature > 0 or self.hardest < 0:
            raise BadInput(f"temperature {self.temperature} or hardest {self.hardest} is out of its range")
        if min(self.fine, self.coarse, self.triplet) < 0:
            raise BadInput(f"a weight of the loss is below 0: {self.fine}, {self.coarse}, {self.triplet}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DweLosses:
    """The terms, without their weights, and the weighted sum; each a tensor without axes."""

    fine: Tensor
    coarse: Tensor
    triplet: Tensor
    total: Tensor


def dwe_losses(
    mentions: tuple[Side, DweViews],
    entities: tuple[Side, DweViews],
    gold: Tensor,
    settings: DweLossSettings,
    *,
    entity_ids: Tensor | None = None,
    scale: Tensor | None = None,
) -> DweLosses:
    """Return the loss terms of a batch.  gold: (m,) row of each mention's entity among the n.

    Additional rows (hard negatives) are wrong for every mention.  `entity_ids` (n,) marks rows of the same entity;
    without it all rows are different entities.  `scale` is the network's, for the published form.  A contrastive term
    is 0 if fewer than two rows have the parts it compares."""
    (own, views), (theirs, other) = mentions, entities
    ids = torch.arange(len(theirs), device=gold.device) if entity_ids is None else entity_ids
    if settings.form == "published":
        return _published(
            views, other, gold, ids, own.vectors.new_tensor(math.log(1 / 0.07)) if scale is None else scale
        )
    alike = ids[gold][:, None] == ids[gold][None, :]
    parts = views.parts
    fine = [_between(parts, "name", shown, alike, settings) for shown in ("objects", "faces") if shown in parts]
    coarse = [_between(parts, "text", "image", alike, settings)] if {"text", "image"} <= parts.keys() else []
    nothing = views.raw.sum() * 0
    found = [torch.stack(terms).mean() if terms else nothing for terms in (fine, coarse)]
    triplet = told_apart(own.vectors @ theirs.vectors.T, gold, ids, settings)
    total = settings.fine * found[0] + settings.coarse * found[1] + settings.triplet * triplet
    return DweLosses(fine=found[0], coarse=found[1], triplet=triplet, total=total)


def told_apart(scores: Tensor, gold: Tensor, ids: Tensor, settings: DweLossSettings) -> Tensor:
    """Return the mean of max(0, wrong - right + margin) over each mention's hardest negatives.  Equation 13, mended.

    scores: (m, n) cosines."""
    right = scores.gather(1, gold[:, None])
    wrong = scores.masked_fill(ids[gold][:, None] == ids[None, :], -torch.inf)
    if 0 < settings.hardest < wrong.shape[1]:
        wrong = wrong.topk(settings.hardest, dim=1).values
    counted = torch.isfinite(wrong)
    short = F.relu(torch.where(counted, wrong - right + settings.margin, 0.0))
    return short.sum() / counted.sum().clamp(min=1)


def mean_shifted(one: Tensor, other: Tensor, alike: Tensor, settings: DweLossSettings) -> Tensor:
    """Return the mean over 2b vectors of -log softmax at the match, among all others of both sides.  Equation 10.

    one, other: (b, width), matched row by row; each side is centred before cosines are computed.  alike: (b, b) rows
    that are not negatives of each other.  As printed in the paper, the positive is missing from the denominator, so the
    loss has no lower bound."""
    b = len(one)
    sides = [F.normalize(side - side.mean(dim=0), dim=1, eps=1e-6) for side in (one, other)]
    both = torch.cat(sides)
    logits = both @ both.T / settings.temperature
    places = torch.arange(2 * b, device=one.device)
    right = (places + b) % (2 * b)
    barred = torch.eye(2 * b, dtype=torch.bool, device=one.device)
    if settings.form == "paper":
        below = logits.masked_fill(barred, -torch.inf).scatter(1, right[:, None], -torch.inf)
    else:
        twins = alike.repeat(2, 2).scatter(1, right[:, None], False)
        below = logits.masked_fill(barred | twins, -torch.inf)
    return (below.logsumexp(dim=1) - logits.gather(1, right[:, None])[:, 0]).mean()


def _between(
    parts: dict[str, tuple[Tensor, Tensor]], one: str, other: str, alike: Tensor, settings: DweLossSettings
) -> Tensor:
    """Return `mean_shifted` over the rows that have both parts; 0 if there are fewer than two."""
    (left, has_left), (right, has_right) = parts[one], parts[other]
    rows = (has_left & has_right).nonzero()[:, 0]
    if len(rows) < 2:
        return (left.sum() + right.sum()) * 0
    return mean_shifted(left[rows], right[rows], alike[rows][:, rows], settings)


def _published(views: DweViews, other: DweViews, gold: Tensor, ids: Tensor, scale: Tensor) -> DweLosses:
    """Return the published sum: CLIP's loss of name and objects, and an N-pair loss of raw inner products.

    The wrong entities are the additional rows, if any; each is wrong for every mention.  The published code also
    contrasts text and picture but discards the result: `coarse` is reported and not added."""
    parts = views.parts
    nothing = views.raw.sum() * 0
    fine, coarse = (
        _clip(parts[one][0], parts[two][0], scale) if {one, two} <= parts.keys() else nothing
        for one, two in (("name", "objects"), ("text", "image"))
    )
    further = torch.ones(len(other.raw), dtype=torch.bool, device=gold.device)
    further[gold] = False
    products = views.raw @ other.raw.T
    right = products.gather(1, gold[:, None])
    wrong = products.masked_fill(ids[gold][:, None] == ids[None, :], -torch.inf)
    if bool(further.any()):
        wrong = wrong[:, further]
    against = (wrong - right).masked_fill(torch.isneginf(wrong), torch.finfo(wrong.dtype).min)
    pairs = F.softplus(against.logsumexp(dim=1)).mean()
    lengths = (views.raw.square().sum(dim=1) + other.raw[gold].square().sum(dim=1)).mean()
    triplet = pairs + 0.02 * lengths
    return DweLosses(fine=fine, coarse=coarse, triplet=triplet, total=fine + triplet)


def _clip(one: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    """Return CLIP's symmetric loss; rows without a part are contrasted by their stand-in vectors."""
    logits = scale.exp() * F.normalize(one, dim=1) @ F.normalize(other, dim=1).T
    places = torch.arange(len(one), device=one.device)
    return (F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)) / 2
