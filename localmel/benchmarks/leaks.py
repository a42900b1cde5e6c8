"""Count, refuse or drop the mentions of one split that are also in an earlier one.

In: splits.  Out: the same, or less.  Two mentions are the same if their ids are equal or, ignoring blanks, their
sentences: a model that has seen the sentence in training has also seen its picture and its names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from localmel.errors import BadInput
from localmel.records import Mention, MentionId, Split

_ORDER = {"train": 0, "val": 1, "dev": 1, "test": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """The mentions that a later split shares with an earlier one."""

    earlier: str
    later: str
    mention_ids: tuple[MentionId, ...]
    "Mentions of the later split, in its order."
    by_sentence: int
    "How many of them share their sentence."
    by_id: int
    "How many of them share their id; most share both."
    sentences: int
    "How many different sentences these mentions have."
    of: int
    "How many mentions the later split has."


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Splits that no longer have anything in common."""

    splits: tuple[Split, ...]
    "In the order given."
    counts: Mapping[str, int]
    "Split -> how many mentions it lost."

    @property
    def total(self) -> int:
        """Return how many mentions were dropped."""
        return sum(self.counts.values())


def leak_between(earlier: Split, later: Split) -> Leak:
    """Return the mentions of `later` that are also in `earlier`."""
    return _leak(earlier.name, _Seen([earlier]), later)


def refuse_leaks(train: Split, other: Split) -> None:
    """Raise BadInput if the splits share a mention or a sentence."""
    leak = leak_between(train, other)
    if leak.mention_ids:
        raise BadInput(
            f"{len(leak.mention_ids):,} of {leak.of:,} mentions of {other.name} are also in {train.name} "
            f"({leak.by_sentence:,} by their sentence, {leak.by_id:,} by their id), "
            f"for example {leak.mention_ids[0]!r}",
            hint="add --drop-leaked to leave them out of " + other.name,
        )


def drop_leaked(splits: Sequence[Split]) -> Dropped:
    """Remove from each split what an earlier one has: train loses nothing, val what is in train, test what is in both.

    The last word of a split's name ("wikimel-val") decides the order: train, val (dev), test, then others as given."""
    seen = _Seen([])
    kept: dict[int, Split] = {}
    counts: dict[str, int] = {}
    for index in sorted(range(len(splits)), key=lambda index: _rank(splits[index].name)):
        split = splits[index]
        gone = set(_leak("", seen, split).mention_ids)
        seen.add(split)
        counts[split.name] = len(gone)
        kept[index] = split if not gone else _without(split, gone)
    return Dropped(
        splits=tuple(kept[index] for index in range(len(splits))), counts={one.name: counts[one.name] for one in splits}
    )


class _Seen:
    """The ids and sentences of earlier splits."""

    def __init__(self, splits: Iterable[Split]) -> None:
        self._ids: set[MentionId] = set()
        self._sentences: set[str] = set()
        for split in splits:
            self.add(split)

    def add(self, split: Split) -> None:
        for mention in split.mentions:
            self._ids.add(mention.id)
            self._sentences.update(sentences_of(mention))

    def has_id(self, mention: Mention) -> bool:
        return mention.id in self._ids

    def has_sentence(self, mention: Mention) -> bool:
        return not self._sentences.isdisjoint(sentences_of(mention))


def sentences_of(mention: Mention) -> set[str]:
    """Return the context and, if the mention may have been put in front of its sentence, the rest without it.

    A sentence that really begins with "Name: " counts in both forms: when in doubt, it is a leak."""
    context = " ".join(mention.context.split())
    front = f"{mention.surface}: "
    if mention.span.start or not mention.context.startswith(front):
        return {context}
    behind = " ".join(mention.context[len(front) :].split())
    return {context, behind} if behind else {context}


def _leak(earlier: str, seen: _Seen, later: Split) -> Leak:
    by_id = [seen.has_id(mention) for mention in later.mentions]
    by_sentence = [seen.has_sentence(mention) for mention in later.mentions]
    leaked = [one for one, *why in zip(later.mentions, by_id, by_sentence, strict=True) if any(why)]
    return Leak(
        earlier=earlier,
        later=later.name,
        mention_ids=tuple(mention.id for mention in leaked),
        by_sentence=sum(by_sentence),
        by_id=sum(by_id),
        sentences=len({min(sentences_of(mention), key=len) for mention in leaked}),
        of=len(later.mentions),
    )


def _rank(name: str) -> int:
    return _ORDER.get(name.replace("_", "-").rpartition("-")[2], len(_ORDER))


def _without(split: Split, gone: set[MentionId]) -> Split:
    mentions = tuple(mention for mention in split.mentions if mention.id not in gone)
    return Split(name=split.name, mentions=mentions, gold={one.id: split.gold[one.id] for one in mentions})
