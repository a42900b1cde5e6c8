"""How much memory a model will need: an estimate from its size and shape, not a measurement.

    weights = quantised parameters x bytes each + parameters kept in 16 bit x 2
    cache   = 2 (key, value) x layers x key-value heads x head width x 2 bytes x tokens x requests at once
    rest    = 1.5 GiB for the runtime, its kernels, activations and the vision tower's work on one picture

In: an entry of the catalog, a quantisation, tokens, requests at once.  Out: bytes.  What was really used stands in the
manifest of a run (`peak_memory_bytes`)."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.errors import UsageError
from localmel.weights.catalog import CatalogEntry

_PACKED = (4 + 20 / 128) / 8
BYTES_EACH = {"16bit": 2.0, "8bit": 1.0, "fp8": 1.0, "4bit": 4.5 / 8, "awq": _PACKED, "gptq": _PACKED}
"""Of one quantised parameter.  4bit is NF4: four bits, and a 32-bit scale for each 64 parameters; AWQ and GPTQ have 20
bits of scale and zero for each 128."""
REST_BYTES = 3 * 512 * 1024 * 1024
"An assumption, on the large side for one picture at a time."
PROMPT_TOKENS = 2048
"Text of a prompt and its answer, beside the picture."


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes, by what they are for."""

    weights: int
    cache: int
    rest: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.rest


def estimated_memory(
    entry: CatalogEntry, quantization: str = "16bit", *, tokens: int = 0, at_once: int = 1
) -> MemoryEstimate:
    """The estimate for one model.  `tokens` per request; 0 takes one picture and PROMPT_TOKENS.

    Models that make vectors keep no cache; they are counted in 32 bit, as they are published.  Raises UsageError for a
    quantisation whose size is not known."""
    if not entry.layers:
        return MemoryEstimate(weights=4 * entry.parameters, cache=0, rest=REST_BYTES // 3)
    if quantization not in BYTES_EACH:
        raise UsageError(f"no estimate for {quantization!r}; there is one for {', '.join(BYTES_EACH)}")
    kept = entry.parameters if quantization == "16bit" else entry.kept
    weights = 2 * kept + BYTES_EACH[quantization] * (entry.parameters - kept)
    wanted = tokens or entry.image_tokens + PROMPT_TOKENS
    per_token = 2 * entry.layers * entry.kv_heads * entry.head_width * 2
    return MemoryEstimate(
        weights=int(weights), cache=per_token * min(wanted, entry.context or wanted) * at_once, rest=REST_BYTES
    )
