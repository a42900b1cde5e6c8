"""An encoder whose weights are trained together with a matcher.

In: texts and pictures.  Out: their vectors and those of their words and patches, with gradients; at the end a folder
with the tuned encoder.  An encoder that can be tuned has a method `tunable`, which returns such a copy of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from localmel.encode.space import Space
from localmel.engines.pictures import Picture


class TunableEncoder(nn.Module, ABC):
    """Computes what the encoder in use computes, in float32 and with gradients."""

    tokens_at_once: ClassVar[Mapping[str, int]]
    "How many tokens, padding included, go through in one pass, by the type of device."
    pictures_at_once: ClassVar[Mapping[str, int]]

    def __init__(self, origin: Space, *, sees: bool) -> None:
        """origin: the space before tuning; sees: whether pictures are used, so that the image tower is trained too."""
        super().__init__()
        self.origin, self.sees = origin, sees

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: an encoder has no dropout, not even while it is trained."""
        return super().train(False)

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, begin and end included, as far as they reach its vector."""

    @abstractmethod
    def texts(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Encode n texts.

        Returns unit vectors (n, width), words (n, most words, word width), and which words exist (n, most words)."""

    @abstractmethod
    def prepared(self, picture: Picture) -> Tensor:
        """Return the picture as `pictures` takes it, (3, height, width).  Raises BadInput for a model of texts."""

    @abstractmethod
    def blank(self) -> Tensor:
        """Return a prepared picture of zeros, (3, height, width).  Raises BadInput for a model of texts."""

    @abstractmethod
    def pictures(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Encode prepared pictures (n, 3, height, width).

        Returns unit vectors (n, width) and patches (n, patches, patch width)."""

    @abstractmethod
    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write a folder that `[encode] model` can name, with its card.  An existing folder is replaced."""


def padded_ids(tokens: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the token ids of n texts, (n, longest), padded with zeros, and their lengths (n,)."""
    longest = max(map(len, tokens))
    ids = torch.tensor([[*own, *[0] * (longest - len(own))] for own in tokens], device=device)
    return ids, torch.tensor([len(own) for own in tokens], device=device)


def tokens_there(length: int, lengths: Tensor) -> Tensor:
    """Return a mask (n, length), true up to each of the lengths (n,)."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]
