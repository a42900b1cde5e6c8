"""What can be asked of a picture, and which of it is asked.

In: attributes.toml, written by hand.  Out: attributes by name with their choices, and the setting that picks some.
Skin colour and ethnicity are asked only where they are named; docs/matchers-dwe.md says why."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, UsageError

SUBJECT = "subject"
"The attribute that tells whether there is a person of whom others can be asked."
PEOPLE = ("person", "group of people")
NONE = "none"
"A choice that says that there is nothing."


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One thing that can be asked."""

    name: str
    question: str
    "Completes 'Say ...'."
    choices: Mapping[str, str]
    "Answer -> the sentence that CLIP compares a picture with.  Empty: answered in free words, by a language model."
    of_people: bool = False
    "Asked of a picture that shows a person."
    off: str = ""
    "Why it is not asked unless it is named; empty for one that is."


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeSettings:
    """Which attributes are asked, and when an answer counts."""

    asked: tuple[str, ...] = ()
    "Names of attributes.toml; none: all but those that are off."
    least: float = 0.5
    "CLIP's answer counts where its probability among the attribute's choices is above this."
    max_tokens: int = 256
    "Of one answer of a language model."
    retries: int = 1
    "How often an answer that cannot be read is asked for again."

    def __post_init__(self) -> None:
        if unknown := [name for name in self.asked if name not in attributes()]:
            fact = f"there is no attribute {', '.join(unknown)}; known are {', '.join(attributes())}"
            raise UsageError(fact, hint=f"--ask {next(iter(attributes()))}")
        if not 0 <= self.least <= 1 or self.max_tokens < 1 or self.retries < 0:
            fact = f"attributes: least {self.least}, max_tokens {self.max_tokens} or retries {self.retries}"
            raise UsageError(f"{fact} is out of its range")

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Those that are asked, in the order of the file.  The subject is, where another one depends on it."""
        known = attributes()
        names = set(self.asked) or {name for name, one in known.items() if not one.off}
        if any(known[name].of_people for name in names):
            names.add(SUBJECT)
        return tuple(one for name, one in known.items() if name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a picture shows of an attribute, as whoever was asked answers."""

    attribute: str
    value: str
    probability: float = 1.0
    "1 where it is not told."

    @property
    def text(self) -> str:
        """What an encoder of texts reads."""
        return f"{self.attribute}: {self.value}"


def told(answers: Sequence[Shown], asked: Sequence[Attribute], least: float) -> tuple[Shown, ...]:
    """The answers of one picture that are probable enough and say something; of people only where it shows some."""
    of_people = {one.name for one in asked if one.of_people}
    sure = [one for one in answers if one.probability > least and one.value and one.value != NONE]
    person = any(one.attribute == SUBJECT and one.value in PEOPLE for one in sure)
    return tuple(one for one in sure if person or one.attribute not in of_people)


@cache
def attributes() -> Mapping[str, Attribute]:
    """All of them by name.  Raises CorruptArtifact where the file does not fit its form."""
    path = Path(__file__).with_name("picture_attributes.toml")
    try:
        tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Attribute(**{"name": name, "choices": {}, **table}) for name, table in tables.items()}
    except (OSError, ValueError, TypeError) as error:
        raise CorruptArtifact(
            f"{path} names no attributes ({error})", hint="pip install --force-reinstall localmel"
        ) from None
