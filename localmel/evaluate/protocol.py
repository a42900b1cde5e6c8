"""The strict protocol: what was answered for each mention -> every metric, over all mentions and slice by slice.

In: one Outcome per mention, in any order.  Out: an Evaluation with 95% intervals, all from the same resamples.
An answer is one of the K candidates or NIL; a gold outside the K is a miss.  Knows no model, no KB and no picture:
whoever has them says which slices a mention belongs to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput
from localmel.evaluate.metrics import area_under_roc, expected_calibration_error
from localmel.evaluate.ranks import TieRule, rank_in
from localmel.evaluate.resamples import Estimate, Resamples, ratio
from localmel.records import EntityId, Link, MentionId


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What a miss is and how sure the numbers are.  Saved with every report."""

    k: int = 16
    "How many candidates ranking is given; recall is counted at this K."
    ties: TieRule = "mean"
    "The rank of the gold among equal scores."
    hits_at: tuple[int, ...] = (1, 3, 5, 10, 16, 20)
    "The k of HITS@k; a rank of at most k is a hit."
    samples: int = 2000
    "Resamples under the intervals."
    seed: int = 0
    "Of the resamples."

    def __post_init__(self) -> None:
        if self.k < 1 or self.samples < 1 or not self.hits_at or min(self.hits_at) < 1:
            raise ValueError(f"k {self.k}, samples {self.samples} and hits_at {self.hits_at} must be 1 or more")
        if list(self.hits_at) != sorted(set(self.hits_at)):
            raise ValueError(f"hits_at {self.hits_at} is not in rising order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What decides the slices of a mention.  None: not known, or (for a NIL mention, of the gold) does not apply."""

    has_image: bool | None = None
    mention_has_triples: bool | None = None
    gold_has_triples: bool | None = None
    gold_seen: bool | None = None
    "The gold is also the gold of a training mention."
    ambiguous: bool | None = None
    "More than one entity of the KB bears exactly this surface."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out for one mention, beside what is right."""

    mention_id: MentionId
    cluster: str
    "The sentence: mentions that share one are drawn together."
    gold: EntityId | None
    "None: NIL."
    rank: float
    "Of the gold, from 1; infinity where it has none."
    among_candidates: bool
    "The gold was one of the K candidates given to ranking."
    predicted: EntityId | None
    "None: NIL was answered."
    probability: float
    "That `predicted` is right."
    nil_probability: float | None = None
    "That the mention is NIL, whatever was answered; for all mentions or for none."
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
                raise ValueError(f"{name} is NIL, yet something is said of its gold")
        elif self.among_candidates and math.isinf(self.rank):
            raise ValueError(f"{name} has its gold among the candidates, yet without a rank")
        elif self.predicted == self.gold and not self.among_candidates:
            raise ValueError(f"{name} is right with {self.gold!r}, which was none of its candidates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The metrics over some of the mentions.  A metric that is not defined there is absent, never NaN."""

    name: str
    n: int
    n_in_kb: int
    n_nil: int
    n_sentences: int
    metrics: Mapping[str, Estimate]
    "By the names of `metric_names`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One system on one set of mentions."""

    settings: EvaluationSettings
    slices: tuple[Slice, ...]
    "In the order of SLICES; the first holds all mentions."
    mentions: str
    "Fingerprint of mention ids, sentences and gold: equal where two systems answered the same questions."

    @property
    def overall(self) -> Slice:
        """All mentions."""
        return self.slices[0]


class HasFacts(Protocol):
    """What decides a slice: an outcome, or a question that nobody has answered yet."""

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
"Which mentions each slice holds.  A mention of which a fact is not known is in neither slice of that fact."


def metric_names(settings: EvaluationSettings) -> tuple[str, ...]:
    """Every metric, in the order of a report.

    hits@k, mrr and recall@K are over mentions whose gold is in the KB; accuracy and ece over all, NIL included;
    nil_precision over NIL answers; nil_recall over NIL mentions; nil_f1 and nil_auroc over all."""
    hits = (f"hits@{k}" for k in settings.hits_at)
    nil = ("nil_precision", "nil_recall", "nil_f1", "nil_auroc")
    return (*hits, "mrr", f"recall@{settings.k}", "accuracy", *nil, "ece")


def outcome_of(
    link: Link,
    settings: EvaluationSettings,
    *,
    gold: EntityId | None,
    cluster: str,
    facts: Facts | None = None,
    nil_probability: float | None = None,
    outside: float = math.inf,
) -> Outcome:
    """An answer beside what is right.  `outside`: the rank of a gold that is no candidate (see `rank_in`).

    Raises BadInput where the link ranks more candidates than the settings' K."""
    n_ranked = len(link.ranking.candidates)
    if n_ranked > settings.k:
        raise BadInput(f"mention {link.mention_id!r} ranks {n_ranked} candidates; the protocol says {settings.k}")
    return Outcome(
        mention_id=link.mention_id,
        cluster=cluster,
        gold=gold,
        rank=rank_in(link.ranking, gold, ties=settings.ties, outside=outside),
        among_candidates=gold is not None and any(gold == one.entity_id for one in link.ranking.candidates),
        predicted=link.entity_id,
        probability=link.probability,
        nil_probability=nil_probability,
        facts=facts or Facts(),
    )


def counted_rank(outcome: Outcome, settings: EvaluationSettings) -> float:
    """The rank that metrics see: that of a gold outside the K candidates is never better than K + 1.

    Ties at the edge of the K can give such a gold a better mean rank; it was not there to be chosen all the same."""
    return outcome.rank if outcome.among_candidates else max(outcome.rank, settings.k + 1.0)


def in_order(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """By mention id, so that numbers do not depend on the order of a run.  Raises BadInput for an id twice."""
    ordered = sorted(outcomes, key=attrgetter("mention_id"))
    ids = [outcome.mention_id for outcome in ordered]
    twice = sorted({one for one, other in pairwise(ids) if one == other})
    if twice:
        raise BadInput(f"{len(twice)} mentions have more than one outcome, such as {', '.join(map(repr, twice[:3]))}")
    return ordered


def evaluate(outcomes: Sequence[Outcome], settings: EvaluationSettings | None = None) -> Evaluation:
    """Every metric of `metric_names` over every slice of SLICES.  The order of the outcomes does not matter.

    A slice without mentions has n = 0 and no metrics.  The score of NIL is `nil_probability`; where no outcome has
    one, what the answer's probability leaves for NIL (all of it for a NIL answer).
    Raises BadInput for a mention twice, or a NIL probability for only some."""
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
    """The outcomes as columns, one value per mention."""

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
        # name -> what is summed above and below the line, and which mentions the metric is over
        self.ratios: dict[str, tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]] = {
            **{f"hits@{k}": (rank <= k, in_kb, in_kb) for k in settings.hits_at},
            "mrr": (1.0 / rank, in_kb, in_kb),
            f"recall@{settings.k}": (among, in_kb, in_kb),
            "accuracy": (self.correct, np.ones_like(in_kb), np.ones_like(in_kb)),
            "nil_precision": (both, said_nil, said_nil),
            "nil_recall": (both, self.nil, self.nil),
            "nil_f1": (2.0 * both, 1.0 * said_nil + self.nil, np.ones_like(in_kb)),
        }
        # a NIL mention has a rank of infinity and is no candidate, so it adds nothing above the line

    def metrics(self, members: NDArray[np.int64], resamples: Resamples) -> dict[str, Estimate]:
        """Over the mentions at these positions, in the order of `metric_names`."""
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
        # No interval: a resample repeats mentions, which makes its bins look worse calibrated than they are.
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
