"""Find the names and years of a text that no source has.

In: a text that was written about an entity, and the texts it could have been written from.  Out: what none of them has,
in the order of the text.  A name is a run of capitalised words; a source has it if its words follow one another there,
folded as the KB folds names.  A title or an article before it does not count, and a source that has a place has its
people ("Dutch" and Netherlands).  Names in scripts without capitals are not seen, nor are words that usually open a
sentence.  Knows no KB and no model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from localmel.kb.words import FUNCTION_WORDS, MONTHS, TITLES, WEEKDAYS, fold_mention, places_of

_WORD = re.compile(r"[^\W\d_][\w'’&-]*(?:\.[^\W\d_][\w'’&-]*)*")
_INSIDE = frozenset("of de del della der den di da do dos du van von zu la le el al bin ibn".split())
"Small words inside names; `the` may follow each."
_BETWEEN = frozenset("and in on at for".split())
"Small words inside a name or between two."
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
    """The names and years of a text that no source has."""

    names: tuple[str, ...] = ()
    years: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names or self.years)


def ungrounded(text: str, sources: Iterable[str]) -> Ungrounded:
    """Return the names and years of `text` that none of the sources has, each once."""
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
    """Yield runs of capitalised words, with the small words inside."""
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
    """Tell whether only blanks separate two words, or the full stop of an initial or an abbreviation."""
    gap, word = text[last.end() : token.start()], last.group()
    return not gap.strip() or (gap.strip() == "." and (len(word) == 1 or word.casefold() in _SHORT))


def _unknown(text: str, run: _Run, sources: Sequence[str]) -> Iterator[str]:
    """Yield the names in a run that no source has: the run itself, or its parts around `and`, `in` and the like."""
    run = _without_opener(text, run)
    if not run or _is_in(_words(text, run), sources):
        return
    parts: list[_Run] = [[]]
    for token in run:
        if token.group() in _BETWEEN:
            parts.append([])
        else:
            parts[-1].append(token)
    for part in parts:
        if not _is_in(words := _words(text, part), sources):
            yield words


def _without_opener(text: str, run: _Run) -> _Run:
    """Drop a first word that is capitalised only because it opens a sentence."""
    word = run[0].group().casefold()
    if not _OPENS.search(text, max(0, run[0].start() - 8), run[0].start()):
        return run
    opener = word in _NO_NAMES or (len(run) == 1 and word.endswith(_OPENING_ENDINGS))
    return run[1:] if opener else run


def _words(text: str, run: _Run) -> str:
    """Return the text of the run without small words at its ends."""
    inner = list(run)
    while inner and inner[0].group() in _SMALL:
        inner.pop(0)
    while inner and inner[-1].group() in _SMALL:
        inner.pop()
    return text[inner[0].start() : inner[-1].end()] if inner else ""


def _is_in(name: str, sources: Sequence[str]) -> bool:
    """Tell whether a source has the name, perhaps without the titles, articles and demonyms before it."""
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
