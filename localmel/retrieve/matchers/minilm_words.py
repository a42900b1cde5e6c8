"""MiniLM's words: the states of its last layer before they are averaged.

In: texts.  Out: states in float16.  In torch: bfloat16 on a GPU and on a CPU that has instructions for it, else
float32; matrices as `encode/minilm.py` reads them.  The six layers are those of `encode/minilm_torch.py`, whose step
gives the mean only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from localmel.encode.batches import batches_by_length
from localmel.encode.minilm import MAX_TOKENS, WIDTH, MiniLM, best_method, read_weights
from localmel.retrieve.matchers.token_encoders import MOST_WORDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADS, _EPSILON = 12, 1e-12
_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 131_072}
_MANY_TEXTS = 1_000_000
"So many that torch is best wherever the processor has instructions for bfloat16."


class MiniLmWords(MiniLM):
    """A `WordEncoder` beside the encoder of whole texts."""

    @property
    def word_width(self) -> int:
        """That of a whole text."""
        return WIDTH

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> list[NDArray[Any]]:
        """See `WordEncoder`.  Each word has seen its whole text, of which MAX_TOKENS are read."""
        encodings = self._tokenizer.encode_batch([text.encode("utf-8", "replace").decode() for text in texts])
        tokens: list[list[int]] = [encoding.ids for encoding in encodings]
        assert max(map(len, tokens), default=0) <= MAX_TOKENS
        made: list[NDArray[Any]] = [None] * len(texts)  # type: ignore[list-item]  # every place is filled below
        for batch in batches_by_length([len(own) for own in tokens], _TOKENS_AT_ONCE[self._layers.device.type]):
            states = self._layers.states([tokens[place] for place in batch]).half().cpu()
            for place, own in zip(batch, states, strict=True):
                n_words = min(len(tokens[place]) - 2, MOST_WORDS)  # without the first mark and the last one
                made[place] = own[1 : 1 + n_words].numpy().copy()
            on_texts(len(batch))
        return made

    @cached_property
    def _layers(self) -> _Layers:
        return _Layers(read_weights(self._folder / "model.safetensors"))


class _Layers:
    """The network.  Matrices are kept (out, in), as `linear` takes them."""

    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        fast = self.device.type == "cuda" or best_method(_MANY_TEXTS) == "torch"
        dtype = torch.bfloat16 if fast else torch.float32
        self._weights = {
            name: torch.from_numpy(value.T.copy() if name.endswith(".weight") else value).to(self.device, dtype)
            for name, value in weights.items()
        }
        self._n_layers = sum(name.endswith("qkv.weight") for name in weights)

    @torch.inference_mode()
    def states(self, tokens: list[list[int]]) -> Tensor:
        """n lists of token ids -> (n, longest, width)."""
        batch, length = len(tokens), max(map(len, tokens))
        ids = torch.tensor([own + [0] * (length - len(own)) for own in tokens], device=self.device)
        lengths = torch.tensor([len(own) for own in tokens], device=self.device)
        mask = (torch.arange(length, device=self.device) < lengths[:, None])[:, None, None, :]
        states = self._norm(self._weights["words"][ids] + self._weights["positions"][:length], "embedding")
        for number in range(self._n_layers):
            queries, keys, values = self._linear(states, f"{number}.qkv").view(batch, length, 3, _HEADS, -1).unbind(2)
            attended = F.scaled_dot_product_attention(
                queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
            )
            mixed = self._linear(attended.transpose(1, 2).reshape(batch, length, -1), f"{number}.out")
            states = self._norm(states + mixed, f"{number}.out")
            raised = F.gelu(self._linear(states, f"{number}.up"))
            states = self._norm(states + self._linear(raised, f"{number}.down"), f"{number}.down")
        return states

    def _linear(self, states: Tensor, name: str) -> Tensor:
        return F.linear(states, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, states: Tensor, name: str) -> Tensor:
        scale, shift = self._weights[f"{name}.norm.scale"], self._weights[f"{name}.norm.shift"]
        return F.layer_norm(states, scale.shape, scale, shift, _EPSILON)
