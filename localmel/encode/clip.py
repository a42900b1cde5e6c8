"""CLIP: texts and pictures -> unit vectors of one space, by a model that lies in a folder.

In: texts, or opened pictures.  Out: vectors in their order.  float32 on a CPU, bfloat16 or float16 on a GPU.  The
space is named after everything that its vectors depend on, so that those of two models are never compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.batches import batches_by_length
from localmel.encode.clip_folder import read_clip_folder
from localmel.encode.clip_model import ClipModel, load_clip
from localmel.encode.space import Space
from localmel.engines.pictures import Picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_TEXTS_AT_ONCE = 4096
"Tokenized and sorted together."
_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 65_536}
_PICTURES_AT_ONCE = {"cpu": 16, "cuda": 256}
_LONGEST_SHAPE = 16
"Of a picture longer than this many times its short side the middle is taken: scaled up it would fill the memory."


class Clip:
    """A text encoder and an image encoder over one folder.  The model is loaded when it is first needed."""

    def __init__(self, folder: Path, *, device: str = "auto", precision: str = "auto") -> None:
        """Raises MissingWeights or CorruptArtifact for a folder that cannot be used as it is."""
        self.folder = folder
        self._folder = read_clip_folder(folder)
        self._device, self._precision = device, precision

    @property
    def space(self) -> Space:
        """Of texts, and of pictures too: a caption lies near its picture."""
        width, sha256 = self._folder.width, self._folder.sha256
        return Space(name=f"clip-{width}-{sha256[:12]}", width=width, weights_sha256=sha256)

    @property
    def image_space(self) -> Space:
        """The same."""
        return self.space

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        """(n,) texts -> (n, width) float32, unit rows.  What lies beyond the model's context is not read."""
        vectors = np.empty((len(texts), self._folder.width), np.float32)
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            some = [text.encode("utf-8", "replace").decode() for text in texts[first : first + _TEXTS_AT_ONCE]]
            tokens = self._model.tokenize(some)
            lengths = _lengths(self._model.network, tokens)
            for batch in batches_by_length(lengths, _TOKENS_AT_ONCE[self._kind]):
                longest = lengths[batch[-1]]
                made = _text_vectors(self._model.network, tokens[batch, :longest].to(self._model.device))
                vectors[[first + place for place in batch]] = self._unit_rows(made)
                on_texts(len(batch))
        return vectors

    def encode_images(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> NDArray[Any]:
        """n pictures -> (n, width) float32, unit rows."""
        parts = [np.empty((0, self._folder.width), np.float32)]
        remaining = iter(pictures)
        if (first := next(remaining, None)) is None:
            return parts[0]
        import torch

        prepared = (self._model.prepare(bounded(picture.image)) for picture in chain([first], remaining))
        while batch := list(islice(prepared, _PICTURES_AT_ONCE[self._kind])):
            pixels = torch.stack(batch).to(self._model.device, self._model.dtype)
            with torch.inference_mode():
                made = self._model.network.encode_image(pixels)
            parts.append(self._unit_rows(made))
            on_pictures(len(batch))
        return np.concatenate(parts)

    @cached_property
    def _model(self) -> ClipModel:
        return load_clip(self._folder, device=self._device, precision=self._precision)

    @property
    def _kind(self) -> str:
        return "cuda" if self._model.device.type == "cuda" else "cpu"

    @staticmethod
    def _unit_rows(vectors: Tensor) -> NDArray[Any]:
        from torch.nn.functional import normalize

        rows: NDArray[Any] = normalize(vectors.float(), dim=1).cpu().numpy()
        return rows


def is_causal(network: Any) -> bool:
    """Whether no token sees the ones behind it, and the vector is that of the text's last token: then padding is idle.

    Published CLIP models are so; SigLIP reads the padding."""
    return getattr(network, "attn_mask", None) is not None and network.text_pool_type in ("argmax", "eos")


def ends_of(network: Any, tokens: Tensor) -> Tensor:
    """(n,) place of each text's last token: the highest number, or the one that the model names."""
    marks = tokens if network.text_pool_type == "argmax" else (tokens == network.text_eos_id).int()
    return marks.argmax(dim=1)


def _lengths(network: Any, tokens: Tensor) -> list[int]:
    """How many tokens of each text reach its vector.  tokens: (n, context)."""
    n, context = tokens.shape
    lengths: list[int] = (ends_of(network, tokens) + 1).tolist() if is_causal(network) else [context] * n
    return lengths


def _text_vectors(network: Any, tokens: Tensor) -> Tensor:
    """(n, width), not normalised.  tokens: (n, length), of a causal model without the padding that all of them have.

    open_clip pads every text to the model's whole context; the arithmetic is its own."""
    import torch

    with torch.inference_mode():
        if not is_causal(network):
            whole: Tensor = network.encode_text(tokens)
            return whole
        places = torch.arange(len(tokens), device=tokens.device)
        return projected(network, network.ln_final(text_states(network, tokens)[places, ends_of(network, tokens)]))


def text_states(network: Any, tokens: Tensor) -> Tensor:
    """(n, length, width) of a causal text tower, before its last norm.  tokens: (n, length), cut anywhere."""
    dtype, length = network.transformer.get_cast_dtype(), tokens.shape[1]
    states = network.token_embedding(tokens).to(dtype) + network.positional_embedding[:length].to(dtype)
    found: Tensor = network.transformer(states, attn_mask=network.attn_mask[:length, :length])
    return found


def projected(network: Any, states: Tensor) -> Tensor:
    """States of last tokens behind the last norm (n, width of the tower) -> vectors (n, width), not normalised."""
    import torch

    if (projection := network.text_projection) is None:
        return states
    made: Tensor = projection(states) if isinstance(projection, torch.nn.Module) else states @ projection
    return made


def bounded(image: Image) -> Image:
    """The picture, or the middle of one that is extremely long."""
    width, height = image.size
    most = _LONGEST_SHAPE * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))
