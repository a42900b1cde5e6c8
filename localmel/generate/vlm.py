"""Ask a vision-language model about mentions.

In: sentences with their pictures and mentions, and an engine.  Out: a Description or an Unparsed for every mention, as
they are finished.  An answer that cannot be read is asked for again with another seed, a question that is too long is
shortened, and one whose answer was cut off is split; nothing is dropped.  Knows nothing of the right entity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from localmel.engines.journaled import ask_again
from localmel.engines.pictures import open_picture
from localmel.engines.protocol import Engine, Response
from localmel.errors import BadPicture
from localmel.generate.answer import Said, Unread, read_json, read_lines
from localmel.generate.question import Asked, Name, Question, questions_of, shortened
from localmel.records import Description, Mention, Triple, Unparsed
from localmel.settings import GenerateSettings
from localmel.store import progress
from localmel.store.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The result for one mention."""

    mention: Mention
    result: Description | Unparsed
    attempts: int
    "How many questions it took."
    notes: tuple[str, ...] = ()
    "What was done to its sentence or picture, and whether its answer was cut off."
    answered: bool = True
    "False if its last question failed.  No journal holds an answer then, so the next run asks again."


def describe(
    asked: Iterable[Asked],
    engine: Engine,
    settings: GenerateSettings,
    journal: Journal | None = None,
    *,
    on_response: Callable[[Response], None] = lambda _: None,
) -> Iterator[Generated]:
    """Yield what the model says of every mention, in the order in which they are finished, and report progress.

    `on_response` receives every answer with its cost.  With a journal, what it answers is not asked again.
    Raises EngineStopped; what was yielded before is whole."""
    for generated in ask_again(
        (question for one in asked for question in questions_of(one, settings)),
        lambda question, request_id: question.request(request_id, settings),
        lambda question, response: _outcome(question, response, settings),
        engine,
        journal,
        settings=settings.model,
        on_response=on_response,
    ):
        progress.advance(1)
        yield generated


def _outcome(
    question: Question, response: Response, settings: GenerateSettings
) -> tuple[list[Generated], list[Question]]:
    """Return the mentions that a response finishes, and the questions to ask because of it."""
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
    """Ask about these names once more, or give them up if they were asked about often enough."""
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
    """Return what is wrong with the picture; empty if nothing is, or if there is none."""
    if question.image is None:
        return ""
    if str(question.image) in problem:  # it opens, but does not suit the model
        return problem
    try:
        open_picture(question.image)
    except BadPicture as error:
        return error.fact
    return ""
