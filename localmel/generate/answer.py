"""Read strictly what an answer says of each name.

In: the text of a model, and the names it was asked about.  Out: for each name what is said of it, or why that cannot be
read.  Knows no picture and no mention.  An answer whose tokens ran out is read as far as it is whole.

An answer is JSON under the schema made here or, for models that cannot follow a schema, the three steps of the KGMEL
paper as lines:

    ### Step 1: Entity Type
    - "NAME": type
    ### Step 2: Entity Description
    - "NAME": one sentence
    ### Step 3: Triples
    - "NAME" | relation | object | text or image

A line belongs to the name at its beginning, letter by letter, with nothing but quotes, list marks and emphasis around
it; never to a name that merely begins alike.  Lines before the first heading and lines of no name are skipped."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

LONGEST_SUMMARY = 240
LONGEST_TAIL = 80
"Characters."
_SAYS_NOTHING = frozenset(
    ",unknown,none,n/a,na,null,nothing,unspecified,not specified,not applicable,no triple".split(",")
)
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
EvidenceSource = Literal["text", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The entity types and relations that an answer may use."""

    entity_types: tuple[str, ...]
    relations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidTriple:
    """Relation and tail of a triple whose head is the name."""

    relation: str
    tail: str
    source: EvidenceSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The statements of an answer about one name."""

    entity_type: str = ""
    summary: str = ""
    triples: tuple[SaidTriple, ...] = ()
    whole: bool = True
    "False if the answer ended in the middle of it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """The reason why nothing can be read of one name."""

    problem: str


Reading = dict[str, Said | Unread]
"Name -> what is said of it, for every name that was asked about."


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Return the entity types and relations of vocabulary.toml."""
    table = tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text(encoding="utf-8"))
    return Vocabulary(entity_types=tuple(table["entity_types"]), relations=tuple(table["relations"]))


