"""The common result of all benchmark readers: named splits, and a note of everything odd about them.

In: mentions as a file has them.  Out: `Benchmark`.  Knows no file format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localmel.errors import BadInput, BadMention, shell_line
from localmel.kb.importers.reading import KbSource, Problems, excerpt
from localmel.kb.mentions import listed_mentions
from localmel.records import EntityId, Mention, MentionId, Span, Split

SPLITS = ("train", "val", "test")
"The names of the splits, in the order in which they are used."
_MOST_REPEATED = 100
"How often one name is looked for in one sentence; if it is listed more often, the others share the last place."
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remarks:
    """Facts about the files that their Split no longer shows."""

    not_in_sentence: tuple[MentionId, ...] = ()
    "Mentions that were put in front of their sentence because they are not in it."
    other_case: tuple[MentionId, ...] = ()
    "Mentions that are in their sentence only with other capitals."
    repeated_ids: tuple[str, ...] = ()
    'Ids that repeat in the file; the second "7" is read as "7#2".'
    empty: tuple[MentionId, ...] = ()
    "Mentions without a name, which were left out; the published files have some."


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One dataset, read whole."""

    name: str
    layout: str
    "MIMIC, KGMEL or JSON lines."
    folder: Path
    splits: Mapping[str, Split]
    "Those of train, val and test that exist, in this order."
    remarks: Mapping[str, Remarks]
    "One for each split."
    notes: tuple[str, ...] = ()
    "Sentences on what the reader had to decide or to leave out."


class BenchmarkFolder(Protocol):
    """A dataset that was recognised on disk but not read yet."""

    @property
    def name(self) -> str:
        """Return the dataset in its usual spelling."""

    @property
    def folder(self) -> Path:
        """Return the folder that the user named."""

    @property
    def layout(self) -> str:
        """Return the name of its layout on disk."""

    def read(self) -> Benchmark:
        """Read its splits.  Raises BadInput for a file that does not fit."""

    def kb_source(self, *, problems: Problems) -> KbSource:
        """Return its KB for an import.  Raises BadInput if it has none."""


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
        """Add one mention, at `span` or where it first occurs.  A repeated id gets a number appended.

        An empty mention is only noted: there is nothing to link."""
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
        """Note a repeated id that the reader has numbered."""
        self._repeated.append(file_id)

    def split(self) -> Split:
        """Return all that was added."""
        return Split(name=self.name, mentions=tuple(self._mentions), gold=self._gold)

    def remarks(self) -> Remarks:
        """Return what was odd about it."""
        return Remarks(
            not_in_sentence=tuple(self._not_in_sentence),
            other_case=tuple(self._other_case),
            repeated_ids=tuple(self._repeated),
            empty=tuple(self._empty),
        )


def benchmark_of(folder: BenchmarkFolder, builders: Mapping[str, SplitBuilder], notes: Sequence[str] = ()) -> Benchmark:
    """Return what the builders have collected for a dataset."""
    return Benchmark(
        name=folder.name,
        layout=folder.layout,
        folder=folder.folder,
        splits={name: builder.split() for name, builder in builders.items()},
        remarks={name: builder.remarks() for name, builder in builders.items()},
        notes=tuple(notes),
    )


def split_files(folder: Path, pattern: re.Pattern[str]) -> dict[str, dict[str, Path]]:
    """Find the files of splits in a folder: dataset -> split -> file.  `pattern` has a group for each of the two."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.fullmatch(path.name)
        if match and path.is_file():
            stem, split = match[1], "val" if match[2] == "dev" else match[2]
            if split in files.setdefault(stem, {}):
                fact = f"{folder} has two files for the split val of {stem}: _dev and _val"
                raise BadInput(fact, hint=shell_line("mv", path, note="to another folder"))
            files[stem][split] = path
    return files


def place_mention(
    mention_id: MentionId, surface: str, sentence: str, *, image: Path | None = None, span: Span | None = None
) -> Mention:
    """Return a mention at `span`, or where its surface first occurs, or else in front of its sentence.

    Benchmarks have mentions that are not in their sentence word for word, such as "Hermann Beckerath" for "Hermann von
    Beckerath"; these are put in front."""
    if span is None:
        try:
            span = listed_mentions(sentence, [surface])[0]
        except BadMention:
            sentence = f"{surface}: {sentence}"
            span = Span(start=0, end=len(surface))
    return Mention(id=mention_id, surface=sentence[span.start : span.end], context=sentence, span=span, image=image)


def spans_in(sentence: str, surfaces: Sequence[str]) -> list[Span | None]:
    """Return the span of each mention of one sentence; a second "Jordan" takes the next place if there is one."""
    places = {surface: _spans_of(sentence, surface, number) for surface, number in Counter(surfaces).items()}
    given: Counter[str] = Counter()
    spans: list[Span | None] = []
    for surface in surfaces:
        free = places[surface]
        spans.append(free[min(given[surface], len(free) - 1)] if free else None)
        given[surface] += 1
    return spans


def _spans_of(sentence: str, surface: str, wanted: int) -> list[Span]:
    present = len(re.findall(re.escape(surface), sentence, re.IGNORECASE))
    for number in (min(wanted, present, _MOST_REPEATED), 1):
        try:
            return listed_mentions(sentence, [surface] * number)
        except BadMention:
            continue
    return []


# --- values of the files --------------------------------------------------------------------------------------------


def whole(text: str) -> str:
    """Replace lone surrogates, which JSON can hold but no file or model can, by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def numbered(name: str, taken: Mapping[str, object]) -> str:
    """Return `name#2`, or the first higher number that is free."""
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def gold_of(answer: str) -> EntityId | None:
    """Return the entity, or None for the answer "nil".  Raises ValueError for an empty one."""
    if not answer.strip():
        raise ValueError("the answer is empty")
    return None if answer.strip().lower() == "nil" else answer.strip()


def object_in(value: object) -> dict[str, Any]:
    """Return the value if it is a JSON object.  Raises TypeError."""
    if not isinstance(value, dict):
        raise TypeError(f"not an object in braces: {excerpt(value)}")
    return value


def texts_in(row: Mapping[str, Any], key: str) -> list[str]:
    """Return the list of texts under a key.  Raises TypeError."""
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{key} is not a list of texts: {excerpt(value)}")
    return value


def picture_file(folder: Path, named: str) -> Path | None:
    """Return the file that a name means: its base name up to the first dot, plus .jpg; None for an empty name.

    Only the base name counts, so that no name leads out of the folder."""
    if not named.strip():
        return None
    return folder / f"{named.rsplit('/', 1)[-1].partition('.')[0]}.jpg"
