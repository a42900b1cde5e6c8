"""The strict protocol: one outcome per mention -> every metric, over all mentions and for each slice.

In: one Outcome per mention, in any order.  Out: an Evaluation with 95% intervals, all from the same resamples.
An answer is one of the K candidates or NIL; a gold outside the K is a miss.  Knows no model, no KB and no picture: the
caller provides the facts that decide the slices of a mention."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.evaluate.metrics import area_under_roc, expected_calibration_error
from localmel.evaluate.resamples import Estimate, Resamples, ratio
from localmel.records import EntityId, MentionId, Ranking

TieRule = Literal["mean", "pessimistic", "optimistic"]
"""Which of the ranks that equal scores share the gold gets: the mean, the last or the first.
The mean may be fractional: between two equal best candidates it is 1.5, which is no hit at 1."""
_SHARE_OF_EQUALS: dict[TieRule, float] = {"mean": 0.5, "pessimistic": 1.0, "optimistic": 0.0}


def rank_in(ranking: Ranking, gold: EntityId | None, *, ties: TieRule = "mean", outside: float = math.inf) -> float:
    """Return the rank of the gold among the candidates of one mention, from 1; ties follow the tie rule.

    `outside` is the rank of a gold that is no candidate, such as its rank in the whole KB; it never counts as better
    than behind the last candidate.  The default, infinity, is a miss with reciprocal rank 0.
    A gold of None (NIL) has rank infinity.  Raises ValueError where `outside` or `ties` is invalid."""
    if not outside >= 1.0:
        raise ValueError(f"rank {outside} outside the candidates of {ranking.mention_id!r} is no rank")
    if ties not in _SHARE_OF_EQUALS:
        raise ValueError(f"tie rule {ties!r} is none of {', '.join(_SHARE_OF_EQUALS)}")
    if gold is None:
        return math.inf
    own = next((one.score for one in ranking.candidates if one.entity_id == gold), None)
    if own is None:
        return max(outside, len(ranking.candidates) + 1.0)
    higher = sum(one.score > own for one in ranking.candidates)
    equal = sum(one.score == own for one in ranking.candidates) - 1
    return 1.0 + higher + _SHARE_OF_EQUALS[ties] * equal


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """Settings that decide what counts as a miss and how intervals are computed.  Saved with every report."""

    k: int = 16
    "How many candidates are ranked; recall is measured at this K."
    ties: TieRule = "mean"
    "The rank of the gold among equal scores."
    hits_at: tuple[int, ...] = (1, 3, 5, 10, 16, 20)
    "The values of k in HITS@k; a rank of at most k is a hit."
    samples: int = 2000
    "Bootstrap resamples."
    seed: int = 0
    "Seed of the bootstrap."

    def __post_init__(self) -> None:
        if self.k < 1 or self.samples < 1 or not self.hits_at or min(self.hits_at) < 1:
            raise ValueError(f"k {self.k}, samples {self.samples} and hits_at {self.hits_at} must be 1 or more")
        if list(self.hits_at) != sorted(set(self.hits_at)):
            raise ValueError(f"hits_at {self.hits_at} is not in ascending order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts that decide the slices of a mention.  None: unknown, or not applicable (the gold of a NIL mention)."""

    has_image: bool | None = None
    mention_has_triples: bool | None = None
    gold_has_triples: bool | None = None
    gold_seen: bool | None = None
    "The gold is also the gold of a training mention."
    ambiguous: bool | None = None
    "More than one entity of the KB has exactly this name."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer for one mention, together with its gold."""

    mention_id: MentionId
    cluster: str
    "The sentence: its mentions are resampled together."
    gold: EntityId | None
    "None: NIL."
    rank: float
    "Rank of the gold, from 1; infinity where it has none."
    among_candidates: bool
    "Whether the gold was one of the K candidates."
    predicted: EntityId | None
    "None: NIL was answered."
    probability: float
    "Probability that `predicted` is right."
    nil_probability: float | None = None
    "Probability that the mention is NIL, whatever the answer; given for all mentions or for none."
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        name = f"outcome of {self.mention_id!r}"
        if not self.rank >= 1.0:
            raise ValueError(f"{name} has rank {self.rank}; ranks start at 1")
        for probability in (self.probability, self.nil_probability):
            if probability is not None and not 0.0 <= probability <= 1.0:
                raise ValueError(f"{name} has probability {probability}")
        if self.gold is None:
            if self.among_candidates or math.isfinite(self.rank):
                raise ValueError(f"{name} is NIL, yet its gold has rank {self.rank}")
            if self.facts.gold_seen is not None or self.facts.gold_has_triples is not None:
                raise ValueError(f"{name} is NIL, yet has facts about its gold")
        elif self.among_candidates and math.isinf(self.rank):
            raise ValueError(f"{name} has its gold among the candidates, yet no rank")
        elif self.predicted == self.gold and not self.among_candidates:
            raise ValueError(f"{name} is right with {self.gold!r}, which is not among its candidates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The metrics over some of the mentions.  An undefined metric is absent, never NaN."""

    name: str
    n: int
    n_in_kb: int
    n_nil: int
    n_sentences: int
    metrics: Mapping[str, Estimate]
    "Keys are those of `metric_names`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One system on one set of mentions."""

    settings: EvaluationSettings
    slices: tuple[Slice, ...]
    "In the order of SLICES; the first contains all mentions."
    mentions: str
    "Fingerprint of mention ids, sentences and gold; equal for two systems that answered the same questions."

    @property
    def overall(self) -> Slice:
        """The slice of all mentions."""
        return self.slices[0]


