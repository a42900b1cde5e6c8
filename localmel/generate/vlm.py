"""Ask a vision-language model about mentions.

In: sentences with their pictures and mentions, and an engine.  Out: a Description or an Unparsed for every mention, as
they are finished.  What cannot be read is asked again with another seed, what is too long is asked in less words, and
what was cut off is asked in smaller questions; nothing is dropped.  Knows nothing of the right entity."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from localmel.engines.journaled import ask
from localmel.engines.pictures import open_picture
from localmel.engines.protocol import Engine, Request, Response
from localmel.errors import BadPicture
from localmel.generate.answer import Said, Unread, read_json, read_lines
from localmel.generate.question import Asked, Name, Question, questions_of, shortened
from localmel.records import Description, Mention, Triple, Unparsed
from localmel.settings import GenerateSettings
from localmel.store import progress
from localmel.store.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What came of one mention."""

    mention: Mention
    result: Description | Unparsed
    attempts: int
    "How many questions it took."
    notes: tuple[str, ...] = ()
    "What was done to its sentence or picture, and whether its answer was cut off."
    answered: bool = True
    "False: the last question about it failed.  No journal holds an answer, so the next run asks it again."


def describe(
    asked: Iterable[Asked],
    engine: Engine,
    settings: GenerateSettings,
    journal: Journal | None = None,
    *,
    on_response: Callable[[Response], None] = lambda _: None,
) -> Iterator[Generated]:
    """What the model says of every mention, in the order in which it is finished.

    `on_done` hears how many more mentions are finished, `on_response` every answer with its cost.  With a journal, what
    it answers is not asked again.  Raises EngineStopped; what was yielded before is whole."""
    fresh = (question for one in asked for question in questions_of(one, settings))
    again: deque[Question] = deque()
    waiting: dict[str, Question] = {}
    number = 0

    def requests() -> Iterator[Request]:
        nonlocal number
        while question := again.popleft() if again else next(fresh, None):
            number += 1
            waiting[str(number)] = question
            yield question.request(str(number), settings)

    while True:
        for response in ask(requests(), engine, journal, settings=settings.model):
            on_response(response)
            generated, more = _outcome(waiting.pop(response.request_id), response, settings)
            again.extend(more)
            progress.advance(len(generated))
            yield from generated
        if not again:  # what came back after the engine had taken the last question
            return


def _outcome(
    question: Question, response: Response, settings: GenerateSettings
) -> tuple[list[Generated], list[Question]]:
    """What a response says, and what has to be asked because of it."""
    if response.finish == "failed":
        if response.too_long_by and (more := shortened(question, response.too_long_by, settings)):
            return [], more
        if why := _bad_picture(question, response.problem):
            return [], [question.without_picture(why)]
        unread = dict.fromkeys(question.labels, Unread(problem=response.problem))
        return _retried(question, question.names, unread, response, settings)
    cut_off = response.finish == "length"
    read = read_json if settings.format == "json" else read_lines
    reading = read(response.text, question.labels, most_triples=settings.most_triples, cut_off=cut_off)
    generated: list[Generated] = []
    problems: dict[str, Unread] = {}
    for name in question.names:
        said = reading[name.label]
        if isinstance(said, Said) and (said.whole or (len(question.names) == 1 and said.triples)):
            note = () if said.whole else (f"answer cut off after {response.output_tokens:,} tokens",)
            generated += [_generated(one, said, question, response.text, note) for one in name.mentions]
        else:
            problems[name.label] = said if isinstance(said, Unread) else Unread(problem="the answer was cut off in it")
    open_ = [name for name in question.names if name.label in problems]
    if cut_off and len(question.names) > 1:
        return generated, question.halves(open_) if open_ else []
    given_up, more = _retried(question, open_, problems, response, settings)
    return generated + given_up, more


def _retried(
    question: Question,
    names: Iterable[Name],
    problems: dict[str, Unread],
    response: Response,
    settings: GenerateSettings,
) -> tuple[list[Generated], list[Question]]:
    """These names once more, or, where they were asked often enough, what is wrong."""
    names = tuple(names)
    if not names:
        return [], []
    if question.unread < settings.retries and not response.too_long_by:
        return [], [question.again(names)]
    given_up = [
        Generated(
            mention=mention,
            result=Unparsed(mention_id=mention.id, problem=problems[name.label].problem, raw=response.text),
            attempts=question.attempts,
            notes=question.notes,
            answered=response.finish != "failed",
        )
        for name in names
        for mention in name.mentions
    ]
    return given_up, []


def _generated(mention: Mention, said: Said, question: Question, raw: str, more_notes: tuple[str, ...]) -> Generated:
    triples = [
        Triple(head=mention.surface, relation=one.relation, tail=one.tail, source=one.source) for one in said.triples
    ]
    kind = said.entity_type
    if kind and all(triple.tail.casefold() != kind.casefold() for triple in triples):  # as the paper does
        triples.append(Triple(head=mention.surface, relation="instance of", tail=kind, source="text"))
    return Generated(
        mention=mention,
        result=Description(
            mention_id=mention.id, entity_type=kind, summary=said.summary, triples=tuple(triples), raw=raw
        ),
        attempts=question.attempts,
        notes=(*question.notes, *more_notes),
    )


def _bad_picture(question: Question, problem: str) -> str:
    """What is wrong with the picture; empty where nothing is, or where there is none."""
    if question.image is None:
        return ""
    if str(question.image) in problem:  # it opens, but does not suit the model
        return problem
    try:
        open_picture(question.image)
    except BadPicture as error:
        return error.fact
    return ""
