"""CLIP's words and patches: what its towers hold before they are summed up in one vector.

In: texts, or opened pictures.  Out: states in float16; words behind the last norm of the text tower, patches before
that of the image tower, as M3EL takes them.  The encoder stays as it is: `tuning_clip.py` trains one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from localmel.encode.batches import batches_by_length
from localmel.encode.clip import Clip, bounded, ends_of, is_causal, text_states
from localmel.encode.clip_folder import read_clip_folder
from localmel.encode.token_encoders import MOST_WORDS
from localmel.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from localmel.engines.pictures import Picture

_TEXTS_AT_ONCE = 4096
_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 65_536}
_PICTURES_AT_ONCE = {"cpu": 16, "cuda": 256}


class ClipTokens(Clip):
    """A `WordEncoder` and a `PatchEncoder` beside the encoder of whole texts and pictures."""

    def __init__(self, folder: Path, *, device: str = "auto", precision: str = "auto") -> None:
        """Raises MissingWeights or CorruptArtifact for a folder that cannot be used as it is."""
        super().__init__(folder, device=device, precision=precision)
        self._config = read_clip_folder(folder).model

    @property
    def word_width(self) -> int:
        """Of the text tower."""
        return int(self._config["text_cfg"].get("width", 512))

    @property
    def patch_width(self) -> int:
        """Of the image tower."""
        return int(self._config["vision_cfg"].get("width", 768))

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> list[NDArray[Any]]:
        """See `WordEncoder`.  Raises BadInput for a model whose text tower reads its padding."""
        import torch

        model = self._model
        made: list[NDArray[Any]] = [None] * len(texts)  # type: ignore[list-item]  # every place is filled below
        if not is_causal(model.network):
            raise BadInput(f"{self.space.name} does not tell words from padding; its words cannot be looked at singly")
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            some = [text.encode("utf-8", "replace").decode() for text in texts[first : first + _TEXTS_AT_ONCE]]
            tokens = model.tokenize(some)
            n_words = (ends_of(model.network, tokens) - 1).clamp(max=MOST_WORDS).tolist()
            for batch in batches_by_length([n + 1 for n in n_words], _TOKENS_AT_ONCE[self._kind]):
                longest = n_words[batch[-1]] + 1  # with the mark of beginning; none sees what stands behind it
                with torch.inference_mode():
                    states = text_states(model.network, tokens[batch, :longest].to(model.device))
                    states = model.network.ln_final(states).half().cpu()
                for place, own in zip(batch, states, strict=True):
                    made[first + place] = own[1 : 1 + n_words[place]].numpy().copy()
                on_texts(len(batch))
        return made

    def patches(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> list[NDArray[Any]]:
        """See `PatchEncoder`.  Raises BadInput for a model whose image tower is no transformer of patches."""
        import torch

        model = self._model
        made: list[NDArray[Any]] = []
        held: list[Tensor] = []
        tower = getattr(model.network.visual, "transformer", None)
        if tower is None:
            raise BadInput(f"the image tower of {self.space.name} has no patches that could be looked at singly")
        prepared = (model.prepare(bounded(picture.image)) for picture in pictures)
        hook = tower.register_forward_hook(lambda _module, _given, states: held.append(states))
        try:
            while batch := list(islice(prepared, _PICTURES_AT_ONCE[self._kind])):
                with torch.inference_mode():
                    model.network.encode_image(torch.stack(batch).to(model.device, model.dtype))
                states = held.pop()[:, 1:]  # the first one is the whole's
                made += [own.copy() for own in states.half().cpu().numpy()]
                on_pictures(len(batch))
        finally:
            hook.remove()
        return made
