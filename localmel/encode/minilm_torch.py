"""all-MiniLM-L6-v2 in torch: its six layers, for encoding in bulk, for the states of words, and for tuning.

In: the weights as `minilm.read_weights` names them.  Out: states of tokens, and unit vectors of texts.
The layers are written out here because loading the model through transformers takes seconds and pads every text, and
because only the matrix products are to run in bfloat16: pooling and scaling stay in float32."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from localmel.encode.minilm_weights import TOKENIZER, WEIGHTS, published_names, read_weights
from localmel.encode.space import MOST_WORDS, Space, batches_by_length
from localmel.encode.tunable import TunableEncoder, padded_ids, tokens_there
from localmel.engines.pictures import Picture
from localmel.errors import BadInput
from localmel.store.artifacts import replace_folder, sha256_of, temporary_folder
from localmel.weights.catalog import MINILM
from localmel.weights.tuned import TunedCard, write_tuned_card

_HEADS, _EPSILON = 12, 1e-12
_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 131_072}
"Few on a CPU, where larger steps do not fit into the cache; many on a GPU, which they fill."


class TorchStep:
    """Encodes one padded batch, on CUDA where there is a GPU, else on `threads` cores; see `minilm.Step`."""

    def __init__(self, weights: dict[str, NDArray[Any]], *, threads: int) -> None:
        self._device = _best_device()
        torch.set_num_threads(threads)
        self._weights = as_tensors(weights, self._device, torch.bfloat16)
        self.tokens_at_once = _TOKENS_AT_ONCE[self._device.type]

    @torch.inference_mode()
    def __call__(self, token_ids: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """Return unit rows, shape (batch, width) float32.  token_ids: (batch, length); lengths: (batch,)."""
        ids, ends = (torch.from_numpy(values).to(self._device) for values in (token_ids, lengths))
        is_token = tokens_there(ids.shape[1], ends)
        found: NDArray[Any] = pooled(last_states(self._weights, ids, is_token), is_token).cpu().numpy()
        return found


class WordStates:
    """Computes the states of words: bfloat16 on a GPU, or where `short` is set, else float32."""

    def __init__(self, weights: dict[str, NDArray[Any]], *, short: bool) -> None:
        self._device = _best_device()
        fast = short or self._device.type == "cuda"
        self._weights = as_tensors(weights, self._device, torch.bfloat16 if fast else torch.float32)

    @torch.inference_mode()
    def of(self, tokens: Sequence[Sequence[int]], on_texts: Callable[[int], None]) -> list[NDArray[Any]]:
        """Return the states of each text's words, shape (words, width) float16.  tokens: the ids of each text."""
        made: dict[int, NDArray[Any]] = {}
        for batch in batches_by_length([len(own) for own in tokens], _TOKENS_AT_ONCE[self._device.type]):
            ids, lengths = padded_ids([tokens[place] for place in batch], self._device)
            states = last_states(self._weights, ids, tokens_there(ids.shape[1], lengths)).half().cpu()
            for place, own in zip(batch, states, strict=True):
                made[place] = own[1 : 1 + _n_words(len(tokens[place]))].numpy().copy()
            on_texts(len(batch))
        return [made[place] for place in range(len(tokens))]


def _best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _n_words(n_tokens: int) -> int:
    """Return how many words of a text get states: all tokens but the first and the last, at most MOST_WORDS."""
    return min(n_tokens - 2, MOST_WORDS)


