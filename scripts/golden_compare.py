"""Compare two answers of localmel, leaving out what may be worded or timed differently.

In: two JSON values.  Out: one line for each difference, with its path.  Knows nothing of commands or folders.

The rule: objects have the same keys in the same order, lists the same length and order, and values the same type.
Strings, integers and booleans are equal.  Floats differ by at most 1e-6, or by 1e-6 of the larger one above 1.
Of what DROPPED lists only keys and types are compared: a dropped note is still there, and still a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

TOLERANCE = 1e-6
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A kind of value whose content is not compared."""

    why: str
    keys: tuple[str, ...]
    "Regular expressions; each has to match the whole of a key, or the end of a path after a `/` if it holds one."


DROPPED = (
    Dropped(
        why="free prose",
        keys=(
            "notes?|hint|fact|message|error|problem|why|purpose|findings|text_out",
            "(protocol|method|fuzzy100)/words|published/reasons",
            "out/title",
            r"(out|profile|comparison\.json)/summary",
        ),
    ),
    Dropped(
        why="seconds, and what is divided by them",
        keys=(r"(\w+_)?seconds", r"(answers|mentions)_per_second", "seconds/[^/]*"),
    ),
    Dropped(why="memory of a process", keys=(r"peak_memory(_\w+)?",)),
    Dropped(why="time of day", keys=("created|timestamp|date|changed_ns|rows/written",)),
    Dropped(why="versions of localmel and of packages", keys=("inputs/localmel", "versions|commit")),
    Dropped(why="the command that was typed", keys=("commands?",)),
    Dropped(
        why="hashes of manifests, which hold commands and seconds; what they are about is compared itself",
        keys=("facts/manifest|inputs/columns",),
    ),
    Dropped(
        why="hashes and sizes of files that hold prose or timings; their content is compared itself",
        keys=(
            r"files/[^/]*\.(md|html|json|jsonl|png|svg)/(bytes|sha256)",
            r"inputs/stages/generate/unparsed\.jsonl|made_from/inputs/said",
        ),
    ),
)
"Everything that is left out of the comparison; nothing else is."
GONE = {"inputs/versions/matplotlib": "reports draw their figures themselves and record no version of matplotlib"}
"Ends of paths that the base has and the working tree need not have, each with the reason."

_RULES = [re.compile(rf"(?:.*/)?(?:{key})") for group in DROPPED for key in group.keys]


def differences(base: Any, working: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each difference between the base's value and the working tree's, in the order of the base."""
    if is_dropped(path):
        yield from _of_type_only(base, working, path)
    elif isinstance(base, Mapping) and isinstance(working, Mapping):
        yield from _of_objects(base, working, path)
    elif isinstance(base, list) and isinstance(working, list):
        yield from _of_lists(base, working, path)
    elif type(base) is not type(working):
        yield f"{path or '/'}: {_kind(base)} {_short(base)} became {_kind(working)} {_short(working)}"
    elif not _same(base, working):
        yield f"{path or '/'}: {_short(base)} became {_short(working)}"


def is_dropped(path: str) -> bool:
    """Return whether DROPPED lists the value at this path.  Positions in lists are no part of the path here."""
    return _matches("/".join(part for part in path.split("/") if not part.startswith("[")))


@cache
def _matches(keys: str) -> bool:
    return any(rule.fullmatch(keys) for rule in _RULES)


def _of_objects(base: Mapping[str, Any], working: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in base.items():
        below = f"{path}/{key}"
        if key in working:
            yield from differences(value, working[key], below)
        elif not below.endswith(tuple(GONE)):
            yield f"{below}: missing, was {_short(value)}"
    for key, value in working.items():
        if key not in base:
            yield f"{path}/{key}: new, {_short(value)}"
    if list(base) != list(working) and set(base) == set(working):
        yield f"{path or '/'}: keys in another order, {_short(list(base))} became {_short(list(working))}"


def _of_lists(base: Sequence[Any], working: Sequence[Any], path: str) -> Iterator[str]:
    if len(base) != len(working):
        yield f"{path or '/'}: {len(base)} values became {len(working)}"
    for number, (one, other) in enumerate(zip(base, working, strict=False)):
        yield from differences(one, other, f"{path}/[{number}]")


def _of_type_only(base: Any, working: Any, path: str) -> Iterator[str]:
    """Yield a line where a dropped value has other keys or another type; integers are floats here, lists may grow."""
    numbers = (int, float)
    if isinstance(base, Mapping) and isinstance(working, Mapping):
        for key in {**base, **working}:
            if key in base and key in working:
                yield from _of_type_only(base[key], working[key], f"{path}/{key}")
            elif not (key in base and f"{path}/{key}".endswith(tuple(GONE))):
                yield f"{path}/{key}: {'missing' if key in base else 'new'}"
    elif not (isinstance(base, numbers) and isinstance(working, numbers)) and _kind(base) != _kind(working):
        yield f"{path}: {_kind(base)} became {_kind(working)} (its content is not compared)"


def _same(base: Any, working: Any) -> bool:
    if not isinstance(base, float):
        return bool(base == working)
    if base != base or working != working:
        return base != base and working != working
    if base in (float("inf"), -float("inf")):
        return bool(base == working)
    return bool(abs(base - working) <= TOLERANCE * max(1.0, abs(base), abs(working)))


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "integer", float: "float"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
