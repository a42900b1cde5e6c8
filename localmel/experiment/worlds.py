"""Worlds in which it is known where the answer lies: does a matcher find it there, and only with the part that looks?

In: a world and a way to match.  Out: the share of mentions whose entity is found first among `N_ENTITIES`, after a
short training on drawings of that world.  No drawing comes twice, so nothing is learnt by heart.  In each world all
that does not hold the answer is noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from localmel.retrieve.fusion import FusionNetwork, FusionSettings, PackedTriples
from localmel.retrieve.losses import LossSettings, contrastive_losses
from localmel.retrieve.matchers.features import Features
from localmel.retrieve.matchers.fusion_matcher import FusionMatcher
from localmel.retrieve.matchers.m3el import M3el, M3elSettings
from localmel.retrieve.matchers.m3el_losses import M3elLossSettings, m3el_losses
from localmel.retrieve.matchers.protocol import Side

WIDTH = 24
"Length of every vector, and how many concepts there are."
N_ENTITIES = 24
CHANCE = 1 / N_ENTITIES
_NOISE = 0.1
"Length of what is added to a vector that two rows share."
_DRAWINGS = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """One side of a drawing, as every matcher may look at it; row i of mentions belongs to row i of entities."""

    features: Features
    triples: PackedTriples


Drawing = tuple[Rows, Rows]
"Mentions and their entities."


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where the answer lies, and how one is drawn."""

    name: str
    draw: Callable[[Generator, int, int], Drawing]
    "(chance, n rows, n distractors) -> n mentions and their entities."
    distractors: int = 8
    "Beside what holds the answer, at its hardest; training also sees fewer."


# --- drawings ---------------------------------------------------------------------------------------------------


def _units(chance: Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, WIDTH, generator=chance), dim=-1)


def _blurred(chance: Generator, vectors: Tensor) -> Tensor:
    return F.normalize(vectors + _NOISE * _units(chance, *vectors.shape[:-1]), dim=-1)


def _hidden(chance: Generator, keys: Tensor, n_distractors: int) -> Tensor:
    """(n, 1 + n_distractors, width): each row's key, blurred, in a random place among random vectors."""
    tokens = _units(chance, len(keys), 1 + n_distractors)
    places = torch.randint(1 + n_distractors, (len(keys),), generator=chance)
    tokens[torch.arange(len(keys)), places] = _blurred(chance, keys)
    return tokens


def _rows(
    chance: Generator,
    n: int,
    *,
    text: Tensor | None = None,
    words: Tensor | None = None,
    image: Tensor | None = None,
    patches: Tensor | None = None,
    triples: tuple[Tensor, Tensor] | None = None,
) -> Rows:
    """n rows.  Wholes that are not given are noise; tokens (n, length, width) that are not given are not there."""
    values, there = {}, {}
    for name, tokens in (("words", words), ("patches", patches)):
        values[name] = torch.zeros(n, 1, WIDTH) if tokens is None else tokens
        there[name] = torch.full(values[name].shape[:2], tokens is not None)
    features = Features(
        text=_units(chance, n) if text is None else text,
        words=values["words"],
        is_word=there["words"],
        image=_units(chance, n) if image is None else image,
        patches=values["patches"],
        is_patch=there["patches"],
    )
    return Rows(features=features, triples=_packed(n, *(triples or (torch.zeros(n, 0, WIDTH),) * 2)))


def _packed(n: int, tails: Tensor, relations: Tensor) -> PackedTriples:
    """tails, relations: (n, t, width)."""
    each = torch.arange(tails.shape[0] * tails.shape[1])
    starts = torch.arange(n + 1) * tails.shape[1]
    return PackedTriples(
        tails=tails.reshape(-1, WIDTH), relations=relations.reshape(-1, WIDTH),
        pair_tail=each, pair_relation=each, triples=each, starts=starts,
    )  # fmt: skip


def _whole_text(chance: Generator, n: int, n_distractors: int) -> Drawing:
    keys, others = _units(chance, n), [_units(chance, n, 1 + n_distractors) for _ in range(2)]
    mention = _rows(chance, n, text=_blurred(chance, keys), words=others[0])
    return mention, _rows(chance, n, text=keys, words=others[1])


