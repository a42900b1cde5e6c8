"""The answer to a closed question: a distribution over the candidates and NIL, and the link that follows from it.

In: log probabilities of letters under one or more orders.  Out: a Choice, and a Link whose ranking has the chosen
candidate first and the rest in their previous order.  Knows no engine and no prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from localmel.records import EntityId, Evidence, Link, Ranking
from localmel.rerank.closed_question import ClosedQuestion

BY_MODEL = "language model"
BY_SCORER_SURE = "evidence scorer, sure enough not to ask the model"
BY_SCORER_FAILED = "evidence scorer, because the model gave no answer"
NO_CANDIDATE = "no candidate"
_LEAST = -30.0
"The floor of log probabilities, so that a single order can never rule a candidate out."


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The model's answer under one order of the candidates."""

    order: tuple[int, ...]
    "The option at each place."
    logs: tuple[float, ...]
    "Natural logarithm of the probability of each place, then of NIL; at least -30; the probabilities sum to 1."

    @property
    def place(self) -> int:
        """The chosen place; the number of options for NIL."""
        return max(range(len(self.logs)), key=lambda place: self.logs[place])

    @property
    def option(self) -> int | None:
        """The chosen option, numbered in the order of retrieval; None for NIL."""
        return self.order[self.place] if self.place < len(self.order) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The answer for one mention and how it came about."""

    mention_id: str
    option: int | None
    "The chosen option, numbered in the order of retrieval; None for NIL."
    probability: float
    "Probability that this answer is right."
    nil: float
    "Probability that no option is right, whatever the answer."
    decided_by: str
    logs: tuple[float, ...] = ()
    "Log probability of each option, then NIL, averaged over orders, uncalibrated; empty if the model did not decide."
    votes: tuple[Vote, ...] = ()
    cited: tuple[tuple[int, int], ...] = ()
    "(option, fact) pairs that the model cited before it chose."
    problems: tuple[str, ...] = ()
    "Why requests about this mention got no answer."
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


def vote_of(order: Sequence[int], letters: Sequence[str], logprobs: Mapping[str, float], text: str) -> Vote | str:
    """Read the answer given under one order; returns what is wrong with it where it is unusable.

    Where the engine reports no probabilities, the letter in `text` gets all of it."""
    if not logprobs:
        if text not in letters:
            return f"the answer is {text[:40]!r}, not a letter from {letters[0]} to {letters[-1]}"
        logprobs = {text: 0.0}
    given = [logprobs.get(letter, -math.inf) for letter in letters]
    if any(math.isnan(log) for log in given) or max(given) in (-math.inf, math.inf):
        return f"the answer's probabilities are not finite ({dict(logprobs)})"
    highest = max(given)
    total = highest + math.log(math.fsum(math.exp(log - highest) for log in given))
    return Vote(order=tuple(order), logs=tuple(max(log - total, _LEAST) for log in given))


def averaged(votes: Sequence[Vote]) -> tuple[float, ...]:
    """Average the logarithms of each option, then NIL, over the orders.  The result is not normalised.

    A preference for a place adds the same to every option shown there, so it cancels out over orders in which each
    option takes each place."""
    n = len(votes[0].order)
    sums = [0.0] * (n + 1)
    for vote in votes:
        for place, log in enumerate(vote.logs):
            sums[vote.order[place] if place < n else n] += log
    return tuple(total / len(votes) for total in sums)


def scorer_answer(ranking: Ranking, nil: float, nil_from: float) -> tuple[int | None, float]:
    """Return the scorer's own answer, its first candidate (0) or NIL (None), and the probability of it."""
    if not ranking.candidates:
        return None, 1.0
    first = ranking.candidates[0].score
    is_nil = nil >= nil_from and nil >= first
    return (None, nil) if is_nil else (0, min(max(first, 0.0), 1.0))


def without_model(question: ClosedQuestion, nil_from: float, decided_by: str) -> Choice:
    """Turn the scorer's own answer into a Choice; `decided_by` says why the model did not decide."""
    option, probability = scorer_answer(question.ranking, question.nil, nil_from)
    return Choice(
        mention_id=question.mention.id,
        option=option,
        probability=probability,
        nil=question.nil,
        decided_by=decided_by if question.options else NO_CANDIDATE,
    )


def in_front(ranking: Ranking, chosen: EntityId) -> Ranking:
    """Move the chosen candidate to the front; the rest keep their order and scores.

    Its score becomes 1 more than the highest of the rest, unless it is higher already."""
    candidates = ranking.candidates
    own = next(one for one in candidates if one.entity_id == chosen)
    rest = [one for one in candidates if one.entity_id != chosen]
    if rest and own.score <= rest[0].score:
        own = replace(own, score=rest[0].score + 1.0)
    return Ranking(mention_id=ranking.mention_id, candidates=(own, *rest))


def link_of(question: ClosedQuestion, choice: Choice, *, most_evidence: int) -> Link:
    """Build the link that follows from a choice; its evidence is cited facts first, then the most similar ones."""
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
                similarity=round(min(max(fact.similarity, 0.0), 1.0), 4),
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
