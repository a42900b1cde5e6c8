"""An abstract as it stands in a dump -> plain prose of bounded length.

In: text with wiki markup, HTML, pronunciations in brackets, control characters.  Out: one line of text, cut behind a
sentence where it is too long.  Every step is linear in the length of the text.  Knows no entity."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from localmel.kb.importers.lines import clean

MOST_CHARACTERS = 1000
"About 250 tokens: what a text encoder reads."
_READ = 64
"So many times the limit are looked at; what stands behind is cut off in any case."
_LEAST = 80
_DEEPEST = 2
"Brackets in brackets that are looked into, from the inside."
_REFERENCE, _REFERENCE_END = "<ref", "</ref>"
_COMMENT, _COMMENT_END = "<!--", "-->"
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_LINK = re.compile(r"\[\[([^\[\]|]*)(?:\|([^\[\]|]*))?[^\[\]]*\]\]")
_FILE = re.compile(r"(?:file|image|category|datei|fichier)\s*:", re.IGNORECASE)
_OUTSIDE_LINK = re.compile(r"\[https?://[^\s\[\]]*\s*([^\[\]]*)\]")
_MARK = re.compile(r"\[(?:\d{1,3}|note \d+|[a-z]|citation needed|edit)\]", re.IGNORECASE)
_QUOTES = re.compile(r"'{2,5}")
_HEADING = re.compile(r"={2,6}[^=]*={2,6}")
_BRACKET = re.compile(r"\(([^()]*)\)")
_IPA = re.compile(
    "[\u0250-\u02af\u02c8\u02cc\u02d0\u02d1]|/[^/\\s]{2,}/|\\blisten\\b|\\bIPA\\b|\\bpronunciation\\b|\\bpronounced\\b",
    re.I,
)
_SQUARE_IPA = re.compile("\\[[^\\[\\]]*[\u0250-\u02af\u02c8\u02cc\u02d0\u02d1][^\\[\\]]*\\]")
_EMPTY_PART = re.compile(r"[\s,.;:/\-–—]*")
_BEFORE_MARK = re.compile(r"\s+([,.;:!?)])")
_AFTER_OPENING = re.compile(r"\(\s+")
_COMMAS = re.compile(r",(?:\s)+")
_BLANKS = re.compile(r"\s+")
_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？][」』”’）]*")
_BEFORE_END = re.compile(r"(\w[\w.]*)$")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr st sr jr prof gen col lt capt sgt rev hon gov sen rep pres vs etc e.g i.e cf ca approx no nos vol "
    "fl d b r c inc ltd co corp bros dept univ u.s u.k ph.d".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstract:
    """Plain prose."""

    text: str
    was_cut: bool


def plain_abstract(raw: str, *, most: int = MOST_CHARACTERS) -> Abstract:
    """At most `most` characters of the text; empty where nothing is left of it."""
    text = html.unescape(raw[: most * _READ])
    text = _without(_without(text, _COMMENT, _COMMENT_END), _REFERENCE, _REFERENCE_END)
    text = _TAG.sub(" ", _without_templates(text))
    text = _LINK.sub(_shown, text)
    text = _OUTSIDE_LINK.sub(r"\1", text)
    text = _HEADING.sub(" ", _MARK.sub("", _QUOTES.sub("", text)))
    for _ in range(_DEEPEST):
        text = _BRACKET.sub(_without_pronunciation, text)
    text = _SQUARE_IPA.sub(" ", text)
    text = _BLANKS.sub(" ", clean(text))
    text = _COMMAS.sub(",", _AFTER_OPENING.sub("(", _BEFORE_MARK.sub(r"\1", text))).strip()
    if not any(char.isalnum() for char in text):
        return Abstract(text="", was_cut=False)
    return Abstract(text=_cut(text, most), was_cut=len(text) > most)


def _without(text: str, start: str, end: str) -> str:
    """The text without all pieces from `start` to `end`; one that never ends is left to the tags."""
    parts, place = [], 0
    while (begin := text.find(start, place)) >= 0:
        stop = text.find(end, begin)
        tag = text.find(">", begin)
        if start == _REFERENCE and tag > 0 and text[tag - 1] == "/":  # <ref name="a"/>
            stop, length = tag, 1
        else:
            length = len(end)
        if stop < 0:
            break
        parts.append(text[place:begin])
        place = stop + length
    parts.append(text[place:])
    return " ".join(parts)


def _without_templates(text: str) -> str:
    """Without {{...}}, whatever is nested in them; brackets without a partner stay."""
    if "{{" not in text:
        return text
    kept: list[str] = []
    opened: list[int] = []
    place = 0
    while place < len(text):
        pair = text[place : place + 2]
        if pair == "{{":
            opened.append(len(kept))
            kept.append(pair)
            place += 2
        elif pair == "}}" and opened:
            del kept[opened.pop() :]
            place += 2
        else:
            kept.append(text[place])
            place += 1
    return "".join(kept)


def _shown(link: re.Match[str]) -> str:
    target, label = link.group(1), link.group(2)
    return "" if _FILE.match(target.strip()) else (label or target)


def _without_pronunciation(bracket: re.Match[str]) -> str:
    """The parts of a bracket between semicolons that are no pronunciation and not empty."""
    parts = [part.strip() for part in bracket.group(1).split(";")]
    left = [part for part in parts if not _EMPTY_PART.fullmatch(part) and not _IPA.search(part)]
    return f"({'; '.join(left)})" if left else ""


def _cut(text: str, most: int) -> str:
    """Behind the last sentence that fits, unless little would be left of it; else behind a word."""
    if len(text) <= most:
        return text
    ends = [match.end() for match in _END.finditer(text, 0, most + 1) if match.end() <= most and _is_end(text, match)]
    if ends and ends[-1] >= min(_LEAST, most // 2):
        return text[: ends[-1]]
    blank = text.rfind(" ", 0, most)
    return f"{text[: blank if blank > most // 2 else most - 1].rstrip(' ,;:')}…"


def _is_end(text: str, end: re.Match[str]) -> bool:
    """Not where a single letter, or an abbreviation, stands before the full stop."""
    if end.group()[0] != ".":
        return True
    before = _BEFORE_END.search(text, max(0, end.start() - 12), end.start())
    word = before.group(1).casefold() if before else ""
    return len(word) > 1 and word not in _ABBREVIATIONS
