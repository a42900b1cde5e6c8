"""A matcher and its encoder as one learner: every step encodes what it contrasts, and both are moved.

In: texts and pictures of mentions and of a KB's entities, golds by position.  Out: what `training.py` asks for.
Validation encodes all entities and mentions with the encoder as it is, without gradients: no vector is older than the
weights that are judged by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localmel.encode.space import Space
from localmel.encode.tunable import TunableEncoder
from localmel.matchers.kgmel.ranking import Workers
from localmel.matchers.train.batches import Part
from localmel.matchers.train.learner import Validated, WeightsApart
from localmel.matchers.train.matcher_learner import MatcherInputs, MatcherLearner, SearchQuality, appraised
from localmel.matchers.train.settings import TrainingSettings
from localmel.matchers.train.tuning_rows import LiveFeatures, Rows
from localmel.matchers.train.tuning_settings import EncoderTuning
from localmel.matchers.two_step_kind import TwoStepKind


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TuningInputs:
    """What a matcher and its encoder are trained and validated on."""

    mentions: Rows
    validation: Rows
    entities: Rows
    gold: NDArray[Any]
    "See `MatcherInputs`, as the two below."
    validation_gold: NDArray[Any]
    candidates: NDArray[Any]

    def through(self, encoder: TunableEncoder, precision: str) -> MatcherInputs:
        """The same as this encoder sees it whenever it is looked at."""
        live = (
            LiveFeatures(encoder, rows, precision=precision) for rows in (self.mentions, self.validation, self.entities)
        )
        mentions, validation, entities = live
        return MatcherInputs(
            mentions=mentions,
            validation=validation,
            entities=entities,
            gold=self.gold,
            validation_gold=self.validation_gold,
            candidates=self.candidates,
        )


class TunedNetwork(nn.Module):
    """Both together, so that a checkpoint holds both."""

    def __init__(self, encoder: TunableEncoder, matcher: nn.Module) -> None:
        super().__init__()
        self.encoder, self.matcher = encoder, matcher


class TuningLearner:
    """A `Learner`."""

    def __init__(
        self,
        kind: TwoStepKind,
        new: Callable[[], nn.Module],
        encoder: TunableEncoder,
        tuning: EncoderTuning,
        settings: TrainingSettings,
        inputs: TuningInputs,
    ) -> None:
        """new: draws the matcher's network; encoder: a fresh copy, which is trained."""
        self._tuning, self._encoder = tuning, encoder
        self._matched = MatcherLearner(kind, new, settings, inputs.through(encoder, settings.precision))
        self.network = TunedNetwork(encoder, self._matched.network)
        self.step = _Step(encoder, self._matched.step)
        self.gold: NDArray[Any] = inputs.gold
        self.validation_gold: NDArray[Any] = inputs.validation_gold
        self.candidates: NDArray[Any] = inputs.candidates

    @property
    def apart(self) -> Sequence[WeightsApart]:
        """Return the weights of the encoder."""
        return encoder_weights(self._encoder, self._tuning)

    def facts(self) -> dict[str, Any]:
        """Of the kind, and of the tuning."""
        return {**self._matched.facts(), **tuning_facts(self._encoder.origin, self._tuning)}

    @torch.no_grad()
    def validate(self, workers: Workers, *, nearest: int) -> Validated:
        """As `MatcherLearner.validate`; each process encodes all entities."""
        return self._matched.validate(workers, nearest=nearest)


class _Step(nn.Module):
    """The matcher's step; it holds the encoder too, whose gradients are exchanged with the matcher's."""

    def __init__(self, encoder: TunableEncoder, matched: nn.Module) -> None:
        super().__init__()
        self.encoder, self.matched = encoder, matched

    def forward(self, part: Part) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.matched(part)
        return found


def encoder_weights(encoder: TunableEncoder, tuning: EncoderTuning) -> tuple[WeightsApart, ...]:
    """Return the trained weights in two groups: matrices, which decay, and all others, which do not."""
    trained = [weight for weight in encoder.parameters() if weight.requires_grad]
    matrices, others = ([weight for weight in trained if (weight.dim() > 1) is wide] for wide in (True, False))
    return tuple(
        WeightsApart(weights=tuple(weights), rate=tuning.rate, weight_decay=decay, epsilon=tuning.epsilon)
        for weights, decay in ((matrices, tuning.weight_decay), (others, 0.0))
    )


def tuning_facts(origin: Space, tuning: EncoderTuning) -> dict[str, Any]:
    """What a run hangs on beside the matcher's facts; recomputing too, which changes rounding."""
    return {"tuning": {**asdict(tuning), "from": origin.name, "from_sha256": origin.weights_sha256}}


@torch.no_grad()
def appraised_together(
    network: TunedNetwork, inputs: TuningInputs, settings: TrainingSettings
) -> tuple[Tensor, SearchQuality]:
    """`appraised` of a matcher, all of it encoded by its own encoder."""
    return appraised(network.matcher, inputs.through(network.encoder, settings.precision))
