"""The mentions about which systems disagree, and a sample of them to look at.

In: for each system its answer to each mention.  Out: mentions with differing answers, side by side.  A sample draws in
turn from each pattern of right and wrong, so that a rare one is not lost; the same inputs give the same sample."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from localmel.evaluate.answer_details import Carried
from localmel.evaluate.protocol import Outcome, in_order
from localmel.records import Candidate, EntityId, MentionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one system gave for one mention."""

    outcome: Outcome
    candidates: tuple[Candidate, ...]
    "The K best."
    carried: Carried

    @property
    def is_right(self) -> bool:
        """Whether the answer is the gold; NIL where the gold is NIL."""
        return self.outcome.predicted == self.outcome.gold


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One mention that not all systems answer alike."""

    dataset: str
    mention_id: MentionId
    gold: EntityId | None
    given: Mapping[str, Given]
    "System -> its answer."

    @property
    def pattern(self) -> tuple[bool, ...]:
        """Which systems are right."""
        return tuple(one.is_right for one in self.given.values())


def disagreements_of(dataset: str, systems: Mapping[str, Sequence[Given]]) -> list[Disagreement]:
    """By mention id.  The systems must have been asked the same mentions, each once."""
    tables = {name: {one.outcome.mention_id: one for one in given} for name, given in systems.items()}
    first = next(iter(systems.values()))
    found = []
    for outcome in in_order([one.outcome for one in first]):
        given = {name: table[outcome.mention_id] for name, table in tables.items()}
        if len({one.outcome.predicted for one in given.values()}) > 1:
            found.append(Disagreement(dataset=dataset, mention_id=outcome.mention_id, gold=outcome.gold, given=given))
    return found


def sample_of(disagreements: Sequence[Disagreement], most: int, *, seed: int = 0) -> list[Disagreement]:
    """At most so many, one from each pattern in turn until they are used up, in the order in which they came."""
    if len(disagreements) <= most:
        return list(disagreements)
    places: dict[tuple[bool, ...], list[int]] = {}
    for place, one in enumerate(disagreements):
        places.setdefault(one.pattern, []).append(place)
    draw = random.Random(seed)
    queues = [draw.sample(places[pattern], len(places[pattern])) for pattern in sorted(places)]
    chosen: list[int] = []
    while len(chosen) < most:
        for queue in queues:
            if queue and len(chosen) < most:
                chosen.append(queue.pop())
    return [disagreements[place] for place in sorted(chosen)]