class HasFacts(Protocol):
    """Anything that can be assigned to slices: an outcome, or a question not yet answered."""

    @property
    def gold(self) -> EntityId | None: ...

    @property
    def facts(self) -> Facts: ...


def _fact(name: str, *, value: bool) -> Callable[[HasFacts], bool]:
    read = attrgetter(f"facts.{name}")
    return lambda outcome: read(outcome) is value


SLICES: dict[str, Callable[[HasFacts], bool]] = {
    "all": lambda outcome: True,
    "gold in the KB": lambda outcome: outcome.gold is not None,
    "NIL": lambda outcome: outcome.gold is None,
    "gold seen in training": _fact("gold_seen", value=True),
    "gold not seen in training": _fact("gold_seen", value=False),
    "with image": _fact("has_image", value=True),
    "without image": _fact("has_image", value=False),
    "mention with triples": _fact("mention_has_triples", value=True),
    "mention without triples": _fact("mention_has_triples", value=False),
    "gold with triples": _fact("gold_has_triples", value=True),
    "gold without triples": _fact("gold_has_triples", value=False),
    "ambiguous surface": _fact("ambiguous", value=True),
    "unambiguous surface": _fact("ambiguous", value=False),
}
"Which mentions belong to each slice.  A mention with an unknown fact is in neither slice of that fact."


def metric_names(settings: EvaluationSettings) -> tuple[str, ...]:
    """Return every metric, in the order of a report.

    hits@k, mrr and recall@K are over mentions whose gold is in the KB; accuracy and ece over all, NIL included;
    nil_precision over NIL answers; nil_recall over NIL mentions; nil_f1 and nil_auroc over all."""
    hits = (f"hits@{k}" for k in settings.hits_at)
    nil = ("nil_precision", "nil_recall", "nil_f1", "nil_auroc")
    return (*hits, "mrr", f"recall@{settings.k}", "accuracy", *nil, "ece")


def counted_rank(outcome: Outcome, settings: EvaluationSettings) -> float:
    """Return the rank that metrics use: at least K + 1 for a gold outside the K candidates.

    Ties at rank K can give such a gold a better mean rank although it could not be chosen."""
    return outcome.rank if outcome.among_candidates else max(outcome.rank, settings.k + 1.0)


