"""The three steps of the KGMEL paper as lines, for models that cannot follow a schema.

In: the text of a model, and the names it was asked about.  Out: as from JSON, for each name what is said of it or why
nothing can be read.  What it reads:

    ### Step 1: Entity Type
    - "NAME": type
    ### Step 2: Entity Description
    - "NAME": one sentence
    ### Step 3: Triples
    - "NAME" | relation | object | text or image

A line belongs to the name that stands at its beginning, letter by letter, with nothing but quotes, list marks and
emphasis around it; to no other name, and to none where it is another name that begins alike.  Lines before the first
heading and lines of no name are passed over.  Never raises."""

from __future__ import annotations

import re
from collections.abc import Sequence

from localmel.generate.answer import (
    LONGEST_SUMMARY,
    LONGEST_TAIL,
    EvidenceSource,
    Reading,
    Said,
    SaidTriple,
    Unread,
    says_something,
    tidy,
    vocabulary,
)

_HEADING = re.compile(r"[\s#*_]*step\s*([123])\b", re.IGNORECASE)
_LIST_MARK = re.compile(r"[\s|]*(?:[-*•–+]|\d{1,3}[.)])?[\s|]*")
_EMPHASIS = re.compile(r"[*_`]*")
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "'": "'", "‘": "’", "": ""}
_LONGEST_RELATION, _LONGEST_TYPE = 60, 40
_MOST_WORDS = 5
"Of a relation or a type that is none of the list: more are a sentence."


def read_lines(text: str, labels: Sequence[str], *, most_triples: int, cut_off: bool) -> Reading:
    """Read an answer.  `cut_off`: its tokens were used up, so that its last line may be half of one."""
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
            elif triple := _triple(rest):
                triples.setdefault(label, []).append(triple)
                last = label
    if 3 not in steps and not cut_off:
        return dict.fromkeys(labels, Unread(problem="the answer has no heading of step 3"))
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
    """The name at the beginning of a line, and what stands behind its separator."""
    mark = _LIST_MARK.match(line)
    begins = {len(line) - len(line.lstrip()), mark.end() if mark else 0}  # "1. FC Köln" begins like a list
    for label in longest_first:
        for begin in begins:
            rest = _behind(line, begin, label)
            if rest is not None and rest[:1] in tuple(separators):
                return label, rest[1:]
    return None


def _behind(line: str, begin: int, label: str) -> str | None:
    """What stands behind the label, its quotes and emphasis; None where another text stands there."""
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


def _triple(rest: str) -> SaidTriple | None:
    """`relation | object`, with `text` or `image` behind it or not; an object may hold further bars."""
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
