"""An encoder whose weights are trained together with a matcher.

In: texts and pictures.  Out: their vectors and those of their words and patches, with gradients, and at the end a
folder that holds the encoder as it has become.  MiniLM and CLIP each are one (`tuning_minilm.py`, `tuning_clip.py`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, device, nn

from localmel.encode.space import Space
from localmel.encode.token_encoders import TokenEncoders
from localmel.engines.pictures import Picture
from localmel.errors import UsageError
from localmel.matchers.train.learner import WeightsApart
from localmel.matchers.train.tuning_settings import EncoderTuning


class TunableEncoder(nn.Module, ABC):
    """Computes what the encoder in use computes, in float32 and with gradients."""

    tokens_at_once: ClassVar[Mapping[str, int]]
    "With padding, in one pass, by the kind of device."
    pictures_at_once: ClassVar[Mapping[str, int]]

    def __init__(self, origin: Space, *, sees: bool) -> None:
        """origin: what it is tuned from; sees: whether pictures are looked at, so that what reads them is trained."""
        super().__init__()
        self.origin, self.sees = origin, sees

    @property
    def device(self) -> device:
        """Where its weights are."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> Self:
        """Nothing is drawn by chance in an encoder, in training neither: it stays as it is at rest."""
        return super().train(False)

    def apart(self, tuning: EncoderTuning) -> tuple[WeightsApart, ...]:
        """All weights that are trained: matrices, which decay, and the others, which do not."""
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        groups = [([weight for weight in trained if weight.dim() > 1], tuning.weight_decay)]
        groups += [([weight for weight in trained if weight.dim() <= 1], 0.0)]
        return tuple(
            WeightsApart(weights=tuple(weights), rate=tuning.rate, weight_decay=decay, epsilon=tuning.epsilon)
            for weights, decay in groups
        )

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of each text's tokens, with its marks, as far as they reach its vector."""

    @abstractmethod
    def texts(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """n texts -> wholes (n, width), unit rows; words (n, most words, word width), and which are there (n, most)."""

    @abstractmethod
    def prepared(self, picture: Picture) -> Tensor:
        """(3, height, width), as `pictures` takes it.  Raises BadInput where none are looked at."""

    @abstractmethod
    def blank(self) -> Tensor:
        """(3, height, width), all zero.  Raises BadInput likewise."""

    @abstractmethod
    def pictures(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, height, width) -> wholes (n, width), unit rows; patches (n, patches, patch width)."""

    @abstractmethod
    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write a folder that `[encode] model` can name, with its card; replaces one that stands there."""


def tunable(encoders: TokenEncoders, tuning: EncoderTuning) -> TunableEncoder:
    """A copy of a profile's encoder in float32, to be trained.  Raises UsageError for one of another make."""
    from localmel.encode.clip_tokens import ClipTokens
    from localmel.encode.minilm_words import MiniLmWords

    if isinstance(encoders.text, MiniLmWords):
        from localmel.matchers.train.tuning_minilm import TunableMiniLm

        return TunableMiniLm(encoders.text, recompute=tuning.recompute)
    if isinstance(encoders.text, ClipTokens):
        from localmel.matchers.train.tuning_clip import TunableClip

        return TunableClip(encoders.text, sees=encoders.image is not None, recompute=tuning.recompute)
    raise UsageError(f"{encoders.text.space.name} cannot be tuned; MiniLM and CLIP models can", hint="--profile NAME")
