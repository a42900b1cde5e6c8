"""Choose the mentions and entities that are contrasted with each other.

In: the golds of mentions, and candidates to draw further negatives from.  Out: for each step the parts of one process.
The order is drawn alike in all processes and cut evenly; what a part draws depends on its number alone.  So two
processes see the parts that one process sees which accumulates two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.matchers.train.settings import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A part of a batch that is contrasted at once: m mentions, n entities."""

    mentions: NDArray[Any]  # (m,) numbers of the mentions, ascending
    entities: NDArray[Any]  # (n,) positions: golds and further negatives
    gold: NDArray[Any]  # (m,) place of each mention's gold among `entities`
    bare: NDArray[Any]  # (n,) bool: shown without triples
    blind: NDArray[Any]  # (m + n,) bool: shown without image


class Batches:
    """Cuts the mentions whose gold is known into parts, in another order for each epoch."""

    def __init__(self, gold: NDArray[Any], settings: TrainingSettings, *, process: int = 0, processes: int = 1) -> None:
        """Set up the mentions.  gold: (mentions,) positions, -1 without one.  Raises BadInput if there are too few."""
        self._gold, self._settings, self._process = gold, settings, process
        self._usable = np.flatnonzero(gold >= 0)
        self._processes = processes
        self._at_once = settings.accumulate * processes
        if not len(self._usable):
            raise BadInput("no training mention has its gold in the KB", hint="localmel data check FOLDER --kb KB")
        if len(self._usable) < self._at_once:
            raise BadInput(
                f"{len(self._usable)} training mentions cannot be shared by {processes} processes that accumulate "
                f"{settings.accumulate} batches each",
                hint="--accumulate 1",
            )
        self.steps = min(-(-len(self._usable) // (settings.batch * self._at_once)), len(self._usable) // self._at_once)
        "Steps of an epoch.  Its parts are equally large but for one mention, none is empty, and none is larger than a "
        "batch (two, where a batch is one mention and the mentions cannot be shared evenly)."

    def of_epoch(self, number: int, candidates: NDArray[Any]) -> Iterator[list[Part]]:
        """Yield for each step the parts of this process.  candidates: (mentions, k) positions, -1 beyond."""
        order = np.random.default_rng([self._settings.seed, number]).permutation(self._usable)
        pieces = np.array_split(order, self.steps * self._at_once)
        for first in range(0, len(pieces), self._at_once):
            own = range(first + self._process, first + self._at_once, self._processes)
            yield [self._part(np.sort(pieces[place]), candidates, number, place) for place in own]

    def _part(self, chosen: NDArray[Any], candidates: NDArray[Any], number: int, place: int) -> Part:
        chance = np.random.default_rng([self._settings.seed, number, 1 + place])
        gold = self._gold[chosen]
        drawn = draw_negatives(candidates[chosen], gold, self._settings.hard_negatives, chance)
        if self._settings.loss.published_negatives:  # an entity for each mention, repeated or not
            entities, own = np.concatenate([gold, drawn]), np.arange(len(gold))
        else:
            entities, places = np.unique(np.concatenate([gold, drawn]), return_inverse=True)
            own = places[: len(gold)]
        return Part(
            mentions=chosen,
            entities=entities,
            gold=own,
            bare=chance.random(len(entities)) < self._settings.without_triples,
            blind=chance.random(len(chosen) + len(entities)) < self._settings.without_image,
        )


def draw_negatives(
    candidates: NDArray[Any], gold: NDArray[Any], most: int, chance: np.random.Generator
) -> NDArray[Any]:
    """Return up to `most` distinct candidates per mention, other than its gold, end to end."""
    usable = (candidates >= 0) & (candidates != gold[:, None])
    order = np.argsort(np.where(usable, chance.random(candidates.shape), 2.0), axis=1)[:, :most]
    picked: NDArray[Any] = np.take_along_axis(candidates, order, axis=1)[np.take_along_axis(usable, order, axis=1)]
    return picked.astype(np.int64)
