"""Compare several systems on the same mentions: each by itself, every pair, every slice, and where they disagree.

In: for each dataset the outcomes of every system, and the mentions of each slice.  Out: everything that a report says
about accuracy, and the mentions with differing answers.  Refuses systems that did not answer the same mentions.  Knows
no model, KB or run."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.evaluate.answer_details import AnswerDetails
from localmel.evaluate.metrics import ReliabilityBin, reliability_of
from localmel.evaluate.protocol import EvaluationSettings, Outcome, counted_rank, evaluate, in_order
from localmel.evaluate.resamples import Estimate, Resamples
from localmel.evaluate.significance import (
    PairedTest,
    enough_resamples,
    holm,
    mcnemar,
    means_of,
    pairs_of,
    smallest_difference,
)
from localmel.records import Candidate, EntityId, MentionId
from localmel.store import progress

Slices = Mapping[str, Collection[MentionId]]
"Name -> its mentions in one dataset.  Membership depends on the question, never on an answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSlice:
    """Every system on some of the mentions, and its difference from the leader on the whole dataset."""

    name: str
    n: int
    n_in_kb: int
    n_sentences: int
    metric: str
    "`hits@1`; `accuracy` where no mention has its gold in the KB."
    values: Mapping[str, Estimate]
    "System -> the metric; empty for an empty slice."
    differences: Mapping[str, Estimate]
    "Every other system -> its value minus the leader's, not corrected for the number of slices."


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedDataset:
    """One dataset; the systems are in the order in which they were named."""

    dataset: str
    systems: tuple[str, ...]
    leader: str
    "The system with the highest HITS@1; among equals the first named."
    n: int
    n_in_kb: int
    n_nil: int
    n_sentences: int
    metrics: Mapping[str, Mapping[str, Estimate]]
    "System -> the metrics of the strict protocol over all mentions."
    pairs: tuple[PairedTest, ...]
    slices: tuple[ComparedSlice, ...]
    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    "System -> bins; only for systems whose scores are probabilities."

    def pair(self, one: str, other: str) -> PairedTest:
        """Return the test of these two systems, in either order."""
        return next(test for test in self.pairs if {test.first, test.second} == {one, other})


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """All datasets of one comparison."""

    settings: EvaluationSettings
    datasets: tuple[ComparedDataset, ...]

    @property
    def tests(self) -> int:
        """The number of pairs that Holm's correction accounts for."""
        return sum(len(one.pairs) for one in self.datasets)


