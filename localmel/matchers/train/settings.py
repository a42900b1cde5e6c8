"""Define how a matcher is trained, field by field.  Saved with every run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from localmel.errors import BadInput, UnknownChoice, UsageError

PRECISIONS = ("float32", "bfloat16")
SOURCES_OF_NEGATIVES = ("names", "index")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The terms of the loss, and which rows count as negatives."""

    temperature: float = 0.1
    "Divides cosines before the softmax."
    mention_weight: float = 0.1
    "Weight of the term that pushes mentions apart (lambda_mm)."
    entity_weight: float = 0.1
    "Weight of the term that pushes entities apart (lambda_ee)."
    published_negatives: bool = False
    "As published: every other row is a negative, even one with the same gold.  Entities then repeat in a batch."

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise BadInput(f"the temperature of a loss is {self.temperature}; it must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The settings for training a network."""

    epochs: int = 6
    "Maximum number of passes over the mentions."
    batch: int = 512
    "Maximum number of mentions that one process contrasts at once."
    rate: float = 1e-3
    "Highest learning rate of AdamW; it rises over the warm-up and falls along a cosine."
    weight_decay: float = 1e-2
    "Weight decay of AdamW."
    warm_up: int = 100
    "Steps over which the rate rises; at most a tenth of all steps."
    clip: float = 1.0
    "Gradients are scaled down to at most this norm."
    accumulate: int = 1
    "Batches whose gradients are averaged before a step."
    precision: str = "float32"
    "`float32` or `bfloat16` (products of the linear layers)."
    hard_negatives: int = 3
    "Extra negatives per mention: entities that are not its gold."
    hard_from: str = "names"
    "`names`: negatives that share the mention's name.  `index`: its nearest entities at the last validation."
    without_triples: float = 0.15
    "Share of entities shown without triples, so that the network learns to handle them."
    without_image: float = 0.2
    "Share of rows shown without their image.  The WikiDiverse test has 20% blank images, its train 0.4%."
    patience: int = 3
    "Number of validations without a better MRR after which training ends."
    validate_every: int = 1
    "Number of epochs between validations.  The last epoch is always validated."
    seed: int = 0
    "Seed of all random numbers."
    loss: LossSettings = field(default_factory=lambda: LossSettings(temperature=0.05))

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("epochs", "batch", "accumulate", "patience", "validate_every")}
        if low := {name: value for name, value in counts.items() if value < 1}:
            raise UsageError(f"training cannot run with {low}; each is at least 1")
        if self.precision not in PRECISIONS:
            raise UnknownChoice("precision", self.precision, PRECISIONS, option="--precision")
        if self.hard_from not in SOURCES_OF_NEGATIVES:
            raise UnknownChoice("source of hard negatives", self.hard_from, SOURCES_OF_NEGATIVES, option="--hard-from")
        if not (
            0 < self.rate < math.inf and self.clip > 0 and min(self.weight_decay, self.hard_negatives, self.seed) >= 0
        ):
            raise UsageError(
                f"rate {self.rate}, clip {self.clip}, weight_decay {self.weight_decay}, hard_negatives "
                f"{self.hard_negatives} or seed {self.seed} is out of its range"
            )
        for name in ("without_triples", "without_image"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it is a share between 0 and 1")

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of the step `step` of `steps`, counted from 0."""
        rising = min(1.0, (step + 1) / max(min(self.warm_up, steps // 10), 1))
        return self.rate * rising * max(0.02, 0.5 * (1.0 + math.cos(math.pi * step / steps)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderTuning:
    """The settings for training the encoder; batches, epochs and precision come from the matcher's training."""

    rate: float = 1e-5
    "Highest learning rate of the encoder; it rises and falls with the matcher's.  As in M3EL."
    weight_decay: float = 1e-4
    "Weight decay of its matrices; biases and norms do not decay.  As in M3EL."
    epsilon: float = 1e-4
    "Added to the root of AdamW's second moment: weights with smaller gradients hardly move.  As in M3EL."
    recompute: bool = False
    "Gradient checkpointing: store only the input of each layer, and recompute the layer for the gradient."

    def __post_init__(self) -> None:
        for name in ("rate", "epsilon"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise UsageError(
                    f"an encoder cannot be tuned with {name} {getattr(self, name)}; it is a number above 0",
                    hint="--encoder-rate 1e-5",
                )
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise UsageError(f"an encoder cannot be tuned with weight_decay {self.weight_decay}; it is at least 0")