def schema_for(labels: Sequence[str], *, most_triples: int, with_image: bool, max_tokens: int) -> dict[str, Any]:
    """Return the JSON schema of an answer: an object whose keys are exactly these names, in this order.

    Texts are limited so that one name with a triple fits into `max_tokens` of 256 or more even if each token is a
    single character; so a model that would never stop by itself still finishes."""
    words = vocabulary()
    triple = _object(
        {
            "relation": {"type": "string", "enum": list(words.relations)},
            "tail": {"type": "string", "minLength": 1, "maxLength": max(16, min(LONGEST_TAIL, max_tokens // 8))},
            "evidence": {"type": "string", "enum": ["text", "image"] if with_image else ["text"]},
        }
    )
    longest_summary = max(16, min(LONGEST_SUMMARY, max_tokens // 4))
    entry = _object(
        {
            "type": {"type": "string", "enum": list(words.entity_types)},
            "description": {"type": "string", "minLength": 1, "maxLength": longest_summary},
            "triples": {"type": "array", "items": triple, "minItems": 0, "maxItems": most_triples},
        }
    )
    return _object(dict.fromkeys(labels, entry))


def read_json(text: str, labels: Sequence[str], *, most_triples: int, cut_off: bool) -> Reading:
    """Read an answer under `schema_for`; `cut_off` says that its tokens ran out before it ended."""
    partial = False
    try:
        said = _loads(text)
    except _NotJson as error:
        if not cut_off:
            return dict.fromkeys(labels, Unread(problem=str(error)))
        whole, partial = _whole_part(text)
        try:
            said = _loads(whole)
        except _NotJson:
            return dict.fromkeys(labels, Unread(problem="the answer was cut off before it said anything"))
    last = next(reversed(said), None) if partial else None
    return {
        label: _entry(said, label, most_triples=most_triples, whole=label != last, cut_off=cut_off) for label in labels
    }


def says_something(tail: str) -> bool:
    """Tell whether a text says anything: not "unknown", "none" and the like, nor one without a letter or digit."""
    plain = " ".join(tail.casefold().split()).strip(" .!?*-–—_\"'()[]")
    return plain not in _SAYS_NOTHING and any(char.isalnum() for char in plain)


def tidy(text: str) -> str:
    """Return the text as one line without control characters and lone surrogates, which no file can hold."""
    return " ".join(_CONTROLS.sub(" ", text).split())


class _NotJson(ValueError):
    """An answer that is not a JSON object, or repeats a key."""


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _loads(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text, object_pairs_hook=_once, strict=False)  # grammars let tabs through
    except (ValueError, RecursionError) as error:
        raise _NotJson(f"the answer is not JSON ({error})") from None
    if not isinstance(said, dict):
        raise _NotJson(f"the answer is {type(said).__name__}, not an object")
    return said


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key repeats")
    return found


def _entry(said: Mapping[str, Any], label: str, *, most_triples: int, whole: bool, cut_off: bool) -> Said | Unread:
    if label not in said:
        return Unread(problem="the answer was cut off before this name" if cut_off else "the answer lacks this name")
    entry, words = said[label], vocabulary()
    try:
        kind, summary, triples = entry["type"], entry["description"], entry["triples"]
        if kind not in words.entity_types or not isinstance(summary, str) or not isinstance(triples, list):
            raise ValueError(f"type {kind!r:.60}, description {summary!r:.60}, triples {triples!r:.60}")
        found = [_triple(triple, words) for triple in triples[:most_triples]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Unread(problem=f"its entry for this name does not fit the schema ({type(error).__name__}: {error})")
    return Said(
        entity_type=kind,
        summary=tidy(summary)[:LONGEST_SUMMARY],
        triples=tuple(dict.fromkeys(one for one in found if says_something(one.tail))),
        whole=whole,
    )


def _triple(said: Mapping[str, Any], words: Vocabulary) -> SaidTriple:
    relation, tail, source = said["relation"], said["tail"], said["evidence"]
    if relation not in words.relations or not isinstance(tail, str) or source not in ("text", "image"):
        raise ValueError(f"triple {said!r:.100}")
    return SaidTriple(relation=relation, tail=tidy(tail)[:LONGEST_TAIL].strip(), source=source)


def _whole_part(text: str) -> tuple[str, bool]:
    """Cut JSON after its last whole object or list and close what is open there.

    Returns it with whether a name was open there, so that its entry may lack something."""
    open_, in_text, escaped = "", False, False
    end, still_open = 0, ""
    for place, char in enumerate(text):
        if in_text:
            in_text = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_text = True
        elif char in "{[":
            open_ += "}" if char == "{" else "]"
        elif char in "}]":
            if not open_.endswith(char):
                break
            open_ = open_[:-1]
            end, still_open = place + 1, open_
    return text[:end] + still_open[::-1], len(still_open) > 1


_HEADING = re.compile(r"[\s#*_]*step\s*([123])\b", re.IGNORECASE)
_LIST_MARK = re.compile(r"[\s|]*(?:[-*•–+]|\d{1,3}[.)])?[\s|]*")
_EMPHASIS = re.compile(r"[*_`]*")
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "'": "'", "‘": "’", "": ""}
_LONGEST_RELATION, _LONGEST_TYPE = 60, 40
_MOST_WORDS = 5
"Most words of a relation or type outside the vocabulary; anything longer is a sentence."


def read_lines(text: str, labels: Sequence[str], *, most_triples: int, cut_off: bool) -> Reading:
    """Read an answer as lines; never raises.  If its tokens ran out (`cut_off`), its last line may be partial."""
    lines = text.splitlines()
    if cut_off and not text.endswith("\n"):
        lines = lines[:-1]
    types: dict[str, str] = {}
    summaries: dict[str, str] = {}
    triples: dict[str, list[SaidTriple]] = {}
    longest_first = sorted(set(labels), key=len, reverse=True)
    step, steps, last = 0, set(), None
    for line in lines:
        if heading := _HEADING.match(line):
            step = int(heading[1])
            steps.add(step)
        elif step and (named := _named(line, longest_first, "|" if step == 3 else ":|")):
            label, rest = named
            if step == 1:
                types.setdefault(label, _type(rest))
            elif step == 2:
                summaries.setdefault(label, tidy(rest)[:LONGEST_SUMMARY])
            elif triple := _line_triple(rest):
                triples.setdefault(label, []).append(triple)
                last = label
    if 3 not in steps and not cut_off:
        return dict.fromkeys(labels, Unread(problem="the answer has no heading for step 3"))
    reading: Reading = {}
    for label in labels:
        if label not in types and label not in summaries and label not in triples:
            reading[label] = Unread(problem="no line of the answer begins with this name")
            continue
        reading[label] = Said(
            entity_type=types.get(label, ""),
            summary=summaries.get(label, ""),
            triples=tuple(dict.fromkeys(triples.get(label, ())))[:most_triples],
            whole=not cut_off or (label in triples and label != last),
        )
    return reading


def _named(line: str, longest_first: Sequence[str], separators: str) -> tuple[str, str] | None:
    """Return the name at the beginning of a line and the rest after its separator."""
    mark = _LIST_MARK.match(line)
    begins = {len(line) - len(line.lstrip()), mark.end() if mark else 0}  # "1. FC Köln" begins like a list
    for label in longest_first:
        for begin in begins:
            rest = _behind(line, begin, label)
            if rest is not None and rest[:1] in tuple(separators):
                return label, rest[1:]
    return None


def _behind(line: str, begin: int, label: str) -> str | None:
    """Return the rest after the label, its quotes and its emphasis; None if the line has another text there."""
    begin = _skipped(_EMPHASIS, line, begin) if not line.startswith(label, begin) else begin
    for opening, closing in _QUOTES.items():
        if line.startswith(opening + label + closing, begin):
            end = _skipped(_EMPHASIS, line, begin + len(opening + label + closing))
            return line[end:].lstrip()
    return None


def _skipped(marks: re.Pattern[str], line: str, begin: int) -> int:
    found = marks.match(line, begin)
    return found.end() if found else begin


def _type(rest: str) -> str:
    plain = tidy(rest).strip(" .*_\"'`|")
    known = {one.casefold(): one for one in vocabulary().entity_types}
    if not says_something(plain) or len(plain) > _LONGEST_TYPE or len(plain.split()) > _MOST_WORDS:
        return ""
    return known.get(plain.casefold(), plain)


def _line_triple(rest: str) -> SaidTriple | None:
    """Read `relation | object`, optionally followed by `| text` or `| image`; an object may contain bars."""
    parts = [tidy(part).strip("*_`\"“”'").strip() for part in rest.rstrip().removesuffix("|").split("|")]
    source: EvidenceSource = "text"
    if len(parts) > 2 and (last := parts[-1].casefold().strip("[(). ")) in ("text", "image"):
        source = "image" if last == "image" else "text"
        parts.pop()
    if len(parts) < 2:
        return None
    relation, tail = parts[0].rstrip(" :"), " | ".join(parts[1:])[:LONGEST_TAIL].strip()
    if not says_something(relation) or len(relation) > _LONGEST_RELATION or len(relation.split()) > _MOST_WORDS:
        return None
    if not says_something(tail):
        return None
    known = {one.casefold(): one for one in vocabulary().relations}
    return SaidTriple(relation=known.get(relation.casefold(), relation), tail=tail, source=source)
