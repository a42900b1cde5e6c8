"""all-MiniLM-L6-v2 in torch and bfloat16, for encoding in bulk.

In: the weights as `minilm.read_weights` names them.  Out: a step over one padded batch.  The six layers are written
out because loading the model through transformers costs seconds and pads, and because bfloat16 is wanted in the
matrix products only: pooling and scaling stay in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


_HEADS, _EPSILON = 12, 1e-12


class TorchStep:
    """One padded batch on CUDA where there is a GPU, else on `threads` cores."""

    def __init__(self, weights: dict[str, NDArray[Any]], *, threads: int) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(threads)
        self._layers = _Layers(weights, self._device)

    @property
    def tokens_at_once(self) -> int:
        """Few on a CPU, where larger steps leave the cache; many on a GPU, which they fill."""
        return 2048 if self._device.type == "cpu" else 131_072

    def __call__(self, token_ids: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """token_ids (batch, length), lengths (batch,) -> (batch, width) float32, unit rows."""
        with torch.inference_mode():
            vectors = self._layers.vectors(
                torch.from_numpy(token_ids).to(self._device), torch.from_numpy(lengths).to(self._device)
            )
            found: NDArray[Any] = vectors.cpu().numpy()
        return found


class _Layers:
    """The network in bfloat16.  Matrices are kept (out, in), as `linear` takes them."""

    def __init__(self, weights: dict[str, NDArray[Any]], device: torch.device) -> None:
        self._weights = {
            name: torch.from_numpy(value.T.copy() if name.endswith(".weight") else value).to(device, torch.bfloat16)
            for name, value in weights.items()
        }
        self._n_layers = sum(name.endswith("qkv.weight") for name in weights)

    def vectors(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """token_ids: (batch, length), lengths: (batch,).  Returns (batch, width) float32, unit rows."""
        batch, length = token_ids.shape
        is_token = torch.arange(length, device=token_ids.device) < lengths[:, None]
        mask = None if bool(is_token.all()) else is_token[:, None, None, :]
        states = self._weights["words"][token_ids] + self._weights["positions"][:length]
        states = self._norm(states, "embedding")
        for number in range(self._n_layers):
            queries, keys, values = self._linear(states, f"{number}.qkv").view(batch, length, 3, _HEADS, -1).unbind(2)
            attended = F.scaled_dot_product_attention(
                queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
            )
            mixed = self._linear(attended.transpose(1, 2).reshape(batch, length, -1), f"{number}.out")
            states = self._norm(states + mixed, f"{number}.out")
            raised = F.gelu(self._linear(states, f"{number}.up"))
            states = self._norm(states + self._linear(raised, f"{number}.down"), f"{number}.down")
        return F.normalize((states.float() * is_token[..., None]).sum(1), dim=1)

    def _linear(self, states: Tensor, name: str) -> Tensor:
        return F.linear(states, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, states: Tensor, name: str) -> Tensor:
        scale, shift = self._weights[f"{name}.norm.scale"], self._weights[f"{name}.norm.shift"]
        return F.layer_norm(states, scale.shape, scale, shift, _EPSILON)
