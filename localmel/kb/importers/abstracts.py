"""Abstracts of Wikipedia, as JSON lines or as a dump of DBpedia, and how their markup becomes plain prose.

In: a .jsonl file with `id` or `title` and `abstract` per line, or a .ttl/.nt file with one statement per line, as
DBpedia publishes long and short abstracts; either may be compressed.  Out: rows in file order, each with the id or the
page title of its subject; other statements and languages are skipped and counted.  Cleaning is linear in the length of
the text.  Knows no KB."""

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

from localmel.errors import BadInput
from localmel.kb.importers.ontology import JSON_LINES
from localmel.kb.importers.reading import Problems, clean, excerpt, parsed_lines, size_of, stem_suffix
from localmel.kb.importers.tables import json_object

STATEMENTS = (".ttl", ".nt")
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
    """One text and its subject."""

    entity_id: str
    "Empty if a title names the subject."
    title: str
    text: str
    source: str


class AbstractSource:
    """The abstracts of one file."""

    def __init__(self, path: Path, *, language: str = "en", problems: Problems) -> None:
        """`language` is the one to read where a text names its language; JSON lines never do."""
        if stem_suffix(path) not in JSON_LINES + STATEMENTS:
            known = ", ".join(JSON_LINES + STATEMENTS)
            fact = f"cannot tell what {path} holds by its suffix; abstracts are read from {known}"
            raise BadInput(f"{fact}, plain or compressed (.gz, .bz2, .zst)")
        self._path, self._language = path, language.casefold()
        self._problems = problems
        self.passed_over: Counter[str] = Counter()
        "Statements that are not abstracts in the language, by reason."

    @property
    def total_bytes(self) -> int:
        """Return the size of the file."""
        return size_of(self._path)

    def rows(self) -> Iterator[AbstractRow]:
        """Yield every abstract.  Lines that cannot be used are reported as problems."""
        read = self._from_json if stem_suffix(self._path) in JSON_LINES else self._from_statement
        for _, found in parsed_lines(self._path, self._problems, read):
            if found:
                yield AbstractRow(*found, str(self._path))

    def _from_json(self, line: str) -> tuple[str, str, str] | None:
        row = json_object(line)
        if unknown := sorted(row.keys() - _KEYS):
            raise ValueError(f"unknown key {unknown[0]!r}; the keys are abstract and either id or title")
        values = {key: row.get(key, "") for key in ("id", "title", "abstract")}
        for key, value in values.items():
            if not isinstance(value, str):
                raise ValueError(f"{key} is {excerpt(value)}, not a text")
        if bool(values["id"].strip()) == bool(values["title"].strip()) or "abstract" not in row:
            raise ValueError(f"a line needs an abstract and either an id or a title: {excerpt(line)}")
        return values["id"].strip(), page_title(values["title"]), values["abstract"]

    def _from_statement(self, line: str) -> tuple[str, str, str] | None:
        line = line.strip()
        if line.startswith("#"):
            return None
        found = _STATEMENT.fullmatch(line)
        if not found:
            if line.startswith(("@prefix", "@base", "PREFIX", "BASE")):
                raise ValueError("cannot read Turtle with prefixes; write one statement per line (N-Triples)")
            if not _OTHER.fullmatch(line):
                raise ValueError(f"not a statement of N-Triples: {excerpt(line)}")
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
    """Return a title in the spelling of its page: `new_York_City%2C` becomes `New York City,`."""
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


# --- prose ----------------------------------------------------------------------------------------------------------

MOST_CHARACTERS = 1000
"About 250 tokens, as many as a text encoder reads."
_READ = 64
"How many times the limit are looked at; the rest would be cut off anyway."
_LEAST = 80
_DEEPEST = 2
"How deeply nested brackets are looked into, from the inside."
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
    """An abstract as plain prose."""

    text: str
    was_cut: bool


def plain_abstract(raw: str, *, most: int = MOST_CHARACTERS) -> Abstract:
    """Return at most `most` characters of plain prose, cut at a sentence if need be; empty if nothing is left.

    Example: "'''Berlin''' (/bɜːrˈlɪn/) is a [[city]].[1]" becomes "Berlin is a city."."""
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
    """Remove every piece from `start` to `end`; one that never ends is left to the tags."""
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
    """Remove {{...}} with whatever is nested in it; brackets without a partner stay."""
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
    """Keep the parts of a bracket, between semicolons, that are neither empty nor a pronunciation."""
    parts = [part.strip() for part in bracket.group(1).split(";")]
    left = [part for part in parts if not _EMPTY_PART.fullmatch(part) and not _IPA.search(part)]
    return f"({'; '.join(left)})" if left else ""


def _cut(text: str, most: int) -> str:
    """Cut after the last sentence that fits, or after a word if that would leave little."""
    if len(text) <= most:
        return text
    ends = [match.end() for match in _END.finditer(text, 0, most + 1) if match.end() <= most and _is_end(text, match)]
    if ends and ends[-1] >= min(_LEAST, most // 2):
        return text[: ends[-1]]
    blank = text.rfind(" ", 0, most)
    return f"{text[: blank if blank > most // 2 else most - 1].rstrip(' ,;:')}…"


def _is_end(text: str, end: re.Match[str]) -> bool:
    """Tell whether a full stop ends a sentence: not after a single letter or an abbreviation."""
    if end.group()[0] != ".":
        return True
    before = _BEFORE_END.search(text, max(0, end.start() - 12), end.start())
    word = before.group(1).casefold() if before else ""
    return len(word) > 1 and word not in _ABBREVIATIONS
