"""What is trained on what, and who hears of it.

In: choices of a person.  Out: a recipe, checked.  Reads nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.retrieve.training import Epoch
    from localmel.retrieve.training_settings import TrainingSettings

ABLATIONS = ("triples", "gate", "text", "image")
"What a network can be trained without, to see what it is good for."


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is trained on what."""

    data: Path
    "A benchmark folder."
    training: TrainingSettings
    "Of every seed; its own seed is replaced."
    datasets: tuple[str, ...] = ()
    "Which datasets of the folder are joined; all where none is named."
    seeds: tuple[int, ...] = (0,)
    width: int = 384
    "Length of the vectors that come out."
    without: tuple[str, ...] = ()
    "Of ABLATIONS."
    drop_leaked: bool = False
    "Leave validation mentions out that train has, instead of refusing them."
    visible_text: float = 0.2
    "Share of train mentions of which a piece of the sentence is taken for writing in the picture."
    fold: tuple[int, int] | None = None
    "(i, n): without the mentions whose sentence's CRC-32 leaves i when divided by n."
    command: str = ""
    "Stands in the card."

    def __post_init__(self) -> None:
        if unknown := set(self.without) - set(ABLATIONS):
            raise UsageError(f"a network cannot be trained without {', '.join(unknown)}; only {', '.join(ABLATIONS)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UsageError(f"the seeds are {list(self.seeds)}; they are different numbers from 0 on")
        if not 0 <= self.visible_text <= 1:
            raise UsageError(f"visible_text is {self.visible_text}; it is a share between 0 and 1")
        if self.fold is not None and not (self.fold[1] >= 2 and 0 <= self.fold[0] < self.fold[1]):
            raise UsageError(f"there is no fold {self.fold[0]} of {self.fold[1]}", hint="--fold 0/3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Hears how far a run is.  Only the first of several processes speaks."""

    on_total: Callable[[str, int], None] = lambda _what, _total: None
    "A step and its size."
    on_done: Callable[[int], None] = lambda _: None
    "How many more of it are done."
    on_note: Callable[[str], None] = lambda _: None
    on_epoch: Callable[[int, Epoch], None] = lambda _seed, _epoch: None
