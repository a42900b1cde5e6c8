"""Let a language model describe entities, one by one.

In: what a KB records of each, an engine, a journal.  Out: one Written or Unwritten each, as they are finished.  Where
the model says that it does not know an entity and there is a text about it, it is shown the text and asked again.
What cannot be read is asked again with another seed, what is too long with fewer facts; what the journal
answers is not sent.  Knows no KB."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from localmel.engines.journaled import ask
from localmel.engines.protocol import Engine, Request, Response
from localmel.generate.entity_question import EntityRecord, SaidOfEntity, answer_as_turn, read_answer, request_about
from localmel.settings import EngineSettings
from localmel.store.journal import Journal

RETRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a model wrote about one entity."""

    record: EntityRecord
    text: str
    known: bool
    "That it said it knows the entity, in the first turn."
    turns: int
    "2 where it was shown a text."


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwritten:
    """That nothing came of one entity, and why."""

    record: EntityRecord
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One question that is under way."""

    record: EntityRecord
    "As it was given."
    shown: EntityRecord
    "With what fits."
    first: SaidOfEntity | None = None
    "What was said in the first turn."
    unread: int = 0

    def request(self, request_id: str, seed: int) -> Request:
        before = None if self.first is None else answer_as_turn(self.first)
        return request_about(self.shown, request_id, before=before, unread=self.unread, seed=seed)


def describe_entities(
    records: Iterable[EntityRecord],
    engine: Engine,
    settings: EngineSettings,
    journal: Journal | None = None,
    *,
    seed: int = 0,
    on_response: Callable[[Response], None] = lambda _: None,
) -> Iterator[Written | Unwritten]:
    """Every record once, in the order in which they are finished.

    Raises EngineStopped; what was yielded before is whole, and what was answered is in the journal."""
    fresh = (_Asked(record=record, shown=record) for record in records)
    again: deque[_Asked] = deque()
    waiting: dict[str, _Asked] = {}
    number = 0

    def requests() -> Iterator[Request]:
        nonlocal number
        while asked := again.popleft() if again else next(fresh, None):
            number += 1
            waiting[str(number)] = asked
            yield asked.request(str(number), seed)

    while True:
        for response in ask(requests(), engine, journal, settings=settings):
            on_response(response)
            outcome = _outcome(waiting.pop(response.request_id), response)
            if isinstance(outcome, _Asked):
                again.append(outcome)
            else:
                yield outcome
        if not again:  # what came back after the engine had taken the last question
            return


def _outcome(asked: _Asked, response: Response) -> Written | Unwritten | _Asked:
    """What a response says, or the question that has to be asked because of it."""
    if response.finish == "failed":
        if response.too_long_by and (shorter := asked.shown.shorter()):
            return replace(asked, shown=shorter)
        return _again(asked, response.problem, same=bool(response.too_long_by))
    if response.finish == "length":
        return _again(asked, f"the answer was cut off after {response.output_tokens:,} tokens")
    said = read_answer(response.text)
    if isinstance(said, str):
        return _again(asked, said)
    if asked.first is None and not said.known and asked.record.text:
        return replace(asked, first=said, unread=0)
    known = said.known if asked.first is None else asked.first.known
    return Written(record=asked.record, text=said.description, known=known, turns=1 if asked.first is None else 2)


def _again(asked: _Asked, problem: str, *, same: bool = False) -> Unwritten | _Asked:
    """Once more with another seed, unless it was asked often enough or would be the `same`.

    Where the second turn fails, what was said in the first is not taken for it: the text was not seen."""
    if same or asked.unread >= RETRIES:
        return Unwritten(record=asked.record, problem=problem)
    return replace(asked, unread=asked.unread + 1)
