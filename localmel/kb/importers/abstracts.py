"""Abstracts of Wikipedia, as JSON lines or as a dump of DBpedia.

In: a .jsonl file with `id` or `title` and `abstract` a line, or a .ttl/.nt file with one statement a line, as DBpedia
publishes long and short abstracts; either may be compressed.  Out: rows in the order of the file, each with what it is
about, an id or the title of a page.  Other statements and languages are passed over and counted.  Knows no KB."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from localmel.errors import BadInput, ImportProblem
from localmel.kb.importers.reading import Problems, clean, excerpt, read_blocks, size_of, stem_suffix
from localmel.kb.importers.tables import json_object

JSON_LINES, STATEMENTS = (".jsonl", ".ndjson", ".json"), (".ttl", ".nt")
OTHER_LANGUAGE, OTHER_STATEMENT = "in another language", "another statement"
_PREDICATES = frozenset(
    (
        "http://dbpedia.org/ontology/abstract",
        "http://www.w3.org/2000/01/rdf-schema#comment",
        "http://schema.org/abstract",
        "http://schema.org/description",
    )
)
_ID = re.compile(r"https?://(?:www\.)?wikidata\.(?:org/(?:entity|wiki)|dbpedia\.org/resource)/(Q[1-9]\d*)")
_TITLE = re.compile(r"https?://(?:[\w-]+\.)?(?:dbpedia\.org/resource|(?:m\.)?wikipedia\.org/wiki)/(.+)")
_STATEMENT = re.compile(
    r'<([^<>\s]*)>\s+<([^<>\s]*)>\s+"([^"\\]*(?:\\.[^"\\]*)*)"(?:@([\w-]+)|\^\^<[^<>\s]*>)?\s*\.\s*'
)
_OTHER = re.compile(r"(?:<[^<>\s]*>|_:\S+)\s+<[^<>\s]*>\s+(?:<[^<>\s]*>|_:\S+)\s*\.\s*")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPED = {"t": " ", "n": " ", "r": " ", "b": " ", "f": " ", '"': '"', "'": "'", "\\": "\\"}
_KEYS = frozenset({"id", "title", "abstract"})


class AbstractRow(NamedTuple):
    """One text, and what it is about."""

    entity_id: str
    "Empty where a title says it."
    title: str
    text: str
    source: str
    line: int


class AbstractSource:
    """The abstracts of one file."""

    def __init__(
        self,
        path: Path,
        *,
        language: str = "en",
        problems: Problems,
    ) -> None:
        """language: that of a text that names one; JSON lines name none."""
        if stem_suffix(path) not in JSON_LINES + STATEMENTS:
            known = ", ".join(JSON_LINES + STATEMENTS)
            raise BadInput(f"{path} is no file of abstracts by its name; read are {known}, plain or .gz, .bz2, .zst")
        self._path, self._language = path, language.casefold()
        self._problems = problems
        self.passed_over: Counter[str] = Counter()
        "What was read and is no abstract in the language, by reason."

    @property
    def total_bytes(self) -> int:
        """The size of the file."""
        return size_of(self._path)

    def rows(self) -> Iterator[AbstractRow]:
        """Every abstract.  Lines that cannot be used are reported as problems."""
        read = self._from_json if stem_suffix(self._path) in JSON_LINES else self._from_statement
        source = str(self._path)
        for block in read_blocks(self._path, self._problems):
            for number, line in enumerate(block.lines, block.first):
                if not line or line.isspace():
                    continue
                try:
                    found = read(line)
                except ValueError as error:
                    self._problems.report(ImportProblem(str(error), source=source, line=number))
                    continue
                if found:
                    entity_id, title, text = found
                    yield AbstractRow(entity_id, title, text, source, number)

    def _from_json(self, line: str) -> tuple[str, str, str]:
        row = json_object(line)
        if unknown := sorted(row.keys() - _KEYS):
            raise ValueError(f"unknown key {unknown[0]!r}; known are id or title, and abstract")
        values = {key: row.get(key, "") for key in ("id", "title", "abstract")}
        for key, value in values.items():
            if not isinstance(value, str):
                raise ValueError(f"{key} is {excerpt(value)}, not a text")
        if bool(values["id"].strip()) == bool(values["title"].strip()) or "abstract" not in row:
            raise ValueError(f"needed are id or title, one of them, and abstract: {excerpt(line)}")
        return values["id"].strip(), page_title(values["title"]), values["abstract"]

    def _from_statement(self, line: str) -> tuple[str, str, str] | None:
        line = line.strip()
        if line.startswith("#"):
            return None
        found = _STATEMENT.fullmatch(line)
        if not found:
            if line.startswith(("@prefix", "@base", "PREFIX", "BASE")):
                raise ValueError("Turtle with prefixes is not read; write one statement a line (N-Triples)")
            if not _OTHER.fullmatch(line):
                raise ValueError(f"no statement of N-Triples: {excerpt(line)}")
            self.passed_over[OTHER_STATEMENT] += 1
            return None
        subject, predicate, text, language = found.groups()
        if predicate not in _PREDICATES:
            self.passed_over[OTHER_STATEMENT] += 1
            return None
        if language and language.casefold() != self._language:
            self.passed_over[OTHER_LANGUAGE] += 1
            return None
        if about := _ID.fullmatch(subject):
            return about.group(1), "", _unescaped(text)
        if about := _TITLE.fullmatch(subject):
            return "", page_title(_unescaped(about.group(1))), _unescaped(text)
        raise ValueError(f"{excerpt(subject)} is neither a page of Wikipedia nor an entity of Wikidata")


def page_title(text: str) -> str:
    """A title as a page bears it: `new_York_City%2C` and `New York City,` are one."""
    title = unicodedata.normalize("NFC", unquote(text, errors="replace")).replace("_", " ")
    title = " ".join(title.split())
    return title[:1].upper() + title[1:]


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(found: re.Match[str]) -> str:
    short, long, other = found.groups()
    if other:
        return _ESCAPED.get(other, other)
    code = int(short or long, 16)
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else "\ufffd"


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
_COMMAS = re.compile(r",(?:\s*,)+")
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
