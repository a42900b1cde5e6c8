"""Define the options that are specific to a kind of matcher, for training.

In: command-line values.  Out: a frozen, checked record.  Fields with a `Flag` become flags of `localmel train`.
Loads no numpy, because `--help` shows the flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self, get_type_hints

from localmel.matchers.train.settings import EncoderTuning

if TYPE_CHECKING:
    from localmel.settings import Profile


@dataclass(frozen=True, slots=True)
class Flag:
    """The flag of a field, and its help text."""

    name: str
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MatcherOptions:
    """The options of a kind without any; the base of all others."""

    @classmethod
    def flags(cls) -> Iterator[tuple[str, Any, Flag]]:
        """Yield name, type and flag of each field that has a flag."""
        hints = get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            for flag in getattr(hints[field.name], "__metadata__", ()):
                yield field.name, hints[field.name].__origin__, flag

    @classmethod
    def typed(cls, given: Mapping[str, Any], profile: Callable[[], Profile]) -> Self:
        """Return the options for the given values, by field.  Raises UsageError for values that do not fit together."""
        return cls(**given)

    @property
    def tuning(self) -> EncoderTuning | None:
        """Return how the encoder is trained together with the matcher; None leaves it unchanged."""
        return None

    def check_pictures(self, *, seen: bool, encoder: str) -> None:
        """Raise UsageError if an option needs pictures and none are used.  encoder: its name."""
