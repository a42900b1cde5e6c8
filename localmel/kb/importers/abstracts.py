"""Abstracts of Wikipedia, as JSON lines or as a dump of DBpedia.

In: a .jsonl file with `id` or `title` and `abstract` a line, or a .ttl/.nt file with one statement a line, as DBpedia
publishes long and short abstracts; either may be compressed.  Out: rows in the order of the file, each with what it is
about, an id or the title of a page.  Other statements and languages are passed over and counted.  Knows no KB."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from localmel.errors import BadInput, ImportProblem
from localmel.kb.importers.lines import read_blocks, size_of, stem_suffix
from localmel.kb.importers.source import Problems, excerpt
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
