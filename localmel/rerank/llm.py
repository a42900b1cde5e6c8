"""Ask a language model which candidate is meant, mention by mention.

In: closed questions and an engine.  Out: one Choice per question, in order.  No mention is lost: one whose requests
fail keeps the order of retrieval, and its Choice says so.  Mentions that the scorer is sure of can skip the model.
Knows no gold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from localmel.engines.journaled import ask
from localmel.engines.protocol import Engine, Message, Request, Response
from localmel.rerank.calibration import ChoiceCalibration, decide
from localmel.rerank.choice import (
    BY_MODEL,
    BY_SCORER_FAILED,
    BY_SCORER_SURE,
    Choice,
    Vote,
    averaged,
    scorer_answer,
    vote_of,
    without_model,
)
from localmel.rerank.closed_question import (
    LINE_LENGTHS,
    ClosedQuestion,
    cited_facts,
    evidence_schema,
    letters_for,
    messages_for,
    orders_of,
)
from localmel.settings import RerankSettings
from localmel.store.journal import Journal

_QUESTIONS_AT_ONCE = 512
_EVIDENCE_TOKENS, _CHOICE_TOKENS = 128, 4
_NOW_CHOOSE = "Now answer with one letter."


def choose(
    questions: Iterable[ClosedQuestion],
    engine: Engine,
    settings: RerankSettings,
    *,
    calibration: ChoiceCalibration | None = None,
    journal: Journal | None = None,
) -> Iterator[Choice]:
    """Yield one Choice per question, in order; requests that the journal has answers for are not sent again.

    Each question is asked in `settings.orders` orders, and the log probabilities are averaged.  With `evidence_first`
    the model first cites supporting facts by number, and sees its citation when it chooses.
    Raises EngineStopped when the model stops; its answers so far are in the journal."""
    remaining = iter(questions)
    while batch := list(islice(remaining, _QUESTIONS_AT_ONCE)):
        yield from _choose(batch, engine, settings, calibration, journal)


@dataclass(slots=True, kw_only=True)
class _Asked:
    """One question under one order."""

    question: ClosedQuestion
    order: tuple[int, ...]
    before: tuple[Message, ...] = ()
    "The exchange about evidence."
    cited: tuple[tuple[int, int], ...] = ()
    vote: Vote | None = None
    problems: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)


def _choose(
    batch: Sequence[ClosedQuestion],
    engine: Engine,
    settings: RerankSettings,
    calibration: ChoiceCalibration | None,
    journal: Journal | None,
) -> Iterator[Choice]:
    asked = {
        f"{question.mention.id}#{number}": _Asked(question=question, order=order)
        for question in batch
        if _is_asked(question, settings)
        for number, order in enumerate(orders_of(question, max(1, settings.orders), settings.seed))
    }
    if asked and settings.evidence_first:
        _ask_for_evidence(asked, engine, settings, journal)
    if asked:
        _ask_for_choices(asked, engine, settings, journal)
    by_mention: dict[str, list[_Asked]] = {}
    for one in asked.values():
        by_mention.setdefault(one.question.mention.id, []).append(one)
    for question in batch:
        yield _choice(question, by_mention.get(question.mention.id, ()), settings, calibration)


def _is_asked(question: ClosedQuestion, settings: RerankSettings) -> bool:
    _, sure = scorer_answer(question.ranking, question.nil, settings.nil_from)
    return bool(question.options) and not 0.0 < settings.route_from <= sure


def _ask_for_evidence(
    asked: Mapping[str, _Asked], engine: Engine, settings: RerankSettings, journal: Journal | None
) -> None:
    """Ask for supporting facts; where that fails the model chooses without having cited anything."""
    requests = (
        Request(
            id=name,
            messages=messages_for(one.question, one.order, numbered=True),
            schema=schema,
            max_tokens=_EVIDENCE_TOKENS,
            seed=settings.seed,
        )
        for name, one in asked.items()
        if (schema := evidence_schema(one.question, one.order))
    )
    for response in ask(requests, engine, journal, settings=settings.model):
        one = asked[response.request_id]
        one.responses.append(response)
        known = cited_facts(one.question, one.order)
        cited = _cited(response, known)
        if isinstance(cited, str):
            one.problems.append(cited)
            continue
        one.cited = tuple(known[number] for number in cited)
        said = json.dumps({"evidence": cited})
        one.before = (Message(role="assistant", parts=(said,)), Message(role="user", parts=(_NOW_CHOOSE,)))


def _cited(response: Response, known: Mapping[str, tuple[int, int]]) -> list[str] | str:
    """Return the numbers of the cited facts, without repetitions, or why there are none."""
    if response.finish == "failed":
        return f"no evidence: {response.problem}"
    try:
        named = json.loads(response.text)["evidence"]
        return [number for number in dict.fromkeys(named) if number in known]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"no evidence: {response.text[:80]!r} does not match the schema ({response.finish})"


def _ask_for_choices(
    asked: Mapping[str, _Asked], engine: Engine, settings: RerankSettings, journal: Journal | None
) -> None:
    """Ask for the choices; a question that exceeds the model's context is asked again with shorter lines."""
    for line_length in LINE_LENGTHS:
        too_long: dict[str, _Asked] = {}
        requests = (_choice_request(name, one, line_length, settings) for name, one in asked.items())
        for response in ask(requests, engine, journal, settings=settings.model):
            one = asked[response.request_id]
            one.responses.append(response)
            if response.finish == "failed":
                one.problems.append(response.problem or "no reason given")
                if response.too_long_by:
                    too_long[response.request_id] = one
                continue
            vote = vote_of(one.order, letters_for(len(one.order)), response.choice_logprobs, response.text.strip())
            if isinstance(vote, str):
                one.problems.append(vote)
            else:
                one.vote = vote
        if not too_long:
            return
        asked = too_long


def _choice_request(name: str, one: _Asked, line_length: int, settings: RerankSettings) -> Request:
    whole = line_length == LINE_LENGTHS[0]
    messages = messages_for(
        one.question, one.order, numbered=whole and settings.evidence_first, line_length=line_length
    )
    return Request(
        id=name,
        messages=(*messages, *one.before) if whole else messages,
        choices=letters_for(len(one.order)),
        max_tokens=_CHOICE_TOKENS,
        seed=settings.seed,
    )


def _choice(
    question: ClosedQuestion, asked: Sequence[_Asked], settings: RerankSettings, calibration: ChoiceCalibration | None
) -> Choice:
    if not asked:
        return without_model(question, settings.nil_from, BY_SCORER_SURE)
    votes = tuple(one.vote for one in asked if one.vote)
    if votes:
        logs = averaged(votes)
        option, probability, nil = decide(logs, settings.nil_from, calibration)
        decided = Choice(
            mention_id=question.mention.id,
            option=option,
            probability=probability,
            nil=nil,
            decided_by=BY_MODEL,
            logs=logs,
        )
    else:
        decided = without_model(question, settings.nil_from, BY_SCORER_FAILED)
    answered = [response for one in asked for response in one.responses]
    unanswered = ["the engine gave no response" for one in asked if not one.responses]
    return replace(
        decided,
        votes=votes,
        cited=tuple(dict.fromkeys(fact for one in asked for fact in one.cited)),
        problems=(*(problem for one in asked for problem in one.problems), *unanswered),
        requests=len(answered) + len(unanswered),
        prompt_tokens=sum(response.prompt_tokens for response in answered),
        output_tokens=sum(response.output_tokens for response in answered),
    )
