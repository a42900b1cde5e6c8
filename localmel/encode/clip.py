"""CLIP: texts and pictures -> unit vectors of one space, and the states of their words and patches.

In: the folder of a model; texts, or opened pictures.  Out: vectors in the order of what came in.  The model runs in
float32 on a CPU, in bfloat16 or float16 on a GPU.  The name of the space includes a hash of everything that the vectors
depend on, so that vectors of two models are never compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.clip_folder import read_clip_folder
from localmel.encode.clip_model import ClipModel, bounded, load_clip
from localmel.encode.space import MOST_WORDS, Space, batches_by_length
from localmel.engines.pictures import Picture

if TYPE_CHECKING:
    from torch import Tensor

    from localmel.encode.clip_tunable import TunableClip

_TEXTS_AT_ONCE = 4096
"How many texts are tokenized and sorted together."
_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 65_536}
_PICTURES_AT_ONCE = {"cpu": 16, "cuda": 256}


class Clip:
    """An encoder of texts, words, pictures and patches.  The model is loaded when it is first needed."""

    def __init__(self, folder: Path, *, device: str = "auto", precision: str = "auto") -> None:
        """Check the folder.  Raises MissingWeights or CorruptArtifact where it cannot be used."""
        self.folder = folder
        self._folder = read_clip_folder(folder)
        self._device, self._precision = device, precision

    @property
    def space(self) -> Space:
        """Return the space of texts, which is that of pictures too: a caption lies near its picture."""
        width, sha256 = self._folder.width, self._folder.sha256
        return Space(name=f"clip-{width}-{sha256[:12]}", width=width, weights_sha256=sha256)

    @property
    def image_space(self) -> Space:
        """Return the space of pictures, which is that of texts too."""
        return self.space

    @property
    def word_width(self) -> int:
        """Return the width of the text tower."""
        return int(self._folder.model["text_cfg"].get("width", 512))

    @property
    def patch_width(self) -> int:
        """Return the width of the image tower."""
        return int(self._folder.model["vision_cfg"].get("width", 768))

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        """Return one unit vector per text, shape (n, width) float32.

        Tokens beyond the model's context are not read.  open_clip pads each text to the whole context; for a causal
        model the padding changes nothing and is left out."""
        vectors = np.empty((len(texts), self._folder.width), np.float32)
        if not len(texts):
            return vectors
        import torch

        model = self._model
        for first, tokens in self._tokens(texts):
            ends = (model.ends(tokens) if model.is_causal else torch.full((len(tokens),), tokens.shape[1] - 1)).tolist()
            for batch in batches_by_length([end + 1 for end in ends], _TOKENS_AT_ONCE[self._kind]):
                given = tokens[batch, : ends[batch[-1]] + 1].to(model.device)
                with torch.inference_mode():
                    if model.is_causal:
                        last = model.text_states(given)[range(len(batch)), [ends[place] for place in batch]]
                        made = model.projected(last)
                    else:
                        made = model.network.encode_text(given)
                vectors[[first + place for place in batch]] = _unit_rows(made)
                on_texts(len(batch))
        return vectors

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> list[NDArray[Any]]:
        """Return the states of each text's words, after the text tower's last norm; see `WordEncoder`.

        Raises BadInput for a model whose text tower reads its padding."""
        import torch

        model = self._model
        model.check_words()
        made: dict[int, NDArray[Any]] = {}
        for first, tokens in self._tokens(texts):
            n_words = (model.ends(tokens) - 1).clamp(max=MOST_WORDS).tolist()
            for batch in batches_by_length([n + 1 for n in n_words], _TOKENS_AT_ONCE[self._kind]):
                longest = n_words[batch[-1]] + 1  # the begin token included
                with torch.inference_mode():
                    states = model.text_states(tokens[batch, :longest].to(model.device)).half().cpu()
                for place, own in zip(batch, states, strict=True):
                    made[first + place] = own[1 : 1 + n_words[place]].numpy().copy()
                on_texts(len(batch))
        return [made[place] for place in range(len(texts))]

    def encode_images(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> NDArray[Any]:
        """Return one unit vector per picture, shape (n, width) float32."""
        parts = [np.empty((0, self._folder.width), np.float32)]
        for pixels in self._pixels(pictures):
            import torch  # after the first picture: nothing heavy is loaded for none at all

            with torch.inference_mode():
                made = self._model.network.encode_image(pixels)
            parts.append(_unit_rows(made))
            on_pictures(len(pixels))
        return np.concatenate(parts)

    def patches(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> list[NDArray[Any]]:
        """Return the states of each picture's patches, before the image tower's last norm; see `PatchEncoder`.

        Raises BadInput for a model whose image tower is not a transformer of patches."""
        import torch

        self._model.check_patches()
        made: list[NDArray[Any]] = []
        for pixels in self._pixels(pictures):
            with torch.inference_mode():
                patches = self._model.whole_and_patches(pixels)[1]
            made += [own.copy() for own in patches.half().cpu().numpy()]
            on_pictures(len(pixels))
        return made

    def tunable(self, *, sees: bool, recompute: bool) -> TunableClip:
        """Return a copy with gradients; see `tunable.py`.  Raises BadInput for a model without words or patches."""
        from localmel.encode.clip_tunable import TunableClip

        return TunableClip(self.folder, self.space, sees=sees, recompute=recompute)

    @cached_property
    def _model(self) -> ClipModel:
        return load_clip(self._folder, device=self._device, precision=self._precision)

    @property
    def _kind(self) -> str:
        return "cuda" if self._model.device.type == "cuda" else "cpu"

    def _tokens(self, texts: Sequence[str]) -> Iterator[tuple[int, Tensor]]:
        """Yield the token ids of some texts, (some, context), and the position of the first one."""
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            some = [text.encode("utf-8", "replace").decode() for text in texts[first : first + _TEXTS_AT_ONCE]]
            yield first, self._model.tokenize(some)

    def _pixels(self, pictures: Iterable[Picture]) -> Iterator[Tensor]:
        """Yield batches of prepared pictures, (batch, 3, height, width); the model is not loaded for none at all."""
        remaining = iter(pictures)
        if (first := next(remaining, None)) is None:
            return
        import torch

        prepared = (self._model.prepare(bounded(picture.image)) for picture in chain([first], remaining))
        while batch := list(islice(prepared, _PICTURES_AT_ONCE[self._kind])):
            yield torch.stack(batch).to(self._model.device, self._model.dtype)


def _unit_rows(vectors: Tensor) -> NDArray[Any]:
    from torch.nn.functional import normalize

    rows: NDArray[Any] = normalize(vectors.float(), dim=1).cpu().numpy()
    return rows
