"""What every reader of a benchmark gives: named splits, and what was odd about them.

In: mentions as a file has them.  Out: `Benchmark`.  Knows no file format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from localmel.errors import BadMention
from localmel.kb.importers.reading import KbSource, Problems
from localmel.kb.mentions import listed_mentions
from localmel.records import EntityId, Mention, MentionId, Span, Split

SPLITS = ("train", "val", "test")
"The names of the splits, in the order in which they are used."
_MOST_REPEATED = 100
"How often one name is looked for in one sentence; if it is listed more often, the others share the last place."
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remarks:
    """What a Split no longer shows of the files it was read from."""

    not_in_sentence: tuple[MentionId, ...] = ()
    "Mentions that were put in front of their sentence, because they do not stand in it."
    other_case: tuple[MentionId, ...] = ()
    "Mentions that stand in their sentence only with other capitals."
    repeated_ids: tuple[str, ...] = ()
    'Ids of the file that came again; the second "7" is read as "7#2".'
    empty: tuple[MentionId, ...] = ()
    "Mentions without a name, which were left out; the published files have such."


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One dataset, read whole."""

    name: str
    layout: str
    "MIMIC, KGMEL or JSON lines."
    folder: Path
    splits: Mapping[str, Split]
    "Those of train, val and test that are there, in this order."
    remarks: Mapping[str, Remarks]
    "One for each split."
    notes: tuple[str, ...] = ()
    "What the reader had to decide or to leave out, in words."


class BenchmarkFolder(Protocol):
    """A dataset that was recognised on disk, not read yet."""

    @property
    def name(self) -> str:
        """The dataset, in its usual spelling."""

    @property
    def layout(self) -> str:
        """The form in which it lies there."""

    def read(self) -> Benchmark:
        """Its splits.  Raises BadInput where a file does not fit."""

    def kb_source(
        self,
        *,
        problems: Problems,
    ) -> KbSource:
        """Its KB, for an import.  Raises BadInput where no KB comes with it."""


class SplitBuilder:
    """Collects the mentions of one split."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._mentions: list[Mention] = []
        self._gold: dict[MentionId, EntityId | None] = {}
        self._not_in_sentence: list[MentionId] = []
        self._other_case: list[MentionId] = []
        self._repeated: list[str] = []
        self._empty: list[MentionId] = []

    def add(
        self,
        mention_id: MentionId,
        surface: str,
        sentence: str,
        answer: EntityId | None,
        *,
        image: Path | None,
        span: Span | None = None,
    ) -> None:
        """Add one mention, at `span` or where it first stands.  An id that is taken gets a number behind it.

        An empty one is only noted: there is nothing that could be linked."""
        surface, sentence, mention_id = whole(surface), whole(sentence), whole(mention_id)
        if not surface:
            self._empty.append(mention_id)
            return
        if mention_id in self._gold:
            self._repeated.append(mention_id)
            mention_id = numbered(mention_id, self._gold)
        mention = place_mention(mention_id, surface, sentence, image=image, span=span)
        self._mentions.append(mention)
        self._gold[mention_id] = answer
        if mention.context != sentence:
            self._not_in_sentence.append(mention_id)
        elif mention.surface != surface:
            self._other_case.append(mention_id)

    def repeated(self, file_id: str) -> None:
        """Note an id that came again and was numbered by the reader."""
        self._repeated.append(file_id)

    def split(self) -> Split:
        """All that was added."""
        return Split(name=self.name, mentions=tuple(self._mentions), gold=self._gold)

    def remarks(self) -> Remarks:
        """What was odd about it."""
        return Remarks(
            not_in_sentence=tuple(self._not_in_sentence),
            other_case=tuple(self._other_case),
            repeated_ids=tuple(self._repeated),
            empty=tuple(self._empty),
        )


def place_mention(
    mention_id: MentionId, surface: str, sentence: str, *, image: Path | None = None, span: Span | None = None
) -> Mention:
    """A mention at `span`, or where its surface first stands, or else in front of its sentence."""
    if span is None:
        try:
            span = listed_mentions(sentence, [surface])[0]
        except BadMention:
            sentence = f"{surface}: {sentence}"
            span = Span(start=0, end=len(surface))
    return Mention(id=mention_id, surface=sentence[span.start : span.end], context=sentence, span=span, image=image)


def whole(text: str) -> str:
    """Half characters (lone surrogates, which JSON can hold and no file or model can) become U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def numbered(name: str, taken: Mapping[str, object]) -> str:
    """`name#2`, or the first higher number that is free."""
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def gold_of(answer: str) -> EntityId | None:
    """The entity, or None where the answer is "nil".  Raises ValueError for an empty one."""
    if not answer.strip():
        raise ValueError("the answer is empty")
    return None if answer.strip().lower() == "nil" else answer.strip()


def picture_file(folder: Path, named: str) -> Path | None:
    """The file that is meant: the base name up to its first dot, with .jpg behind; None where none is named.

    Only the base name counts, so that no name leads out of the folder."""
    if not named.strip():
        return None
    return folder / f"{named.rsplit('/', 1)[-1].partition('.')[0]}.jpg"


def spans_in(sentence: str, surfaces: Sequence[str]) -> list[Span | None]:
    """Where each mention of one sentence stands; the second "Jordan" is at the next place where there is one."""
    places = {surface: _spans_of(sentence, surface, number) for surface, number in Counter(surfaces).items()}
    given: Counter[str] = Counter()
    spans: list[Span | None] = []
    for surface in surfaces:
        free = places[surface]
        spans.append(free[min(given[surface], len(free) - 1)] if free else None)
        given[surface] += 1
    return spans


def _spans_of(sentence: str, surface: str, wanted: int) -> list[Span]:
    there = len(re.findall(re.escape(surface), sentence, re.IGNORECASE))
    for number in (min(wanted, there, _MOST_REPEATED), 1):
        try:
            return listed_mentions(sentence, [surface] * number)
        except BadMention:
            continue
    return []
