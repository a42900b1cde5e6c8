"""Which names and years of a text stand in no source.

In: a text that was written about an entity, and the texts it could have been written from.  Out: what stands in none
of them, in the order of the text.  A name is a run of capitalised words; it stands in a source when its words do, side
by side and folded as the KB folds names; a title or an article before it does not count, and the people of a place
stand where the place does ("Dutch" and Netherlands).  Names in scripts without capitals are not seen, nor is a
word that opens a sentence and usually does so.  Knows no KB and no model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from localmel.kb.words import FUNCTION_WORDS, MONTHS, TITLES, WEEKDAYS, fold_mention, places_of

_WORD = re.compile(r"[^\W\d_][\w'’&-]*(?:\.[^\W\d_][\w'’&-]*)*")
_INSIDE = frozenset("of de del della der den di da do dos du van von zu la le el al bin ibn".split())
"Small words that names have inside, each of which `the` may follow."
_BETWEEN = frozenset("and in on at for".split())
"Small words that may stand inside a name, or between two."
_SMALL = _INSIDE | _BETWEEN | {"the"}
_MOST_SMALL = 3
_YEAR = re.compile(r"(?<![\w.,-])(1\d{3}|20\d{2})(s?)(?![\w]|[.,]\d)|(?<![\w.,])(\d{1,3})\s*(?:BC|BCE|AD|CE)\b")
_ERAS = frozenset(("BC", "BCE", "AD", "CE"))
_DIGITS = re.compile(r"\d+")
_OPENS = re.compile(r"(?:^|[.!?:;…]['\"”’)]*\s|[\"“«(])\s*\Z")
_SHORT = frozenset("st dr mr mrs ms jr sr mt ft".split())
_OPENERS = frozenset(
    "born died known although however currently formerly originally following despite often sometimes besides it "
    "its it's another many there".split()
)
_NO_NAMES = FUNCTION_WORDS | MONTHS | WEEKDAYS | _OPENERS
_OPENING_ENDINGS = ("ed", "ing", "ly")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ungrounded:
    """What a text says that no source does."""

    names: tuple[str, ...] = ()
    years: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names or self.years)


def ungrounded(text: str, sources: Iterable[str]) -> Ungrounded:
    """Names and years of `text` that stand in none of the sources, each once."""
    every = list(sources)
    folded = [f" {fold_mention(source)} " for source in every]
    numbers = {number.lstrip("0") for source in every for number in _DIGITS.findall(source)}
    names = dict.fromkeys(name for run in _runs(text) for name in _unknown(text, run, folded))
    return Ungrounded(names=tuple(names), years=tuple(dict.fromkeys(_unknown_years(text, numbers))))


# --- years ----------------------------------------------------------------------------------------------------------


def _unknown_years(text: str, numbers: set[str]) -> Iterator[str]:
    for found in _YEAR.finditer(text):
        year, decade, early = found.groups()
        if decade:
            known = any(len(number) == 4 and number.startswith(year[:3]) for number in numbers)
        else:
            known = (year or early).lstrip("0") in numbers
        if not known:
            yield found.group()


# --- names ----------------------------------------------------------------------------------------------------------

_Run = list[re.Match[str]]


def _runs(text: str) -> Iterator[_Run]:
    """Capitalised words that follow one another, with the small words inside."""
    run: _Run = []
    small: _Run = []
    for token in _WORD.finditer(text):
        if run and not _follows(text, (small or run)[-1], token):
            yield run
            run, small = [], []
        word = token.group()
        if (word[0].isupper() or word[0].istitle()) and word not in _ERAS:
            run, small = [*run, *small, token], []
        elif run and (word in _INSIDE | _BETWEEN or (word == "the" and small)) and len(small) < _MOST_SMALL:
            small.append(token)
        elif run:
            yield run
            run, small = [], []
    if run:
        yield run


def _follows(text: str, last: re.Match[str], token: re.Match[str]) -> bool:
    """Whether nothing but blanks stands between; or the full stop of an initial or a short form."""
    gap, word = text[last.end() : token.start()], last.group()
    return not gap.strip() or (gap.strip() == "." and (len(word) == 1 or word.casefold() in _SHORT))


def _unknown(text: str, run: _Run, sources: Sequence[str]) -> Iterator[str]:
    """The names in a run that stand in no source: the run itself, or what stands between its `and` and `in`."""
    run = _without_opener(text, run)
    if not run or _stands(_words(text, run), sources):
        return
    parts: list[_Run] = [[]]
    for token in run:
        if token.group() in _BETWEEN:
            parts.append([])
        else:
            parts[-1].append(token)
    for part in parts:
        if not _stands(words := _words(text, part), sources):
            yield words


def _without_opener(text: str, run: _Run) -> _Run:
    """Without a first word that has its capital from the beginning of a sentence only."""
    word = run[0].group().casefold()
    if not _OPENS.search(text, max(0, run[0].start() - 8), run[0].start()):
        return run
    opener = word in _NO_NAMES or (len(run) == 1 and word.endswith(_OPENING_ENDINGS))
    return run[1:] if opener else run


def _words(text: str, run: _Run) -> str:
    """The run as it stands, without small words at its ends."""
    inner = list(run)
    while inner and inner[0].group() in _SMALL:
        inner.pop(0)
    while inner and inner[-1].group() in _SMALL:
        inner.pop()
    return text[inner[0].start() : inner[-1].end()] if inner else ""


def _stands(name: str, sources: Sequence[str]) -> bool:
    """Whether a source has the name; also without the titles, articles and peoples before it."""
    words = fold_mention(name).split()
    while words:
        folded = " ".join(words)
        if any(f" {folded} " in source for source in sources):
            return True
        if any(f" {place} " in source for place in places_of(folded) for source in sources):
            return True
        people = any(f" {place} " in source for place in places_of(words[0]) for source in sources)
        if words[0] not in TITLES | _NO_NAMES and not people:
            return False
        words = words[1:]
    return True