def compare_systems(
    outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]],
    *,
    k: int,
    calibrated: Collection[str] = (),
    slices: Mapping[str, Slices] | None = None,
) -> Compared:
    """Compare every two systems on every dataset.  outcomes: dataset -> system -> one outcome per mention.

    Raises BadInput for fewer than two systems, differing mentions, or a dataset whose golds are all NIL."""
    tests = sum(len(systems) * (len(systems) - 1) // 2 for systems in outcomes.values())
    settings = EvaluationSettings(k=k, samples=enough_resamples(tests))
    found = []
    for dataset, systems in outcomes.items():
        columns = _Columns(dataset, systems, settings)
        metrics, reliability = {}, {}
        for system in systems:
            metrics[system] = dict(evaluate(columns.outcomes[system], settings).overall.metrics)
            if system in calibrated:
                reliability[system] = columns.reliability(system)
            else:
                metrics[system].pop("ece", None)  # a cosine is not a probability
            progress.advance(1)
        leader = max(metrics, key=lambda system: metrics[system]["hits@1"].value)
        found.append(
            ComparedDataset(
                dataset=dataset,
                systems=tuple(systems),
                leader=leader,
                n=len(columns.ids),
                n_in_kb=int(columns.in_kb.sum()),
                n_nil=int((~columns.in_kb).sum()),
                n_sentences=columns.resamples.counts.shape[1],
                metrics=metrics,
                pairs=tuple(columns.test(one, other, tests) for one, other in combinations(systems, 2)),
                slices=tuple(
                    columns.slice(name, ids, leader) for name, ids in ((slices or {}).get(dataset) or {}).items()
                ),
                reliability=reliability,
            )
        )
    return Compared(settings=settings, datasets=_corrected(found))


def _corrected(datasets: Sequence[ComparedDataset]) -> tuple[ComparedDataset, ...]:
    """Apply Holm over all pairs of all datasets: at most 5 in 100 reports call a chance difference significant."""
    every = [test for one in datasets for test in one.pairs]
    exact, bootstrap = holm([test.mcnemar for test in every]), holm([test.bootstrap for test in every])
    corrected = iter(
        replace(test, mcnemar_corrected=one, bootstrap_corrected=other)
        for test, one, other in zip(every, exact, bootstrap, strict=True)
    )
    return tuple(replace(one, pairs=tuple(next(corrected) for _ in one.pairs)) for one in datasets)


class _Columns:
    """The outcomes of one dataset as arrays: a row per mention, by id, and a column per system."""

    def __init__(self, dataset: str, systems: Mapping[str, Sequence[Outcome]], settings: EvaluationSettings) -> None:
        if len(systems) < 2:
            raise BadInput(f"{dataset}: {len(systems)} system; a comparison needs two")
        self.dataset = dataset
        self.outcomes = {name: in_order(outcomes) for name, outcomes in systems.items()}
        (first, reference), *others = self.outcomes.items()
        for name, given in others:
            pairs_of(reference, given, (first, name))  # refuses differing mentions, sentences or golds
        self.ids = [one.mention_id for one in reference]
        self.in_kb: NDArray[np.bool_] = np.array([one.gold is not None for one in reference], bool)
        if not self.in_kb.any():
            raise BadInput(f"{dataset}: none of {len(reference)} mentions has its gold in the KB; nothing to rank")
        self.resamples = Resamples([one.cluster for one in reference], samples=settings.samples, seed=settings.seed)
        self.number = {name: place for place, name in enumerate(systems)}
        columns = list(self.outcomes.values())
        rank = np.array([[counted_rank(one, settings) for one in column] for column in columns], np.float64).T
        self.hit = rank <= 1.0
        self.reciprocal = 1.0 / rank
        self.right = np.array([[one.predicted == one.gold for one in column] for column in columns], bool).T

    def reliability(self, system: str) -> tuple[ReliabilityBin, ...]:
        """Return the calibration curve of one system."""
        probability = np.array([one.probability for one in self.outcomes[system]], np.float64)
        return reliability_of(probability, self.right[:, self.number[system]])

    def test(self, first: str, second: str, tests: int) -> PairedTest:
        """Test two of the systems; the p-values are corrected later, over all pairs."""
        one, other = self.number[first], self.number[second]
        in_kb, every = np.flatnonzero(self.in_kb), np.arange(len(self.ids))
        hits = self.hit[in_kb, one].astype(float) - self.hit[in_kb, other]
        ranks = self.reciprocal[in_kb, one] - self.reciprocal[in_kb, other]
        ranked = means_of(np.stack([hits, ranks], axis=1), in_kb, self.resamples)
        right = self.right[:, [one]].astype(float) - self.right[:, [other]]
        only_first, only_second = int((hits > 0).sum()), int((hits < 0).sum())
        exact, bootstrap = mcnemar(only_first, only_second), float(ranked.p[0])
        return PairedTest(
            dataset=self.dataset,
            first=first,
            second=second,
            hits_at_1=ranked.estimate(0),
            mrr=ranked.estimate(1),
            accuracy=means_of(right, every, self.resamples).estimate(0),
            only_first=only_first,
            only_second=only_second,
            mcnemar=exact,
            bootstrap=bootstrap,
            mcnemar_corrected=exact,
            bootstrap_corrected=bootstrap,
            smallest=_smallest(hits, float(ranked.error[0]), tests),
        )

    def slice(self, name: str, ids: Collection[MentionId], leader: str) -> ComparedSlice:
        """Compute HITS@1 over the mentions of the slice, or accuracy where all of them are NIL."""
        wanted = set(ids)
        members = np.flatnonzero(np.array([mention in wanted for mention in self.ids], bool))
        in_kb = members[self.in_kb[members]]
        metric, over, table = ("hits@1", in_kb, self.hit) if len(in_kb) else ("accuracy", members, self.right)
        values, differences = {}, {}
        if len(over):
            first = self.number[leader]
            behind = [place for place in self.number.values() if place != first]
            columns = table[over].astype(np.float64)
            means = means_of(
                np.concatenate([columns, columns[:, behind] - columns[:, [first]]], axis=1), over, self.resamples
            )
            names = list(self.number)
            values = {names[place]: means.estimate(place) for place in range(len(names))}
            differences = {names[place]: means.estimate(len(names) + nth) for nth, place in enumerate(behind)}
        return ComparedSlice(
            name=name,
            n=len(members),
            n_in_kb=len(in_kb),
            n_sentences=len(np.unique(self.resamples.cluster[members])),
            metric=metric,
            values=values,
            differences=differences,
        )


def _smallest(hits: NDArray[Any], error: float, tests: int) -> float | None:
    """Compute the smallest detectable difference from the observed disagreement and the effect of clustering."""
    if math.isnan(error):
        return None
    n, apart, net = len(hits), float(abs(hits).mean()), abs(float(hits.mean()))
    independent = (apart - net**2) / n
    effect = error**2 / independent if independent > 0.0 else 1.0
    return smallest_difference(n, apart - net, design_effect=effect, tests=tests)


# --- disagreements ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemAnswer:
    """The answer of one system to one mention."""

    outcome: Outcome
    candidates: tuple[Candidate, ...]
    "The K best."
    details: AnswerDetails

    @property
    def is_right(self) -> bool:
        """Return whether the answer is the gold, or NIL if the gold is NIL."""
        return self.outcome.predicted == self.outcome.gold


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A mention that the systems answer differently."""

    dataset: str
    mention_id: MentionId
    gold: EntityId | None
    answers: Mapping[str, SystemAnswer]
    "System -> its answer."

    @property
    def pattern(self) -> tuple[bool, ...]:
        """Which systems are right."""
        return tuple(one.is_right for one in self.answers.values())


def disagreements_of(dataset: str, systems: Mapping[str, Sequence[SystemAnswer]]) -> list[Disagreement]:
    """Find the mentions with differing answers, by mention id.  All systems must have answered the same mentions."""
    tables = {name: {one.outcome.mention_id: one for one in answers} for name, answers in systems.items()}
    first = next(iter(systems.values()))
    found = []
    for outcome in in_order([one.outcome for one in first]):
        answers = {name: table[outcome.mention_id] for name, table in tables.items()}
        if len({one.outcome.predicted for one in answers.values()}) > 1:
            found.append(
                Disagreement(dataset=dataset, mention_id=outcome.mention_id, gold=outcome.gold, answers=answers)
            )
    return found


def sample_of(disagreements: Sequence[Disagreement], most: int, *, seed: int = 0) -> list[Disagreement]:
    """Draw at most `most`, one from each pattern of right and wrong in turn, and keep their order.

    Rare patterns are therefore not lost; the same inputs give the same sample."""
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
