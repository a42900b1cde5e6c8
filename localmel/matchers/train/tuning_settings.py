"""How an encoder is tuned together with a matcher, field by field.  Saved with every run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from localmel.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderTuning:
    """What moves the encoder's weights; batches, epochs and precision are those of the matcher's training."""

    rate: float = 1e-5
    "Highest learning rate of the encoder; it rises and falls with the matcher's.  As M3EL."
    weight_decay: float = 1e-4
    "Of its matrices; biases and norms are left alone.  As M3EL."
    epsilon: float = 1e-4
    "Added to the root of AdamW's second moment: weights whose gradients are smaller hardly move.  As M3EL."
    recompute: bool = False
    "Gradient checkpointing: keep only what goes into each layer, and run it again for the gradient."

    def __post_init__(self) -> None:
        for name in ("rate", "epsilon"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise UsageError(
                    f"an encoder cannot be tuned with {name} {getattr(self, name)}; it is a number above 0",
                    hint="--encoder-rate 1e-5",
                )
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise UsageError(f"an encoder cannot be tuned with weight_decay {self.weight_decay}; it is at least 0")
