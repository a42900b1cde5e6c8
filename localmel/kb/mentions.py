"""Find the names in a text: marked by the user, listed by the user, or detected from the KB's names.

In: a text.  Out: spans, in order, without overlap; every span slices back to its surface.  Knows no picture and
does not decide which entity is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from localmel.errors import BadInput, BadMention
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import CAPTION_WORDS, FUNCTION_WORDS, MONTHS, TITLES, WEEKDAYS, fold
from localmel.records import Span

MOST_CHARACTERS = 20_000
_LONGEST_NAME = 8  # words
_LONGEST_UNSPACED = 12  # characters of a name in a script without blanks
_MARK = re.compile(r"\[\[(?!\[)((?:(?!\[\[).)*?)\]\]", re.DOTALL)
_WORD = re.compile(r"\w+(?:[.'’&\-–]\w+)*\.?")
_POSSESSIVE = re.compile(r"['’]s?$|(?<=[^.].)\.$")
_SENTENCE_END = '.!?:;"“«('
_BEFORE_DATE = re.compile(
    r"(?:\d|\b(?:in|on|since|until|till|by|from|during|of|early|late|mid|last|next|this|between))[\s,-]*\Z", re.I
)
_AFTER_DATE = re.compile(r"[\s,.-]*\d")
_LONGEST_UNKNOWN = 3
"Most words of a capitalised run that counts as one name although no name of the KB holds them all."
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def check_text(text: str) -> None:
    """Refuse an empty text, and one longer than any caption."""
    if len(text) > MOST_CHARACTERS:
        raise BadInput(
            f"the text has {len(text):,} characters, more than the {MOST_CHARACTERS:,} that localmel reads",
            hint="pass the sentences around the names",
        )
    if not text.strip():
        raise BadInput("the text is empty", hint='localmel link IMAGE "a sentence with a name in it"')


def marked_mentions(text: str) -> tuple[str, list[Span]]:
    """Return the text without its marks, and the marked spans: "[[Jordan]] dunks" gives ("Jordan dunks", [0:6]).

    Brackets without a partner stay in the text, the innermost ones count, and spans leave blanks at their ends out."""
    pieces: list[str] = []
    spans: list[Span] = []
    length = end = 0
    for mark in _MARK.finditer(text):
        surface = mark.group(1)
        if not surface.strip():
            raise BadMention("a mention in [[ ]] is empty", hint="put the name between the brackets: [[Jordan]]")
        before = text[end : mark.start()]
        length += len(before)
        start = length + len(surface) - len(surface.lstrip())
        spans.append(Span(start=start, end=start + len(surface.strip())))
        length += len(surface)
        pieces += [before, surface]
        end = mark.end()
    return "".join([*pieces, text[end:]]), spans


def listed_mentions(text: str, surfaces: Sequence[str], marked: Sequence[Span] = ()) -> list[Span]:
    """Return the span of each surface, the next free one if a surface is listed again, together with those `marked`.

    Raises BadMention if a surface is not in the text, or only where another mention is."""
    taken = _Taken(text)
    for span in marked:
        taken.take(span)
    for surface in surfaces:
        if not surface.strip():
            raise BadMention("a mention is empty", hint="--mention NAME")
        places = chain(_occurrences(text, surface, whole_word=True), _occurrences(text, surface, whole_word=False))
        if not any(taken.take(place) for place in places):
            if any(_occurrences(text, surface, whole_word=False)):
                raise BadMention(
                    f"mention {surface!r} is in the text only where another mention is",
                    hint="list each place once, and only one of two names that overlap",
                )
            raise BadMention(
                f"mention {surface!r} is not in the text",
                hint="write it exactly as in the text, or leave it out: localmel then detects names",
            )
    return taken.spans()


def _occurrences(text: str, surface: str, *, whole_word: bool) -> Iterator[Span]:
    edge = r"\b" if whole_word else ""
    before = edge if surface[0].isalnum() else ""
    after = edge if surface[-1].isalnum() else ""
    for flags in (0, re.IGNORECASE):
        for match in re.finditer(before + re.escape(surface) + after, text, flags):
            yield Span(start=match.start(), end=match.end())


def detected_mentions(text: str, kb: KnowledgeBase) -> list[Span]:
    """Return the names of the KB in the text: the longest first, then single words.

    Function words, dates and numbers are not names.  Adjacent capitalised words are one name, even one that the KB does
    not know; a title before or after it (Mayor, President) does not belong to it.  A word in lower case counts only if
    the KB writes it so and knows a proper name as well (jaguar, Jaguar), the first word of a sentence only if the KB
    writes it with a capital."""
    words = _words(text)
    single = {(word.start, word.end) for word in words}
    whole = _whole_names(text, words, kb)
    taken = _Taken(text)
    for span in sorted(whole, key=lambda span: (span.start - span.end, span.start)):
        if (span.start, span.end) not in single or fold(text[span.start : span.end]) in FUNCTION_WORDS:
            taken.take(span)
    for span in _capitalised_names(text, [word for word in words if taken.is_free(word)], whole, kb):
        taken.take(span)
    for span in whole:
        if text[span.start].islower() or not text[span.start].isupper():
            taken.take(span)
    return taken.spans()


class _Taken:
    """The spans of one text that are taken, without overlap."""

    def __init__(self, text: str) -> None:
        self._spans: list[Span] = []
        self._covered = bytearray(len(text))

    def is_free(self, span: Span) -> bool:
        return self._covered.find(1, span.start, span.end) < 0

    def take(self, span: Span) -> bool:
        """Add the span if its place is free, and tell whether it was."""
        if not self.is_free(span):
            return False
        self._spans.append(span)
        self._covered[span.start : span.end] = b"\1" * (span.end - span.start)
        return True

    def spans(self) -> list[Span]:
        return sorted(self._spans, key=lambda span: span.start)


def _words(text: str) -> list[Span]:
    """Return the words without a possessive or a full stop at their end ("U.S." keeps its own)."""
    return [span for match in _WORD.finditer(text) if (span := _trimmed(match.start(), match.group()))]


def _trimmed(start: int, surface: str) -> Span | None:
    if surface.endswith(".") and surface.count(".") == 1:
        surface = surface[:-1]
    surface = _POSSESSIVE.sub("", surface)
    return Span(start=start, end=start + len(surface)) if surface else None


def _whole_names(text: str, words: Sequence[Span], kb: KnowledgeBase) -> list[Span]:
    """Return the runs of words that are a name of the KB."""
    runs: dict[str, list[Span]] = {}
    for span in _runs(text, words):
        surface = text[span.start : span.end]
        folded = fold(surface)
        words_of_it = folded.split()
        if all(map(str.isdigit, words_of_it)):
            continue
        if not FUNCTION_WORDS.issuperset(words_of_it) or _is_capitalised_name(text, surface):
            runs.setdefault(folded, []).append(span)
    names: dict[str, set[str]] = {}
    for folded, name in kb.select_in("SELECT folded, text FROM names WHERE folded IN ({})", list(runs)):
        names.setdefault(folded, set()).add(name)
    return [
        span
        for folded, spellings in names.items()
        for span in runs[folded]
        if _written_as_a_name(text, span, spellings)
    ]


def _runs(text: str, words: Sequence[Span]) -> Iterator[Span]:
    for first, word in enumerate(words):
        for last in words[first : first + _LONGEST_NAME]:
            if "\n\n" in text[word.start : last.end]:
                break
            yield Span(start=word.start, end=last.end)
        if _UNSPACED.search(text, word.start, word.end):
            for start in range(word.start, word.end):
                for end in range(start + 2, min(word.end, start + _LONGEST_UNSPACED) + 1):
                    yield Span(start=start, end=end)


def _is_capitalised_name(text: str, surface: str) -> bool:
    """Tell whether only capitals make a name of function words (US, WHO, The Who), in a text not all in capitals."""
    return len(surface) > 1 and not text.isupper() and (surface.isupper() or (" " in surface and surface.istitle()))


def _written_as_a_name(text: str, span: Span, spellings: set[str]) -> bool:
    surface = text[span.start : span.end]
    if _is_date(text, span) or (_starts_sentence(text, span) and fold(surface) in CAPTION_WORDS):
        return False
    if FUNCTION_WORDS.issuperset(fold(surface).split()):
        return surface in spellings or (surface.isupper() and any(map(str.isupper, spellings)))
    if surface in spellings and (len(surface) > 2 or not surface.islower()):
        if surface.islower() and " " not in surface and surface != surface.upper():
            return not _starts_sentence(text, span) and any(name != name.lower() for name in spellings)
        return not _starts_sentence(text, span) or not surface.islower()
    if surface == surface.lower() and surface != surface.upper():
        return False
    if _starts_sentence(text, span) or surface.isupper():
        return any(name != name.lower() for name in spellings)
    return True


def _starts_sentence(text: str, span: Span) -> bool:
    before = text[: span.start].rstrip()
    return not before or before[-1] in _SENTENCE_END or "\n" in text[len(before) : span.start]


def _capitalised_names(text: str, words: Sequence[Span], whole: Sequence[Span], kb: KnowledgeBase) -> list[Span]:
    """Return the runs of capitalised words that are names: known as a whole, part of a name, or unknown."""
    known = {(span.start, span.end) for span in whole}
    found: list[Span] = []
    for run in _capitalised_runs(text, words, known):
        span = Span(start=run[0].start, end=run[-1].end)
        unknown = 1 < len(run) <= _LONGEST_UNKNOWN and not text[span.start : span.end].isupper()
        if (span.start, span.end) in known or unknown or _is_part_of_a_name(text, span, kb):
            found.append(span)
        else:
            found += _named_parts(text, run, kb)
    return found


def _capitalised_runs(text: str, words: Sequence[Span], known: set[tuple[int, int]]) -> list[list[Span]]:
    """Return runs of capitalised words with single blanks between them; titles, function words and dates end a run."""
    runs: list[list[Span]] = []
    for span in words:
        folded = fold(text[span.start : span.end])
        if not text[span.start].isupper() or span.end - span.start == 1:
            continue
        if folded in TITLES | FUNCTION_WORDS and (span.start, span.end) not in known:
            continue
        if _is_date(text, span) or (_starts_sentence(text, span) and folded in CAPTION_WORDS):
            continue
        if runs and text[runs[-1][-1].end : span.start] == " ":
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs


def _is_date(text: str, span: Span) -> bool:
    """Tell whether this is a weekday, or a month next to a number or a word of time ("in May", not "Theresa May")."""
    folded = fold(text[span.start : span.end])
    if folded in WEEKDAYS or folded not in MONTHS:
        return folded in WEEKDAYS
    return bool(_BEFORE_DATE.search(text[max(span.start - 40, 0) : span.start]) or _AFTER_DATE.match(text, span.end))


def _named_parts(text: str, run: list[Span], kb: KnowledgeBase) -> list[Span]:
    """Return the longest pieces of a run of capitalised words that one name holds."""
    taken = _Taken(text)
    for length in range(min(len(run), _LONGEST_NAME), 0, -1):
        for first, last in zip(run, run[length - 1 :], strict=False):
            span = Span(start=first.start, end=last.end)
            if taken.is_free(span) and _is_part_of_a_name(text, span, kb):
                taken.take(span)
    return taken.spans()


def _is_part_of_a_name(text: str, span: Span, kb: KnowledgeBase) -> bool:
    folded = fold(text[span.start : span.end])
    if not folded:
        return False
    query = " ".join(f'"{word}"' for word in folded.split())
    sql = "SELECT n.folded FROM name_words w JOIN names n ON n.name = w.rowid WHERE name_words MATCH ? LIMIT 200"
    names = [name for (name,) in kb.select(sql, (query,))]
    if _starts_sentence(text, span) and " " not in folded:
        return any(name.endswith(f" {folded}") for name in names)
    return bool(names)
