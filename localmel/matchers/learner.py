"""Make any kind of matcher trainable, alone or together with its encoder.

In: a kind, its inputs, and a copy of the encoder if it is tuned too.  Out: the learner for the training loop.  With an
encoder, every step encodes the rows it contrasts and updates both networks; validation encodes everything again, so
that vectors never come from older weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from localmel.encode.space import Space
from localmel.encode.tunable import TunableEncoder
from localmel.matchers.kind import MatcherKind
from localmel.matchers.train.batches import Part
from localmel.matchers.train.learner import TrainingInputs, Validated, WeightGroup, Workers
from localmel.matchers.train.settings import EncoderTuning, TrainingSettings
from localmel.matchers.train.tuning_rows import LiveFeatures


class TunedNetwork(nn.Module):
    """A matcher and its encoder, so that a checkpoint holds both."""

    def __init__(self, encoder: TunableEncoder, matcher: nn.Module) -> None:
        super().__init__()
        self.encoder, self.matcher = encoder, matcher


class MatcherLearner:
    """A `Learner` whose matcher starts with newly drawn weights."""

    def __init__(
        self,
        kind: MatcherKind,
        new: Callable[[], nn.Module],
        settings: TrainingSettings,
        inputs: TrainingInputs,
        tuned: tuple[TunableEncoder, EncoderTuning] | None = None,
    ) -> None:
        """Set up the training.  new: draws the network.  tuned: a fresh copy of the encoder and its settings; inputs
        are then Rows."""
        self._kind, self._tuned, self.inputs = kind, tuned, inputs
        self._shown = encoded_by(tuned[0], inputs, settings.precision) if tuned else inputs
        self._matcher = new()
        self.network: nn.Module = TunedNetwork(tuned[0], self._matcher) if tuned else self._matcher
        self.step: nn.Module = _Step(kind, self.network, settings, self._shown)
        self.groups: Sequence[WeightGroup] = encoder_weights(*tuned) if tuned else ()

    def facts(self) -> dict[str, Any]:
        """Return the facts of the kind and of the tuning."""
        own = self._kind.facts(self._matcher)
        return {**own, **tuning_facts(self._tuned[0].origin, self._tuned[1])} if self._tuned else own

    @torch.no_grad()
    def validate(self, workers: Workers, *, nearest: int) -> Validated:
        """Rank the validation mentions with the kind's own search."""
        return self._kind.validate(self._matcher, self._shown, workers, nearest=nearest)


class _Step(nn.Module):
    """Both sides and their loss in one call, as data parallelism requires."""

    def __init__(
        self, kind: MatcherKind, network: nn.Module, settings: TrainingSettings, inputs: TrainingInputs
    ) -> None:
        super().__init__()
        self.network = network
        self._kind, self._settings, self._inputs = kind, settings, inputs

    def forward(self, part: Part) -> tuple[Tensor, Tensor]:
        matcher = self.network.matcher if isinstance(self.network, TunedNetwork) else self.network
        n = len(part.mentions)
        device = next(matcher.parameters()).device
        kind, inputs = self._kind, self._inputs
        mentions = kind.batch(inputs.mentions, part.mentions, bare=None, blind=part.blind[:n], device=device)
        entities = kind.batch(inputs.entities, part.entities, bare=part.bare, blind=part.blind[n:], device=device)
        gold, ids = (torch.from_numpy(values).to(device) for values in (part.gold, part.entities))
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16"):
            return kind.loss(matcher, mentions, entities, gold, ids, self._settings)


def encoded_by(encoder: TunableEncoder, rows: TrainingInputs, precision: str) -> TrainingInputs:
    """Return inputs that this encoder computes from rows of texts and pictures on every access."""
    live: dict[str, Any] = {
        side: LiveFeatures(encoder, getattr(rows, side), precision=precision)
        for side in ("mentions", "validation", "entities")
    }
    return replace(rows, **live)


def encoder_weights(encoder: TunableEncoder, tuning: EncoderTuning) -> tuple[WeightGroup, ...]:
    """Return the trained weights in two groups: matrices, with weight decay, and all others, without."""
    trained = [weight for weight in encoder.parameters() if weight.requires_grad]
    matrices, others = ([weight for weight in trained if (weight.dim() > 1) is wide] for wide in (True, False))
    return tuple(
        WeightGroup(weights=tuple(weights), rate=tuning.rate, weight_decay=decay, epsilon=tuning.epsilon)
        for weights, decay in ((matrices, tuning.weight_decay), (others, 0.0))
    )


def tuning_facts(origin: Space, tuning: EncoderTuning) -> dict[str, Any]:
    """Return the encoder facts that a run depends on, including recomputation, which changes rounding."""
    return {"tuning": {**asdict(tuning), "from": origin.name, "from_sha256": origin.weights_sha256}}