def _whole_picture(chance: Generator, n: int, n_distractors: int) -> Drawing:
    keys, others = _units(chance, n), [_units(chance, n, 1 + n_distractors) for _ in range(2)]
    mention = _rows(chance, n, image=_blurred(chance, keys), patches=others[0])
    return mention, _rows(chance, n, image=keys, patches=others[1])


def _one_word(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """The mention's text as a whole says nothing; one of its words is the entity's name."""
    keys = _units(chance, n)
    mention = _rows(chance, n, words=_hidden(chance, keys, n_distractors))
    return mention, _rows(chance, n, text=keys, words=_blurred(chance, keys)[:, None])


def _one_patch(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """The mention's picture as a whole says nothing; one of its patches shows the entity, as its portrait does."""
    keys = _units(chance, n)
    mention = _rows(chance, n, patches=_hidden(chance, keys, n_distractors))
    return mention, _rows(chance, n, image=keys, patches=_blurred(chance, keys)[:, None])


def _word_and_patch(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """Every row names some concepts and shows some; exactly one is both named and shown, and it is the entity's.

    A mention shares as many words with its entity as with any other one, and as many patches: neither alone says
    anything, nor do both without their agreement (see `_alike`)."""
    size = 1 + n_distractors
    own = F.one_hot(torch.randperm(WIDTH, generator=chance)[:n], WIDTH).bool()
    named = own | _picked(chance, ~own, torch.full((n,), size - 1))
    shown = own | _picked(chance, ~named, torch.full((n,), size - 1))
    also_named = _alike(chance, named, own, ~own, size)
    also_shown = _alike(chance, shown, own, ~also_named, size)
    rows = [
        _rows(chance, n, words=_blurred(chance, _concepts(words)), patches=_blurred(chance, _concepts(patches)))
        for words, patches in ((also_named, also_shown), (named, shown))
    ]
    return rows[0], rows[1]


def _one_triple(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """One triple of each row has the relation that tells entities apart, and the mention's has its entity's tail."""
    keys = _units(chance, n)
    relations = torch.eye(WIDTH)
    rows = []
    for tails in (_blurred(chance, keys), keys):
        others = torch.randint(1, WIDTH, (n, n_distractors), generator=chance)
        numbers = torch.cat([torch.zeros(n, 1, dtype=torch.int64), others], dim=1)
        triples = torch.cat([tails[:, None], _units(chance, n, n_distractors)], dim=1), relations[numbers]
        rows.append(_rows(chance, n, triples=triples))
    return rows[0], rows[1]


def _picked(chance: Generator, allowed: Tensor, counts: Tensor) -> Tensor:
    """allowed: (n, concepts) bool, counts: (n,).  As many of each row at random, or all that are allowed."""
    drawn = torch.rand(allowed.shape, generator=chance).masked_fill(~allowed, -1.0)
    places = drawn.argsort(dim=1, descending=True).argsort(dim=1)
    return (places < counts[:, None]) & allowed


def _alike(chance: Generator, other: Tensor, own: Tensor, allowed: Tensor, size: int) -> Tensor:
    """(n, concepts) sets of `size` with the own concept, which share as much with `other` as unrelated sets do.

    How much two unrelated sets share is drawn by drawing one."""
    unrelated = _picked(chance, torch.ones_like(own), torch.full((len(own),), size))
    in_common = (unrelated & other).sum(dim=1).clamp(min=1)
    chosen = own | _picked(chance, allowed & ~own & other, in_common - 1)
    chosen = chosen | _picked(chance, allowed & ~own & ~other, size - chosen.sum(dim=1))
    return chosen | _picked(chance, allowed & ~chosen, size - chosen.sum(dim=1))


def _concepts(sets: Tensor) -> Tensor:
    """(n, concepts) bool, equally many in each row -> (n, size, width) their vectors."""
    return torch.eye(WIDTH)[sets.nonzero()[:, 1].view(len(sets), -1)]


WORLDS = (
    World(name="whole text", draw=_whole_text),
    World(name="one word", draw=_one_word),
    World(name="whole picture", draw=_whole_picture),
    World(name="one patch", draw=_one_patch),
    World(name="word and patch", draw=_word_and_patch, distractors=5),
    World(name="one triple", draw=_one_triple),
)


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
        triples = rows.triples if self._triples else _packed(n, *(torch.zeros(n, 0, WIDTH),) * 2)
        return {"text": rows.features.text, "image": image, "has_image": is_patch.any(dim=1), "triples": triples}


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
