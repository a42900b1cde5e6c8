"""What came of a closed question: a distribution over the candidates and NIL, and the link that follows from it.

In: log probabilities of letters under one or more orders.  Out: a Choice, and a Link whose ranking has the choice in
front and the rest in their old order.  Knows no engine and no prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from localmel.records import EntityId, Evidence, Link, Ranking
from localmel.rerank.closed_question import ClosedQuestion

if TYPE_CHECKING:
    from localmel.rerank.calibration import ChoiceCalibration

BY_MODEL = "language model"
BY_SCORER_SURE = "evidence scorer, sure enough not to ask the model"
BY_SCORER_FAILED = "evidence scorer, because the model gave no answer"
NO_CANDIDATE = "no candidate"
_LEAST = -30.0
"Logarithm that stands for a probability of 0: one order alone can never rule a candidate out."
_SAME = 1e-9
"Averages closer than this are equal; then the candidate that retrieval put first is chosen."


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What the model answered under one order of the candidates."""

    order: tuple[int, ...]
    "For each place the option that stood there."
    logs: tuple[float, ...]
    "For each place, then NIL: natural logarithm of the letter's probability, none below -30; together 1."

    @property
    def place(self) -> int:
        """The place that was chosen; the number of options for NIL."""
        return max(range(len(self.logs)), key=lambda place: self.logs[place])

    @property
    def option(self) -> int | None:
        """The option that was chosen, by the order of retrieval; None for NIL."""
        return self.order[self.place] if self.place < len(self.order) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The answer for one mention and how it came about."""

    mention_id: str
    option: int | None
    "The option chosen, by the order of retrieval; None is NIL."
    probability: float
    "That this answer is right."
    nil: float
    "Probability that no option is right, whatever the answer."
    decided_by: str
    logs: tuple[float, ...] = ()
    "Of each option and of NIL, averaged over the orders, before calibration; empty where the model did not decide."
    votes: tuple[Vote, ...] = ()
    cited: tuple[tuple[int, int], ...] = ()
    "Option and fact that the model named before it chose."
    problems: tuple[str, ...] = ()
    "Why requests about this mention were not answered."
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


def vote_of(order: Sequence[int], letters: Sequence[str], logprobs: Mapping[str, float], text: str) -> Vote | str:
    """What was answered under an order, or what is wrong with the answer.

    Where the engine cannot tell probabilities the letter in `text` has all of it."""
    if not logprobs:
        if text not in letters:
            return f"the answer is {text[:40]!r}, none of {letters[0]} to {letters[-1]}"
        logprobs = {text: 0.0}
    given = [logprobs.get(letter, -math.inf) for letter in letters]
    if any(math.isnan(log) for log in given) or max(given) in (-math.inf, math.inf):
        return f"the answer's probabilities are no numbers ({dict(logprobs)})"
    highest = max(given)
    total = highest + math.log(math.fsum(math.exp(log - highest) for log in given))
    return Vote(order=tuple(order), logs=tuple(max(log - total, _LEAST) for log in given))


def averaged(votes: Sequence[Vote]) -> tuple[float, ...]:
    """The mean logarithm of each option, then NIL: what the model likes about a place adds the same to every option
    that stands there, so over orders in which each option stands everywhere it cancels out.  Not normalised."""
    n = len(votes[0].order)
    sums = [0.0] * (n + 1)
    for vote in votes:
        for place, log in enumerate(vote.logs):
            sums[vote.order[place] if place < n else n] += log
    return tuple(total / len(votes) for total in sums)


def probabilities_of(logs: Sequence[float], temperature: float = 1.0) -> tuple[float, ...]:
    """Softmax of averaged logarithms at a temperature."""
    highest = max(logs)
    shares = [math.exp((log - highest) / temperature) for log in logs]
    total = math.fsum(shares)
    return tuple(share / total for share in shares)


def decide(
    logs: Sequence[float], nil_from: float, calibration: ChoiceCalibration | None = None
) -> tuple[int | None, float, float]:
    """The option (None: NIL), the probability that this is right, and that of NIL.

    NIL is answered where its probability reaches `nil_from`, or the calibration's own threshold.  Among options that
    are equally probable the one that retrieval put first is chosen."""
    probabilities = probabilities_of(logs, calibration.temperature if calibration else 1.0)
    nil = probabilities[-1]
    if len(logs) == 1 or nil >= (calibration.nil_from if calibration else nil_from):
        option, sure = None, nil
    else:
        option = best_of(logs[:-1])
        sure = probabilities[option]
    return option, calibration.confidence(sure) if calibration else sure, nil


def best_of(logs: Sequence[float]) -> int:
    """The first of the highest."""
    highest = max(logs)
    return next(place for place, log in enumerate(logs) if log >= highest - _SAME)


def scorer_answer(ranking: Ranking, nil: float, nil_from: float) -> tuple[int | None, float]:
    """What the scorer answers by itself: its first candidate (0) or NIL (None), and how sure it is."""
    if not ranking.candidates:
        return None, 1.0
    first = ranking.candidates[0].score
    is_nil = nil >= nil_from and nil >= first
    return (None, nil) if is_nil else (0, min(max(first, 0.0), 1.0))


def without_model(question: ClosedQuestion, nil_from: float, decided_by: str) -> Choice:
    """The scorer's own answer, and why the model's does not stand in its place."""
    option, probability = scorer_answer(question.ranking, question.nil, nil_from)
    return Choice(
        mention_id=question.mention.id,
        option=option,
        probability=probability,
        nil=question.nil,
        decided_by=decided_by if question.options else NO_CANDIDATE,
    )


def in_front(ranking: Ranking, chosen: EntityId) -> Ranking:
    """The chosen candidate first, the rest in their old order: whoever stood at rank r is now at r or r + 1.

    The rest keep their scores; the chosen one has 1 more than the highest, unless it is the highest alone already."""
    candidates = ranking.candidates
    own = next(one for one in candidates if one.entity_id == chosen)
    rest = [one for one in candidates if one.entity_id != chosen]
    if rest and own.score <= rest[0].score:
        own = replace(own, score=rest[0].score + 1.0)
    return Ranking(mention_id=ranking.mention_id, candidates=(own, *rest))


def link_of(question: ClosedQuestion, choice: Choice, *, most_evidence: int) -> Link:
    """The link that follows from a choice, with the facts that speak for it: cited ones first, then the most alike."""
    ranking, entity_id = question.ranking, None
    evidence: list[Evidence] = []
    if choice.option is not None:
        option = question.options[choice.option]
        entity_id = option.entity.id
        ranking = in_front(ranking, entity_id)
        cited = [place for number, place in choice.cited if number == choice.option]
        for place in dict.fromkeys([*cited, *range(len(option.facts))]):
            fact = option.facts[place]
            pair = Evidence(
                mention_triple=fact.said,
                entity_triple=fact.triple,
                similarity=round(min(max(fact.likeness, 0.0), 1.0), 4),
            )
            evidence.append(pair)
    return Link(
        mention_id=choice.mention_id,
        entity_id=entity_id,
        probability=min(max(choice.probability, 0.0), 1.0),
        decided_by=choice.decided_by,
        evidence=tuple(evidence[:most_evidence]),
        ranking=ranking,
    )
