"""Worlds in which it is known where the answer lies: does a matcher find it there, and only with the part that looks?

In: a world (drawings.py) and a way to match.  Out: the share of mentions whose entity is found first among
`N_ENTITIES`, after a short training on drawings of that world.  In each world all that does not hold the answer is
noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from bench.fusion_matcher import FusionMatcher
from bench.world_drawings import WIDTH, WORLDS, Drawing, Rows, World, packed_rows
from localmel.matchers.dwe.features import DweFeatures
from localmel.matchers.dwe.losses import DweLossSettings, dwe_losses
from localmel.matchers.dwe.network import Dwe, DweSettings
from localmel.matchers.kgmel.losses import contrastive_losses
from localmel.matchers.kgmel.network import FusionNetwork, FusionSettings
from localmel.matchers.m3el.losses import M3elLossSettings, m3el_losses
from localmel.matchers.m3el.network import M3el, M3elSettings
from localmel.matchers.protocol import Side, Tokens
from localmel.matchers.train.settings import LossSettings

__all__ = ["CHANCE", "N_ENTITIES", "WAYS", "WIDTH", "WORLDS", "Recovery", "World", "hits_at_1", "recover", "trained"]

N_ENTITIES = 24
CHANCE = 1 / N_ENTITIES
_DRAWINGS = 40


# --- ways to match ----------------------------------------------------------------------------------------------


class Learner(Protocol):
    """A matcher that can be trained on drawings."""

    @property
    def network(self) -> nn.Module: ...

    def sides(self, mentions: Rows, entities: Rows) -> tuple[Side, Side]:
        """Of what this matcher looks at."""
        ...

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """(m, n)."""
        ...

    def loss(self, mentions: Rows, entities: Rows) -> Tensor:
        """Of a batch in which entity i is mention i's."""
        ...


class M3elLearner:
    """M3EL, whole or without some of its parts, mended or as published."""

    def __init__(self, *, without: tuple[str, ...] = (), published: bool = False) -> None:
        settings = M3elSettings(
            text_width=WIDTH, word_width=WIDTH, image_width=WIDTH, patch_width=WIDTH, width=WIDTH,
            both_ways=not published, without=without, published=published,
        )  # fmt: skip
        self.network = M3el(settings)
        self._settings = M3elLossSettings(published=published)

    def sides(self, mentions: Rows, entities: Rows) -> tuple[Side, Side]:
        """Of texts and pictures; M3EL knows no triples."""
        return self.network.mentions(mentions.features), self.network.entities(entities.features)

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """See `Matcher.scores`."""
        return self.network.scores(mentions, entities)

    def loss(self, mentions: Rows, entities: Rows) -> Tensor:
        """The joint loss."""
        parts = self.network.parts(*self.sides(mentions, entities))
        left, right = (self.network.whole_vectors(rows.features) for rows in (mentions, entities))
        return m3el_losses(parts, left, right, torch.arange(len(mentions.features.text)), self._settings).total


class KgmelLearner:
    """KGMEL's fusion network, with or without triples."""

    def __init__(self, *, triples: bool = True) -> None:
        settings = FusionSettings(text_width=WIDTH, image_width=WIDTH, triple_width=WIDTH, width=WIDTH, dropout=0.0)
        self.network = FusionNetwork(settings)
        self._matcher, self._triples = FusionMatcher(self.network), triples

    def sides(self, mentions: Rows, entities: Rows) -> tuple[Side, Side]:
        """Of whole texts, whole pictures and triples; the fusion network knows no words and no patches."""
        return self._matcher.mentions(self._given(mentions)), self._matcher.entities(self._given(entities))

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """See `Matcher.scores`."""
        return self._matcher.scores(mentions, entities)

    def loss(self, mentions: Rows, entities: Rows) -> Tensor:
        """The contrastive loss."""
        left, right = self.sides(mentions, entities)
        return contrastive_losses(left.vectors, right.vectors, torch.arange(len(left)), LossSettings()).total

    def _given(self, rows: Rows) -> dict[str, Any]:
        image, _, is_patch = rows.features.pictures()
        n = len(image)
        triples = rows.triples if self._triples else packed_rows(n, *(torch.zeros(n, 0, WIDTH),) * 2)
        return {"text": rows.features.text, "image": image, "has_image": is_patch.any(dim=1), "triples": triples}


