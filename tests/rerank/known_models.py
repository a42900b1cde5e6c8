"""Models whose behaviour is known, so that what reranking makes of them can be foreseen; and small questions for them.

A model sees the messages and nothing else: it finds the letter of the right candidate by the words of its line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random

from localmel.engines.protocol import Request, Response
from localmel.engines.scripted import ScriptedEngine
from localmel.records import Candidate, Description, Entity, Mention, Ranking, Span, Triple
from localmel.rerank.closed_question import ClosedQuestion, Fact, Option
from localmel.settings import EngineSettings

LINE = re.compile(r"^([A-Z])\. (.*)$", re.MULTILINE)
NONE = "none of these"
Behaviour = Callable[[Request, list[str], int], Sequence[float]]
"A request, its candidate lines, the place of the right one (the last: none) -> a logit for each line."


class KnownModel(ScriptedEngine):
    """Answers by a behaviour.  `right`: mention id -> a beginning that only the right line has, None for NIL."""

    def __init__(self, right: Mapping[str, str | None], behaviour: Behaviour, name: str = "known") -> None:
        super().__init__(EngineSettings(engine="scripted", weights=name), self._answer)
        self._right, self._behaviour = right, behaviour
        self.sent: list[Request] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        def noted() -> Iterator[Request]:
            for request in requests:
                self.sent.append(request)
                yield request

        return super().generate(noted())

    def _answer(self, request: Request) -> Response:
        lines = [line for _, line in LINE.findall(prompt_of(request))]
        if request.schema is not None:
            return Response(request_id=request.id, text='{"evidence": []}', finish="stop")
        right = self._right.get(request.id.rpartition("#")[0])
        place = next((n for n, line in enumerate(lines) if right and line.startswith(right)), len(lines) - 1)
        logits = self._behaviour(request, lines, place)
        highest = max(logits)
        total = highest + math.log(sum(math.exp(logit - highest) for logit in logits))
        logprobs = {choice: logit - total for choice, logit in zip(request.choices, logits, strict=True)}
        return Response(
            request_id=request.id,
            text=max(logprobs, key=lambda choice: logprobs[choice]),
            finish="stop",
            prompt_tokens=len(prompt_of(request).split()),
            output_tokens=1,
            choice_logprobs=logprobs,
        )


def prompt_of(request: Request) -> str:
    return "\n".join(str(part) for message in request.messages for part in message.parts)


def drawn(request: Request, salt: str) -> Random:
    """The same for every order of a mention: what a model knows of it does not change with the order."""
    return Random(f"{salt} {request.id.rpartition('#')[0]}")


def right_with(share: float, *, sure: float = 0.9, salt: str = "oracle") -> Behaviour:
    """Right in this share of the mentions, else another line; `sure` of what it says either way."""

    def behave(request: Request, lines: list[str], right: int) -> list[float]:
        random = drawn(request, salt)
        said = lines[right]
        if random.random() >= share and len(lines) > 1:
            said = random.choice(sorted({line for line in lines if line != lines[right]}) or [said])
        place = lines.index(said)
        rest = (1 - sure) / max(1, len(lines) - 1)
        return [math.log(sure if n == place else rest) for n in range(len(lines))]

    return behave


def likes_places(liking: Sequence[float], *, knows: float, noise: float = 0.0) -> Behaviour:
    """Adds so much for the first places, and so much for the right line; noise is the same under every order."""

    def behave(request: Request, lines: list[str], right: int) -> list[float]:
        random = {line: drawn(request, line).gauss(0, noise) for line in sorted(lines)}
        return [
            (liking[n] if n < min(len(liking), len(lines) - 1) else 0.0) + knows * (n == right) + random[line]
            for n, line in enumerate(lines)
        ]

    return behave


def question_about(
    n_options: int,
    *,
    mention_id: str = "m",
    surface: str = "Jordan",
    sentence: str = "Jordan dunks.",
    nil: float = 0.1,
    scores: Sequence[float] | None = None,
    entities: Sequence[Entity] | None = None,
    n_facts: int = 0,
    beyond: int = 0,
) -> ClosedQuestion:
    """A question with `n_options` candidates and `beyond` more that are ranked and not shown."""
    entities = entities or [Entity(id=f"Q{n}", label=f"Jordan {n}", description=f"one {n}") for n in range(n_options)]
    start = sentence.index(surface)
    ids = [*(entity.id for entity in entities), *(f"X{n}" for n in range(beyond))]
    values = scores or [0.8 / 2**n for n in range(len(ids))]
    said = Triple(head=surface, relation="sport", tail="ball", source="text")
    options = [
        Option(
            entity=entity,
            facts=tuple(
                Fact(
                    triple=Triple(head=entity.label, relation="sport", tail=f"fact {n} of {entity.id}", source="kb"),
                    said=said,
                    similarity=0.9 - n / 10,
                )
                for n in range(n_facts)
            ),
        )
        for entity in entities
    ]
    return ClosedQuestion(
        mention=Mention(
            id=mention_id, surface=surface, context=sentence, span=Span(start=start, end=start + len(surface))
        ),
        description=Description(mention_id=mention_id, triples=(said,)),
        ranking=Ranking(
            mention_id=mention_id,
            candidates=tuple(Candidate(entity_id=one, score=score) for one, score in zip(ids, values, strict=True)),
        ),
        nil=nil,
        options=tuple(options),
    )


def many_questions(
    n: int, n_options: int = 8, *, nil_every: int = 0
) -> tuple[list[ClosedQuestion], dict[str, str | None]]:
    """n questions and what is right: option n % n_options, or NIL for every so many."""
    questions, right = [], {}
    for number in range(n):
        question = question_about(n_options, mention_id=f"m{number}", sentence=f"Jordan dunks, {number}.")
        gold = question.options[number % n_options].entity
        questions.append(question)
        is_nil = nil_every and number % nil_every == 0
        right[question.mention.id] = None if is_nil else f'"{gold.label}"'
    return questions, right


def without_logprobs(response: Response) -> Response:
    return replace(response, choice_logprobs={})
