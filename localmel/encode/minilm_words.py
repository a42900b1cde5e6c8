"""MiniLM's words: the states of its last layer before they are averaged.

In: texts.  Out: states in float16.  In torch, by the layers of `encode/minilm_torch.py`: bfloat16 on a GPU and on a CPU
that has instructions for it, else float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from localmel.encode.batches import batches_by_length
from localmel.encode.minilm import MAX_TOKENS, WEIGHTS, WIDTH, MiniLM, best_method, read_weights
from localmel.encode.minilm_torch import as_tensors, last_states, tokens_there
from localmel.encode.token_encoders import MOST_WORDS

_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 131_072}
_MANY_TEXTS = 1_000_000
"So many that torch is best wherever the processor has instructions for bfloat16."


class MiniLmWords(MiniLM):
    """A `WordEncoder` beside the encoder of whole texts."""

    @property
    def word_width(self) -> int:
        """That of a whole text."""
        return WIDTH

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of each text's tokens, with the marks of beginning and end; MAX_TOKENS are read."""
        encodings = self._tokenizer.encode_batch([text.encode("utf-8", "replace").decode() for text in texts])
        tokens: list[list[int]] = [encoding.ids for encoding in encodings]
        assert max(map(len, tokens), default=0) <= MAX_TOKENS
        return tokens

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> list[NDArray[Any]]:
        """See `WordEncoder`.  Each word has seen its whole text, of which MAX_TOKENS are read."""
        tokens = self.tokens(texts)
        made: list[NDArray[Any]] = [None] * len(texts)  # type: ignore[list-item]  # every place is filled below
        for batch in batches_by_length([len(own) for own in tokens], _TOKENS_AT_ONCE[self._layers.device.type]):
            states = self._layers.states([tokens[place] for place in batch]).half().cpu()
            for place, own in zip(batch, states, strict=True):
                made[place] = own[1 : 1 + words_in(len(tokens[place]))].numpy().copy()
            on_texts(len(batch))
        return made

    @cached_property
    def _layers(self) -> _Layers:
        return _Layers(read_weights(self.folder / WEIGHTS))


def words_in(n_tokens: int) -> int:
    """How many words of a text are looked at singly: not its first mark and its last one, and MOST_WORDS."""
    return min(n_tokens - 2, MOST_WORDS)


class _Layers:
    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        fast = self.device.type == "cuda" or best_method(_MANY_TEXTS) == "torch"
        self._weights = as_tensors(weights, self.device, torch.bfloat16 if fast else torch.float32)

    @torch.inference_mode()
    def states(self, tokens: list[list[int]]) -> Tensor:
        """n lists of token ids -> (n, longest, width)."""
        ids, lengths = padded_ids(tokens, self.device)
        return last_states(self._weights, ids, tokens_there(ids.shape[1], lengths))


def padded_ids(tokens: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """n lists of token ids -> (n, longest) with zeros behind their ends, and (n,) how long each is."""
    longest = max(map(len, tokens))
    ids = torch.tensor([[*own, *[0] * (longest - len(own))] for own in tokens], device=device)
    return ids, torch.tensor([len(own) for own in tokens], device=device)
