"""Several systems on the same mentions: each by itself, each pair, and slice by slice.

In: for each dataset the outcomes of every system, and which mentions belong to which slice.  Out: everything that a
report says about accuracy.  Refuses systems that were not asked the same mentions.  Knows no model, KB or run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.evaluate.paired import pairs_of
from localmel.evaluate.protocol import EvaluationSettings, Outcome, counted_rank, evaluate, in_order
from localmel.evaluate.reliability import ReliabilityBin, reliability_of
from localmel.evaluate.resamples import Estimate, Resamples
from localmel.evaluate.significance import (
    PairedTest,
    enough_resamples,
    holm,
    mcnemar_p,
    means_of,
    smallest_difference,
)
from localmel.records import MentionId
from localmel.store import progress

Slices = Mapping[str, Collection[MentionId]]
"Name -> the mentions of one dataset that belong to it: a property of the question, never of an answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSlice:
    """Some of the mentions: each system on them, and how far each is behind the leader of the whole dataset."""

    name: str
    n: int
    n_in_kb: int
    n_sentences: int
    metric: str
    "`hits@1`; `accuracy` where no mention has its gold in the KB."
    values: Mapping[str, Estimate]
    "System -> the metric; empty where the slice is."
    differences: Mapping[str, Estimate]
    "Every other system -> itself minus the leader.  Not corrected for the number of slices."


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedDataset:
    """One dataset; systems in the order in which they were named."""

    dataset: str
    systems: tuple[str, ...]
    leader: str
    "The highest HITS@1; of equal ones the first named."
    n: int
    n_in_kb: int
    n_nil: int
    n_sentences: int
    metrics: Mapping[str, Mapping[str, Estimate]]
    "System -> the metrics of the strict protocol over all mentions."
    pairs: tuple[PairedTest, ...]
    slices: tuple[ComparedSlice, ...]
    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    "Only of systems whose probability is meant as one."

    def pair(self, one: str, other: str) -> PairedTest:
        """The test of these two, whichever stands first in it."""
        return next(test for test in self.pairs if {test.first, test.second} == {one, other})


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """All datasets of one comparison."""

    settings: EvaluationSettings
    datasets: tuple[ComparedDataset, ...]

    @property
    def tests(self) -> int:
        """The number of pairs that Holm corrects for."""
        return sum(len(one.pairs) for one in self.datasets)


def compare_systems(
    outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]],
    *,
    k: int,
    calibrated: Collection[str] = (),
    slices: Mapping[str, Slices] | None = None,
) -> Compared:
    """Compare every two systems on every dataset.  outcomes: dataset -> system -> one outcome per mention.

    `on_done` hears of each finished system of a dataset.  Raises BadInput for fewer than two systems, other mentions,
    or a dataset whose golds are all NIL."""
    tests = sum(len(systems) * (len(systems) - 1) // 2 for systems in outcomes.values())
    settings = EvaluationSettings(k=k, samples=enough_resamples(tests))
    found = []
    for dataset, systems in outcomes.items():
        columns = _Columns(dataset, systems, settings)
        metrics, reliability = {}, {}
        for system in systems:
            metrics[system] = dict(evaluate(columns.outcomes[system], settings).overall.metrics)
            if system in calibrated:
                reliability[system] = reliability_of(columns.outcomes[system])
            else:
                metrics[system].pop("ece", None)  # a cosine is no probability
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
    """Holm over all pairs of all datasets: 95 of 100 reports call no difference real that is none."""
    every = [test for one in datasets for test in one.pairs]
    mcnemar, bootstrap = holm([test.mcnemar for test in every]), holm([test.bootstrap for test in every])
    corrected = iter(
        replace(test, mcnemar_corrected=one, bootstrap_corrected=other)
        for test, one, other in zip(every, mcnemar, bootstrap, strict=True)
    )
    return tuple(replace(one, pairs=tuple(next(corrected) for _ in one.pairs)) for one in datasets)


class _Columns:
    """The outcomes of one dataset, one row per mention in the order of their ids, one column per system."""

    def __init__(self, dataset: str, systems: Mapping[str, Sequence[Outcome]], settings: EvaluationSettings) -> None:
        if len(systems) < 2:
            raise BadInput(f"{dataset}: {len(systems)} system; a comparison needs two")
        self.dataset = dataset
        self.outcomes = {name: in_order(outcomes) for name, outcomes in systems.items()}
        (first, reference), *others = self.outcomes.items()
        for name, given in others:
            pairs_of(reference, given, (first, name))  # refuses other mentions, sentences or golds
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

    def test(self, first: str, second: str, tests: int) -> PairedTest:
        """Two of the systems; the corrected p-values are not known yet."""
        one, other = self.number[first], self.number[second]
        known, every = np.flatnonzero(self.in_kb), np.arange(len(self.ids))
        hits = self.hit[known, one].astype(float) - self.hit[known, other]
        ranks = self.reciprocal[known, one] - self.reciprocal[known, other]
        ranked = means_of(np.stack([hits, ranks], axis=1), known, self.resamples)
        right = self.right[:, [one]].astype(float) - self.right[:, [other]]
        only_first, only_second = int((hits > 0).sum()), int((hits < 0).sum())
        mcnemar, bootstrap = mcnemar_p(only_first, only_second), float(ranked.p[0])
        return PairedTest(
            dataset=self.dataset,
            first=first,
            second=second,
            hits_at_1=ranked.estimate(0),
            mrr=ranked.estimate(1),
            accuracy=means_of(right, every, self.resamples).estimate(0),
            only_first=only_first,
            only_second=only_second,
            mcnemar=mcnemar,
            bootstrap=bootstrap,
            mcnemar_corrected=mcnemar,
            bootstrap_corrected=bootstrap,
            smallest=_smallest(hits, float(ranked.error[0]), tests),
        )

    def slice(self, name: str, ids: Collection[MentionId], leader: str) -> ComparedSlice:
        """HITS@1 over the mentions of the slice, or accuracy where all of them are NIL."""
        wanted = set(ids)
        members = np.flatnonzero(np.array([mention in wanted for mention in self.ids], bool))
        known = members[self.in_kb[members]]
        metric, over, table = ("hits@1", known, self.hit) if len(known) else ("accuracy", members, self.right)
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
            n_in_kb=len(known),
            n_sentences=len(np.unique(self.resamples.cluster[members])),
            metric=metric,
            values=values,
            differences=differences,
        )


def _smallest(hits: NDArray[Any], error: float, tests: int) -> float | None:
    """From what was seen: how many mentions the two decide differently, and how far sentences hold them together."""
    import math

    if math.isnan(error):
        return None
    n, apart, net = len(hits), float(abs(hits).mean()), abs(float(hits.mean()))
    independent = (apart - net**2) / n
    effect = error**2 / independent if independent > 0.0 else 1.0
    return smallest_difference(n, apart - net, design_effect=effect, tests=tests)
