"""The options by which an encoder is tuned together with a matcher.

In: what was given.  Out: the settings of the tuning, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.matchers.train.tuning_settings import EncoderTuning

TuneEncoder = Annotated[
    bool, typer.Option("--tune-encoder", help="Train the encoder together with the matcher (m3el); docs/matchers.md.")
]
EncoderRate = Annotated[
    float | None, typer.Option("--encoder-rate", help="Highest learning rate of the encoder; 1e-5 unless given.")
]
Recompute = Annotated[
    bool,
    typer.Option("--gradient-checkpointing", help="Keep less of the encoder in memory, and compute it twice."),
]


def tuning(*, tune: bool, rate: float | None, recompute: bool) -> EncoderTuning | None:
    """None where the encoder is to stay as it is.  Raises UsageError for choices that nothing would follow."""
    from localmel.matchers.train.tuning_settings import EncoderTuning

    if not tune:
        if rate is not None or recompute:
            given = "--encoder-rate" if rate is not None else "--gradient-checkpointing"
            raise UsageError(f"{given} says how the encoder is tuned, and it is not tuned", hint="--tune-encoder")
        return None
    chosen = EncoderTuning(recompute=recompute)
    return chosen if rate is None else EncoderTuning(rate=rate, recompute=recompute)