def as_tensors(weights: Mapping[str, NDArray[Any]], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return copies under the same names; matrices become (out, in), as `F.linear` takes them."""
    return {
        name: torch.from_numpy(value.T.copy() if name.endswith(".weight") else value).to(device, dtype)
        for name, value in weights.items()
    }


def last_states(
    weights: Mapping[str, Tensor], token_ids: Tensor, is_token: Tensor, *, recompute: bool = False
) -> Tensor:
    """Return the states of the last layer, (batch, length, width).

    token_ids: (batch, length); is_token: the same shape, bool.
    recompute: keep only the input of each layer, and run the layer again for its gradient."""
    mask = None if bool(is_token.all()) else is_token[:, None, None, :]
    states = F.embedding(token_ids, weights["words"]) + weights["positions"][: token_ids.shape[1]]
    states = _norm(weights, states, "embedding")
    for number in range(sum(name.endswith("qkv.weight") for name in weights)):
        if recompute:
            states = checkpoint(_layer, weights, number, states, mask, use_reentrant=False)
        else:
            states = _layer(weights, number, states, mask)
    return states


def pooled(states: Tensor, is_token: Tensor) -> Tensor:
    """Return the mean state of each text as a unit row, (batch, width) float32.  states: (batch, length, width)."""
    return F.normalize((states.float() * is_token[..., None]).sum(1), dim=1)


def _layer(weights: Mapping[str, Tensor], number: int, states: Tensor, mask: Tensor | None) -> Tensor:
    batch, length = states.shape[:2]
    queries, keys, values = _linear(weights, states, f"{number}.qkv").view(batch, length, 3, _HEADS, -1).unbind(2)
    attended = F.scaled_dot_product_attention(
        queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
    )
    mixed = _linear(weights, attended.transpose(1, 2).reshape(batch, length, -1), f"{number}.out")
    states = _norm(weights, states + mixed, f"{number}.out")
    raised = F.gelu(_linear(weights, states, f"{number}.up"))
    return _norm(weights, states + _linear(weights, raised, f"{number}.down"), f"{number}.down")


def _linear(weights: Mapping[str, Tensor], states: Tensor, name: str) -> Tensor:
    return F.linear(states, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: Mapping[str, Tensor], states: Tensor, name: str) -> Tensor:
    scale, shift = weights[f"{name}.norm.scale"], weights[f"{name}.norm.shift"]
    return F.layer_norm(states, scale.shape, scale, shift, _EPSILON)


_COPIED = ("config.json", TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_DOT = "/"
"Replaces the dot in names of weights, which torch reserves for modules."


class TunableMiniLm(TunableEncoder):
    """MiniLM with gradients.  It reads texts only."""

    tokens_at_once: ClassVar[Mapping[str, int]] = {"cpu": 2048, "cuda": 65_536}
    pictures_at_once: ClassVar[Mapping[str, int]] = {"cpu": 1, "cuda": 1}

    def __init__(
        self, folder: Path, origin: Space, tokens: Callable[[Sequence[str]], list[list[int]]], *, recompute: bool
    ) -> None:
        """folder: the weights to begin with; tokens: the tokenizer."""
        super().__init__(origin, sees=False)
        self._folder, self._tokens, self._recompute = folder, tokens, recompute
        copied = as_tensors(read_weights(folder / WEIGHTS), torch.device("cpu"), torch.float32)
        self.weights = nn.ParameterDict(
            {name.replace(".", _DOT): nn.Parameter(value) for name, value in copied.items()}
        )

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, at most MAX_TOKENS."""
        return self._tokens(texts)

    def texts(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean of all states, the states of the first words, and which words exist."""
        ids, lengths = padded_ids(tokens, self.device)
        is_token = tokens_there(ids.shape[1], lengths)
        states = last_states(self._named(), ids, is_token, recompute=self._recompute)
        n_words = torch.tensor([_n_words(len(own)) for own in tokens], device=self.device)
        is_word = tokens_there(max(1, int(n_words.max())), n_words)
        words = states[:, 1 : 1 + is_word.shape[1]].float()
        return pooled(states, is_token), words * is_word[..., None], is_word

    def prepared(self, picture: Picture) -> Tensor:
        """Raise BadInput."""
        raise self._blind()

    def blank(self) -> Tensor:
        """Raise BadInput."""
        raise self._blind()

    def pictures(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Raise BadInput."""
        raise self._blind()

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the tuned weights under the published names, with copies of the other files."""
        from safetensors.numpy import load_file, save

        before = self._folder
        own = {name: value.detach().float().cpu().numpy() for name, value in self._named().items()}
        graph = {name: value.T if name.endswith(".weight") else value for name, value in own.items()}
        with temporary_folder(folder) as temporary:
            copied = [name for name in _COPIED if (before / name).is_file()]
            for name in copied:
                shutil.copyfile(before / name, temporary / name)
            stored = published_names(graph, load_file(before / WEIGHTS))
            (temporary / WEIGHTS).write_bytes(save(stored, metadata={"format": "pt"}))
            card = TunedCard(
                model=MINILM.name,
                sha256=sha256_of(temporary / WEIGHTS),
                tuned_from={
                    "name": self.origin.name,
                    "weights_sha256": self.origin.weights_sha256,
                    "licence": MINILM.licence,
                },
                facts=facts,
                files={name: sha256_of(temporary / name) for name in copied},
            )
            write_tuned_card(temporary, card)
            replace_folder(temporary, folder)

    def _blind(self) -> BadInput:
        return BadInput(f"cannot encode pictures: {self.origin.name} reads texts only")

    def _named(self) -> dict[str, Tensor]:
        return {name.replace(_DOT, "."): value for name, value in self.weights.items()}
