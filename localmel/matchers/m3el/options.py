"""The training options of M3EL: whether and how its encoder is trained together with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from localmel.errors import UsageError
from localmel.matchers.options import Flag, MatcherOptions
from localmel.matchers.train.settings import EncoderTuning

if TYPE_CHECKING:
    from localmel.settings import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class M3elOptions(MatcherOptions):
    """Options of M3EL in addition to those shared by all kinds."""

    tune_encoder: Annotated[
        bool, Flag("--tune-encoder", "Train the encoder together with the matcher (m3el); docs/matchers.md.")
    ] = False
    "Whether the encoder is trained together with the matcher."
    encoder_rate: Annotated[
        float, Flag("--encoder-rate", "Highest learning rate of the encoder; 1e-5 unless given.")
    ] = EncoderTuning().rate
    "Highest learning rate of the encoder."
    gradient_checkpointing: Annotated[
        bool, Flag("--gradient-checkpointing", "Keep less of the encoder in memory, and compute it twice.")
    ] = False
    "Whether each layer of the encoder is recomputed for its gradient, to save memory."

    def __post_init__(self) -> None:
        if self.tune_encoder:
            EncoderTuning(rate=self.encoder_rate)  # checks it

    @classmethod
    def typed(cls, given: Mapping[str, Any], profile: Callable[[], Profile]) -> M3elOptions:
        """Return the options.  Raises UsageError if tuning options are given but the encoder is not tuned."""
        if not given.get("tune_encoder") and given:
            flags = ", ".join(flag.name for name, _, flag in cls.flags() if name in given)
            raise UsageError(f"{flags} says how the encoder is tuned, and it is not tuned", hint="--tune-encoder")
        return cls(**given)

    @property
    def tuning(self) -> EncoderTuning | None:
        """Return the settings for training the encoder, or None if it is not trained."""
        if not self.tune_encoder:
            return None
        return EncoderTuning(rate=self.encoder_rate, recompute=self.gradient_checkpointing)
