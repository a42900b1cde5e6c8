"""The questions for a vision-language model: one per picture and sentence, about all names in it.

In: mentions.  Out: requests, in the order constant instructions -> picture -> sentence -> names, so that the engine
computes a common beginning of two questions only once.  Knows no answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localmel.engines.protocol import Message, Request
from localmel.generate.answer import schema_for, tidy, vocabulary
from localmel.records import Mention, Span
from localmel.settings import GenerateSettings

MOST_NAMES = 12
"Most names in one question.  No sentence of WikiDiverse has more than 11."
TOKENS_PER_NAME = 80
"Tokens that an answer needs per name: a type, a sentence, four triples."
RETRY_TEMPERATURE = 0.7
_SHORT_SENTENCE = 400
"Characters.  A longer sentence is cut before names or picture are dropped."
_TOKEN = 5
"Characters, more than a token has in almost any text."
_LEAST_AROUND = 40
_LONGEST_LABEL = 80
_AROUND = 24
"Characters on each side that tell two names of one spelling apart."
_NOT_IN_A_LABEL = str.maketrans({'"': "'", "\\": "/", "|": "/", "{": "(", "}": ")", "\u201c": "'", "\u201d": "'"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A sentence with its picture, and the mentions in it."""

    sentence: str
    image: Path | None
    mentions: tuple[Mention, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """The name of a mention in a question."""

    label: str
    "Unique in its sentence: the second mention of one name has a number appended."
    mentions: tuple[Mention, ...]
    "More than one if the same place in the sentence is listed more than once."
    where: str = ""
    "The words around it, if another name has the same spelling."


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Some names of one sentence, and how to ask about them."""

    names: tuple[Name, ...]
    sentence: str
    image: Path | None
    max_tokens: int
    unread: int = 0
    "How often an answer to it could not be read; sampling depends on it."
    attempts: int = 1
    "How many questions its names have been in, this one included."
    notes: tuple[str, ...] = ()
    "What was done to sentence or picture."

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the keys of the answer, in its order."""
        return tuple(name.label for name in self.names)

    def about(self, names: Sequence[Name]) -> Question:
        """Return the question about some of its names, as one more attempt."""
        return replace(self, names=tuple(names), attempts=self.attempts + 1)

    def halves(self, names: Sequence[Name]) -> list[Question]:
        """Return two questions about half of these names each, or one if they are fewer than before."""
        if len(names) < len(self.names) or len(names) < 2:
            return [self.about(names)]
        middle = len(names) // 2
        return [self.about(names[:middle]), self.about(names[middle:])]

    def again(self, names: Sequence[Name]) -> Question:
        """Return the question about the names that could not be read, with another seed."""
        return replace(self.about(names), unread=self.unread + 1)

    def without_picture(self, why: str) -> Question:
        """Return the question with its words alone."""
        note = f"asked without its picture: {why}"
        return replace(self, image=None, attempts=self.attempts + 1, notes=(*self.notes, note))

    def request(self, request_id: str, settings: GenerateSettings) -> Request:
        """Make the request: a system turn that never changes, then picture, sentence and names."""
        by_schema = settings.format == "json"
        schema = schema_for(
            self.labels,
            most_triples=settings.most_triples,
            with_image=self.image is not None,
            max_tokens=self.max_tokens,
        )
        picture = (self.image,) if self.image else ()
        return Request(
            id=request_id,
            messages=(
                Message(role="system", parts=(instructions(settings),)),
                Message(role="user", parts=(*picture, self._words())),
            ),
            schema=schema if by_schema else None,
            max_tokens=self.max_tokens,
            temperature=RETRY_TEMPERATURE if self.unread else settings.temperature,
            seed=settings.seed + self.unread,
        )

    def _words(self) -> str:
        named = ", ".join(
            f'"{name.label}" (in "{name.where}")' if name.where else f'"{name.label}"' for name in self.names
        )
        picture = "" if self.image else "There is no picture.\n"
        return f"{picture}Sentence: {self.sentence}\nNames: {named}"


def asked_of(mentions: Iterable[Mention]) -> list[Asked]:
    """Group the mentions of one sentence with one picture, in the order in which the first of each comes."""
    together: dict[tuple[str, Path | None], list[Mention]] = {}
    for mention in mentions:
        together.setdefault((mention.context, mention.image), []).append(mention)
    return [
        Asked(sentence=sentence, image=image, mentions=tuple(found)) for (sentence, image), found in together.items()
    ]


def questions_of(asked: Asked, settings: GenerateSettings) -> Iterator[Question]:
    """Yield the questions about one sentence: one, unless it has more names than an answer has room for.

    A missing picture is left out, and `notes` says so."""
    names = _names(asked)
    most = max(1, min(MOST_NAMES, settings.max_tokens // TOKENS_PER_NAME))
    for start in range(0, len(names), most):
        question = Question(
            names=tuple(names[start : start + most]),
            sentence=asked.sentence,
            image=asked.image,
            max_tokens=settings.max_tokens,
        )
        if asked.image and not _exists(asked.image):
            question = replace(question.without_picture(f"there is no file {str(asked.image)!r:.200}"), attempts=1)
        yield question


def shortened(question: Question, too_long_by: int, settings: GenerateSettings) -> list[Question]:
    """Return the question in fewer tokens; empty if nothing more can be shortened.

    First the answer loses up to half of its room, then the sentence is cut around its names, then the names are split
    into two questions, and finally the picture is dropped."""
    again, room = question.about(question.names), question.max_tokens - too_long_by
    if room >= max(1, settings.max_tokens // 2):
        return [replace(again, max_tokens=room)]
    before = len(question.sentence)
    if before > _SHORT_SENTENCE:
        most = max(before - _TOKEN * too_long_by, before // 2, _SHORT_SENTENCE)
        spans = [name.mentions[0].span for name in question.names]
        cut = cut_around(question.names[0].mentions[0].context, spans, most)
        if len(cut) < before:
            whole = len(question.names[0].mentions[0].context)
            notes = [note for note in question.notes if not note.startswith(_CUT)]
            note = f"{_CUT} from {whole:,} to {len(cut):,} characters around its names: more does not fit"
            return [replace(again, sentence=cut, notes=(*notes, note))]
    if len(question.names) > 1:
        return question.halves(question.names)
    if question.image:
        return [question.without_picture(f"it is {too_long_by:,} tokens too long with it")]
    return []


_CUT = "sentence cut"


def cut_around(sentence: str, spans: Sequence[Span], most: int) -> str:
    """Cut a sentence to about `most` characters: pieces around the spans, cut at blanks, with whole spans."""
    taken = sum(span.end - span.start for span in spans)
    around = max((most - taken) // (2 * len(spans)), _LEAST_AROUND)
    pieces: list[tuple[int, int]] = []
    for span in sorted(spans, key=lambda span: span.start):
        start, end = max(0, span.start - around), min(len(sentence), span.end + around)
        if start and (blank := sentence.find(" ", start, span.start)) >= 0:
            start = blank + 1
        if end < len(sentence) and (blank := sentence.rfind(" ", span.end, end)) >= 0:
            end = blank
        if pieces and start <= pieces[-1][1]:
            pieces[-1] = (pieces[-1][0], max(end, pieces[-1][1]))
        else:
            pieces.append((start, end))
    text = " … ".join(sentence[start:end] for start, end in pieces)
    return f"{'… ' if pieces[0][0] else ''}{text}{' …' if pieces[-1][1] < len(sentence) else ''}"


# --- names -------------------------------------------------------------------------------------------------------


def _names(asked: Asked) -> list[Name]:
    """Return one name for each place with a mention, in the order of the places."""
    places: dict[tuple[int, int], list[Mention]] = {}
    for mention in sorted(asked.mentions, key=lambda one: (one.span.start, one.span.end)):
        places.setdefault((mention.span.start, mention.span.end), []).append(mention)
    plain = [_plain(found[0].surface) for found in places.values()]
    alike = Counter(plain)
    used: set[str] = set()
    names = []
    for label, ((start, end), mentions) in zip(plain, places.items(), strict=True):
        where = _plain(asked.sentence[max(0, start - _AROUND) : end + _AROUND]) if alike[label] > 1 else ""
        number, unique = 1, label
        while unique in used:
            number += 1
            unique = f"{label} ({number})"
        used.add(unique)
        names.append(Name(label=unique, mentions=tuple(mentions), where=where))
    return names


def _plain(text: str) -> str:
    """Return a text that needs no escape in JSON, in a grammar or between bars."""
    plain = tidy(text.translate(_NOT_IN_A_LABEL)) or "?"
    return plain if len(plain) <= _LONGEST_LABEL else f"{plain[: _LONGEST_LABEL - 1].rstrip()}…"


def _exists(image: Path) -> bool:
    try:
        return image.is_file()
    except (OSError, ValueError):  # ValueError: a name that no file system accepts
        return False


# --- instructions ------------------------------------------------------------------------------------------------

_TASK = """\
You collect facts for a knowledge graph from pictures and sentences. You get a picture, the sentence that goes with \
it, and a list of names in the sentence. For each name say what type of entity it is, describe it in one sentence, and \
state facts about it as triples: the name, a relation, an object. Facts that tell the entity apart from others with \
the same name matter most.

Types: {types}.
Relations: {relations}.

Rules:
- State what the picture and the sentence support. If the picture is blank or there is none, use what you know.
- At most {most} triples for each name, the most telling first. An object is a few words, not a sentence.
- Write every name exactly as in the list, and leave none out.
"""
_AS_JSON = """\
- "evidence" is "image" where the picture shows the fact, otherwise "text".

Answer with one JSON object and nothing else, a key for each name:
{"NAME": {"type": "TYPE", "description": "ONE SENTENCE", "triples": [{"relation": "RELATION", "tail": "OBJECT", \
"evidence": "text"}]}}"""
_AS_LINES = """\
- The last word of a triple is image where the picture shows the fact, otherwise text.

Answer in three steps and nothing else, one line for each name or fact:
### Step 1: Entity Type
- "NAME": TYPE
### Step 2: Entity Description
- "NAME": ONE SENTENCE
### Step 3: Triples
- "NAME" | RELATION | OBJECT | text"""


def instructions(settings: GenerateSettings) -> str:
    """Return the text that every question of a run begins with, byte for byte."""
    words = vocabulary()
    types, relations = ", ".join(words.entity_types), ", ".join(words.relations)
    task = _TASK.format(types=types, relations=relations, most=settings.most_triples)
    return task + (_AS_JSON if settings.format == "json" else _AS_LINES)
