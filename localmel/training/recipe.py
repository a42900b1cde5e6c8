"""Define a training recipe: the network, its data and its options.

In: the user's choices.  Out: a checked recipe.  Reads no files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.errors import UsageError
from localmel.matchers.options import MatcherOptions
from localmel.matchers.registry import KGMEL, MATCHERS, options_of

if TYPE_CHECKING:
    from localmel.matchers.train.settings import TrainingSettings

ABLATIONS = ("triples", "gate", "text", "image")
"Parts that a network can be trained without, to measure their contribution."


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training recipe: the network, its data and its options."""

    data: Path
    "A benchmark folder."
    training: TrainingSettings
    "Settings for every seed; the seed in them is replaced."
    datasets: tuple[str, ...] = ()
    "Datasets of the folder to join; all if none is named."
    seeds: tuple[int, ...] = (0,)
    matcher: str = KGMEL
    "Kind of matcher to train, one of MATCHERS."
    mentions: int = 0
    "Maximum number of train mentions, chosen by the smallest CRC-32 of their sentences; 0 takes all."
    validation_mentions: int = 0
    "Maximum number of validation mentions for choosing the epoch, chosen the same way; 0 takes all."
    options: MatcherOptions = field(default_factory=MatcherOptions)
    "Options of the matcher's kind; the base class stands for its defaults."
    width: int | None = None
    "Length of the compared vectors; None takes the matcher's default (384 for kgmel)."
    without: tuple[str, ...] = ()
    "Parts to leave out, from ABLATIONS; matchers other than kgmel can leave out only image."
    drop_leaked: bool = False
    "Drop validation mentions that are in train, instead of refusing them."
    visible_text: float = 0.2
    "Share of train mentions for which a piece of the sentence is treated as writing in the picture."
    fold: tuple[int, int] | None = None
    "(i, n): leave out mentions whose sentence's CRC-32 has remainder i modulo n."
    command: str = ""
    "The command line, recorded in the card."

    def __post_init__(self) -> None:
        if self.matcher not in MATCHERS:
            raise UsageError(
                f"there is no matcher {self.matcher!r}; there are {', '.join(MATCHERS)}", hint=f"--matcher {KGMEL}"
            )
        if type(self.options) is MatcherOptions:
            object.__setattr__(self, "options", options_of(self.matcher)())
        elif type(self.options) is not options_of(self.matcher):
            named = next(name for name in MATCHERS if options_of(name) is type(self.options))
            raise UsageError(f"options of {named} were given for {self.matcher}", hint=f"--matcher {named}")
        if min(self.mentions, self.validation_mentions) < 0:
            fact = f"{self.mentions} mentions and {self.validation_mentions} of validation cannot be drawn; 0 takes all"
            raise UsageError(fact)
        if unknown := set(self.without) - set(ABLATIONS):
            raise UsageError(f"a network cannot be trained without {', '.join(unknown)}; only {', '.join(ABLATIONS)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UsageError(f"the seeds are {list(self.seeds)}; they are different numbers from 0 on")
        if not 0 <= self.visible_text <= 1:
            raise UsageError(f"visible_text is {self.visible_text}; it is a share between 0 and 1")
        if self.fold is not None and not (self.fold[1] >= 2 and 0 <= self.fold[0] < self.fold[1]):
            raise UsageError(f"there is no fold {self.fold[0]} of {self.fold[1]}", hint="--fold 0/3")

    def withheld(self) -> dict[str, Any]:
        """Return the ablations of this recipe as recorded in its run and its card."""
        return {"without": sorted(self.without), "fold": "/".join(map(str, self.fold)) if self.fold else None}