class DweLearner:
    """DWE+, whole or without some of its parts; its own loss or the one that was published."""

    def __init__(self, *, without: tuple[str, ...] = (), form: str = "mended") -> None:
        self.network = Dwe(
            DweSettings(
                text_width=WIDTH, word_width=WIDTH, image_width=WIDTH, width=2 * WIDTH, heads=4, dropout=0.0,
                without=without,
            )
        )  # fmt: skip
        self._settings = DweLossSettings(form=form)

    def sides(self, mentions: Rows, entities: Rows) -> tuple[Side, Side]:
        """Of texts, words, whole pictures and what is drawn for it; DWE+ knows no patches and no triples."""
        return self.network.mentions(_for_dwe(mentions)), self.network.entities(_for_dwe(entities))

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """See `Matcher.scores`."""
        return self.network.scores(mentions, entities)

    def loss(self, mentions: Rows, entities: Rows) -> Tensor:
        """The weighted sum."""
        left, right = self.network.mention_views(_for_dwe(mentions)), self.network.entity_views(_for_dwe(entities))
        gold = torch.arange(len(left[0]))
        return dwe_losses(left, right, gold, self._settings, scale=self.network.scale).total


def _for_dwe(rows: Rows) -> DweFeatures:
    given = rows.features
    image, _, is_patch = given.pictures()
    has_image = is_patch.any(dim=1, keepdim=True)
    parts = {
        "text": Tokens(values=given.text[:, None], there=torch.ones(len(image), 1, dtype=torch.bool)),
        "words": Tokens(values=given.words, there=given.is_word),
        "image": Tokens(values=image[:, None], there=has_image),
    }
    return DweFeatures(n=len(image), parts={**parts, **rows.more})


WAYS: Mapping[str, Callable[[], Learner]] = {
    "M3EL": M3elLearner,
    "M3EL without whole texts": lambda: M3elLearner(without=("text",)),
    "M3EL without words": lambda: M3elLearner(without=("words",)),
    "M3EL without whole pictures": lambda: M3elLearner(without=("image",)),
    "M3EL without patches": lambda: M3elLearner(without=("patches",)),
    "M3EL without cross-modal": lambda: M3elLearner(without=("cross",)),
    "M3EL as published": lambda: M3elLearner(published=True),
    "KGMEL": KgmelLearner,
    "KGMEL without triples": lambda: KgmelLearner(triples=False),
    "DWE+": DweLearner,
    "DWE+ without whole texts": lambda: DweLearner(without=("text",)),
    "DWE+ without words": lambda: DweLearner(without=("words",)),
    "DWE+ without whole pictures": lambda: DweLearner(without=("image",)),
    "DWE+ without objects": lambda: DweLearner(without=("objects",)),
    "DWE+ without faces": lambda: DweLearner(without=("faces",)),
    "DWE+ without attributes": lambda: DweLearner(without=("attributes",)),
    "DWE+ without identity": lambda: DweLearner(without=("identity",)),
    "DWE+ without written texts": lambda: DweLearner(without=("written",)),
    "DWE+ with the published loss": lambda: DweLearner(form="published"),
}
"What can be tried; each is drawn and trained anew for each world."


# --- training and trial -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What came of one way in one world."""

    world: str
    way: str
    hits_at_1: float


def recover(world: World, way: str, *, steps: int = 300, rate: float = 1e-2, seed: int = 0) -> Recovery:
    """Train a new matcher and try it on drawings that it has not seen, all of them with every distractor."""
    learner = trained(world, way, steps=steps, rate=rate, seed=seed)
    return Recovery(world=world.name, way=way, hits_at_1=hits_at_1(learner, world, seed=seed))


def trained(world: World, way: str, *, steps: int = 300, rate: float = 1e-2, seed: int = 0) -> Learner:
    """A new matcher after `steps` drawings.  The caller's random numbers stay the caller's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = WAYS[way]()
    optimiser = torch.optim.AdamW(learner.network.parameters(), lr=rate, weight_decay=0.0)
    learner.network.train()
    for step, (mentions, entities) in enumerate(_drawings(world, Generator().manual_seed(1 + seed), steps)):
        share = min(1.0, (step + 1) / 20) * max(0.02, 0.5 * (1.0 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate * share
        optimiser.zero_grad()
        torch.autograd.backward(learner.loss(mentions, entities))
        optimiser.step()
    return learner


@torch.no_grad()
def hits_at_1(learner: Learner, world: World, *, seed: int = 0) -> float:
    """Share of mentions whose entity comes first, over drawings of N_ENTITIES that training did not see."""
    chance = Generator().manual_seed(1_000_003 + seed)
    learner.network.eval()
    found = []
    for _ in range(_DRAWINGS):
        scores = learner.scores(*learner.sides(*world.draw(chance, N_ENTITIES, world.distractors)))
        found.append(scores.argmax(dim=1) == torch.arange(N_ENTITIES))
    return float(torch.cat(found).double().mean())


def _drawings(world: World, chance: Generator, steps: int) -> Iterator[Drawing]:
    """Easy ones among hard ones: with few distractors there is something to learn from at the start."""
    for _ in range(steps):
        n_distractors = int(torch.randint(world.distractors + 1, (1,), generator=chance))
        yield world.draw(chance, N_ENTITIES, n_distractors)