def in_order(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Sort by mention id, so that numbers do not depend on the order of a run.  Raises BadInput for a repeated id."""
    ordered = sorted(outcomes, key=attrgetter("mention_id"))
    ids = [outcome.mention_id for outcome in ordered]
    twice = sorted({one for one, other in pairwise(ids) if one == other})
    if twice:
        raise BadInput(f"{len(twice)} mentions have more than one outcome, such as {', '.join(map(repr, twice[:3]))}")
    return ordered


def evaluate(outcomes: Sequence[Outcome], settings: EvaluationSettings | None = None) -> Evaluation:
    """Compute every metric of `metric_names` over every slice of SLICES.  The order of the outcomes does not matter.

    An empty slice has n = 0 and no metrics.  The score of NIL is `nil_probability`; where no outcome has one, it is
    the probability of a NIL answer, and 1 minus the probability of any other.
    Raises BadInput for a repeated mention, or a NIL probability for only some mentions."""
    settings = settings or EvaluationSettings()
    outcomes = in_order(outcomes)
    resamples = Resamples([one.cluster for one in outcomes], samples=settings.samples, seed=settings.seed)
    table = _Table(outcomes, settings)
    slices = []
    for name, belongs in SLICES.items():
        members = np.flatnonzero(np.array([belongs(one) for one in outcomes], bool))
        n_nil = int(table.nil[members].sum())
        slices.append(
            Slice(
                name=name,
                n=len(members),
                n_in_kb=len(members) - n_nil,
                n_nil=n_nil,
                n_sentences=len(np.unique(resamples.cluster[members])),
                metrics=table.metrics(members, resamples),
            )
        )
    return Evaluation(settings=settings, slices=tuple(slices), mentions=_fingerprint(outcomes))


class _Table:
    """The outcomes as arrays, one value per mention."""

    def __init__(self, outcomes: Sequence[Outcome], settings: EvaluationSettings) -> None:
        self.names = metric_names(settings)
        self.nil = np.array([one.gold is None for one in outcomes], bool)
        self.correct = np.array([one.predicted == one.gold for one in outcomes], bool)
        self.probability = np.array([one.probability for one in outcomes], np.float64)
        self.nil_score = np.array(_nil_scores(outcomes), np.float64)
        rank = np.array([counted_rank(one, settings) for one in outcomes], np.float64)
        among = np.array([one.among_candidates for one in outcomes], bool)
        said_nil = np.array([one.predicted is None for one in outcomes], bool)
        both, in_kb = said_nil & self.nil, ~self.nil
        # name -> the terms of numerator and denominator, and the mentions that the metric is over
        self.ratios: dict[str, tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]] = {
            **{f"hits@{k}": (rank <= k, in_kb, in_kb) for k in settings.hits_at},
            "mrr": (1.0 / rank, in_kb, in_kb),
            f"recall@{settings.k}": (among, in_kb, in_kb),
            "accuracy": (self.correct, np.ones_like(in_kb), np.ones_like(in_kb)),
            "nil_precision": (both, said_nil, said_nil),
            "nil_recall": (both, self.nil, self.nil),
            "nil_f1": (2.0 * both, 1.0 * said_nil + self.nil, np.ones_like(in_kb)),
        }
        # a NIL mention has rank infinity and no gold candidate, so it adds nothing to a numerator

    def metrics(self, members: NDArray[np.int64], resamples: Resamples) -> dict[str, Estimate]:
        """Compute the metrics of the mentions at these positions, in the order of `metric_names`."""
        if not len(members):
            return {}
        above = np.stack([1.0 * top[members] for top, _, _ in self.ratios.values()], axis=1)
        below = np.stack([1.0 * bottom[members] for _, bottom, _ in self.ratios.values()], axis=1)
        drawn = resamples.totals(np.concatenate([above, below], axis=1), members)
        value = ratio(above.sum(axis=0), below.sum(axis=0))
        values = ratio(drawn[:, : len(value)], drawn[:, len(value) :])
        found: dict[str, Estimate] = {}
        any_nil = bool(self.nil[members].any())
        for place, (name, (_, _, over)) in enumerate(self.ratios.items()):
            over = over[members]
            if over.any() and (any_nil or not name.startswith("nil_")):
                low, high = resamples.interval(values[:, place], members[over])
                found[name] = Estimate(value=float(value[place]), low=low, high=high, n=int(over.sum()))
        nil, score = self.nil[members], self.nil_score[members]
        if any_nil and not nil.all():
            low, high = resamples.interval(resamples.areas(nil, score, members), members)
            found["nil_auroc"] = Estimate(value=area_under_roc(nil, score), low=low, high=high, n=len(members))
        # no interval: a resample repeats mentions, which makes its bins look worse calibrated than they are
        error = expected_calibration_error(self.probability[members], self.correct[members])
        found["ece"] = Estimate(value=error, low=None, high=None, n=len(members))
        return {name: found[name] for name in self.names if name in found}


def _nil_scores(outcomes: Sequence[Outcome]) -> list[float]:
    given = [one.nil_probability for one in outcomes if one.nil_probability is not None]
    if not given:
        return [one.probability if one.predicted is None else 1.0 - one.probability for one in outcomes]
    if len(given) < len(outcomes):
        raise BadInput(f"{len(given)} of {len(outcomes)} outcomes have a NIL probability; all must, or none")
    return given


def _fingerprint(outcomes: Sequence[Outcome]) -> str:
    digest = hashlib.sha256()
    for one in outcomes:
        digest.update(repr((one.mention_id, one.cluster, one.gold)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
