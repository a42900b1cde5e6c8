"""Versions of Python packages: which one is here, and whether it is among those that are asked for.

In: a version and what is wanted of it (">=5.16.1,<5.20").  Out: yes or no.  Read from what pip wrote down; nothing is
imported.  The rules are those of PEP 440 for releases; a pre-release counts as just before its release."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution

_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(?:[-_.]?(a|b|c|rc|alpha|beta|pre|preview|dev)\d*)?(?:\.?post(\d+))?.*", re.I)
_WANTED = re.compile(r"(===|==|>=|<=|!=|~=|>|<)\s*([^\s,;]+)")
_REQUIREMENT = re.compile(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;\s*(.*))?")

Key = tuple[tuple[int, ...], int, int]


def installed(*names: str) -> str:
    """The version of the first of these distributions that is here; empty where none is, "?" where pip's notes lack."""
    for name in names:
        try:
            return str(distribution(name).metadata["Version"] or "?")
        except PackageNotFoundError:
            continue
        except (OSError, ValueError, KeyError, AttributeError):
            return "?"
    return ""


def requirements(name: str, extra: str = "") -> dict[str, str]:
    """What a distribution asks for: name -> wanted versions; with `extra` what that extra adds.  Empty where unknown.

    Conditions on Python and platform are not judged: where there is one, the requirement is left out."""
    try:
        lines = distribution(name).requires or []
    except (PackageNotFoundError, OSError, ValueError):
        return {}
    wanted = {}
    for line in lines:
        found = _REQUIREMENT.fullmatch(line)
        if not found:
            continue
        marker = found[3] or ""
        if marker.replace('"', "'").replace(" ", "") == (f"extra=='{extra}'" if extra else ""):
            wanted[normal(found[1])] = found[2].strip()
    return wanted


def requires_python(name: str) -> str:
    """Which Pythons a distribution asks for; empty where unknown."""
    try:
        return str(distribution(name).metadata["Requires-Python"] or "")
    except (PackageNotFoundError, OSError, ValueError, KeyError, AttributeError):
        return ""


def normal(name: str) -> str:
    """A distribution's name in the one spelling that pip compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fits(version: str, wanted: str) -> bool:
    """Whether a version fulfils every clause of `wanted`; an empty one wants nothing.  The unreadable fits none."""
    if not wanted:
        return True
    try:
        return all(_fulfils(version, sign, bound) for sign, bound in _WANTED.findall(wanted))
    except ValueError:
        return False


def _fulfils(version: str, sign: str, bound: str) -> bool:
    here = _key(version)
    if bound.endswith(".*"):
        start = _numbers(bound[:-2])
        same = _padded(here[0], len(start))[: len(start)] == start
        return same if sign == "==" else not same
    there = _key(bound)
    if sign == "~=":
        start = _numbers(bound)[:-1]
        return here >= there and _padded(here[0], len(start))[: len(start)] == start
    return {
        "==": here == there,
        "===": version == bound,
        "!=": here != there,
        ">=": here >= there,
        "<=": here <= there,
        ">": here > there and not (here[0] == there[0] and here[2] and not there[2]),
        "<": here < there and not (here[0] == there[0] and here[1] < 0 <= there[1]),
    }[sign]


def _key(version: str) -> Key:
    """Release without zeros at its end; -1 before, 0 at the release; the number of a post-release."""
    found = _VERSION.fullmatch(version)
    if not found:
        raise ValueError(f"{version!r} is no version")
    numbers = _numbers(found[1])
    while len(numbers) > 1 and not numbers[-1]:
        numbers = numbers[:-1]
    return numbers, -1 if found[2] else 0, int(found[3]) + 1 if found[3] else 0


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def _padded(numbers: tuple[int, ...], length: int) -> tuple[int, ...]:
    return numbers + (0,) * (length - len(numbers))
