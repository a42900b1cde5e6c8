"""all-MiniLM-L6-v2 in torch: its six layers, for encoding in bulk, for the states of single words, and for tuning.

In: the weights as `minilm.read_weights` names them.  Out: states of tokens; and a step over one padded batch in
bfloat16.  The layers are written out because loading the model through transformers costs seconds and pads, and because
bfloat16 is wanted in the matrix products only: pooling and scaling stay in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_HEADS, _EPSILON = 12, 1e-12


class TorchStep:
    """One padded batch on CUDA where there is a GPU, else on `threads` cores."""

    def __init__(self, weights: dict[str, NDArray[Any]], *, threads: int) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(threads)
        self._weights = as_tensors(weights, self._device, torch.bfloat16)

    @property
    def tokens_at_once(self) -> int:
        """Few on a CPU, where larger steps leave the cache; many on a GPU, which they fill."""
        return 2048 if self._device.type == "cpu" else 131_072

    def __call__(self, token_ids: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """token_ids (batch, length), lengths (batch,) -> (batch, width) float32, unit rows."""
        with torch.inference_mode():
            ids, ends = (torch.from_numpy(values).to(self._device) for values in (token_ids, lengths))
            is_token = tokens_there(ids.shape[1], ends)
            found: NDArray[Any] = pooled(last_states(self._weights, ids, is_token), is_token).cpu().numpy()
        return found


def as_tensors(weights: Mapping[str, NDArray[Any]], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies by the same names; matrices are (out, in), as `linear` takes them."""
    return {
        name: torch.from_numpy(value.T.copy() if name.endswith(".weight") else value).to(device, dtype)
        for name, value in weights.items()
    }


def tokens_there(length: int, lengths: Tensor) -> Tensor:
    """lengths: (batch,).  Returns (batch, length) bool; false where a text has ended."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def last_states(
    weights: Mapping[str, Tensor], token_ids: Tensor, is_token: Tensor, *, recompute: bool = False
) -> Tensor:
    """token_ids: (batch, length), is_token: the same in bool.  Returns (batch, length, width) of the last layer.

    recompute: keep only what goes into each layer, and run it again for the gradient."""
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
    """(batch, length, width), (batch, length) -> (batch, width) float32, unit rows."""
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
