"""all-MiniLM-L6-v2: texts -> unit vectors of 384 numbers, on what this machine has.

In: texts.  Out: vectors in the order of the texts.  Two ways to compute the same function: ONNX Runtime in float32
(starts in half a second, needs no torch) and torch in bfloat16 (several times faster in bulk where the CPU has
bfloat16 instructions, or on a GPU).  Texts are batched by length, so that little is spent on padding."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from localmel.encode.batches import batches_by_length
from localmel.encode.space import Space
from localmel.errors import CorruptArtifact
from localmel.shipped import shipped
from localmel.weights.catalog import MINILM, verified_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, LAYERS = 384, 6
MAX_TOKENS = 128
"The length the model was trained at; later tokens of a longer text are not read."
_BULK_TEXTS = 3000
"From this many texts on, the seconds that importing torch costs are won back."

Method = Literal["onnxruntime", "torch"]


class Step(Protocol):
    """token_ids (batch, length) int64 right-padded, lengths (batch,) int32 -> unit rows (batch, width) float32."""

    @property
    def tokens_at_once(self) -> int:
        """Tokens with padding that are best taken in one step."""

    def __call__(self, token_ids: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]: ...


class MiniLM:
    """The encoder of the `embedded` profile.  The method is chosen by the work unless it is given."""

    def __init__(self, *, method: Method | None = None, threads: int | None = None) -> None:
        self._folder = verified_folder(MINILM)
        self._method = method
        self._threads = threads or len(os.sched_getaffinity(0))
        self._steps: dict[Method, Step] = {}

    @property
    def space(self) -> Space:
        """MiniLM vectors, whichever method made them."""
        return Space(name=MINILM.name, width=WIDTH, weights_sha256=MINILM.sha256["model.safetensors"])

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        """(n,) texts -> (n, 384) float32, unit rows.  An empty text gets the vector of no words."""
        import numpy as np

        vectors = np.empty((len(texts), WIDTH), np.float32)
        if not len(texts):
            return vectors
        method = self._method or best_method(len(texts))
        step = self._steps.get(method) or self._steps.setdefault(method, self._load(method))
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        for chosen in batches_by_length([len(one) for one in tokens], step.tokens_at_once):
            lengths = np.array([len(tokens[place]) for place in chosen], np.int32)
            token_ids = np.zeros((len(chosen), lengths.max()), np.int64)
            for line, place in zip(token_ids, chosen, strict=True):
                line[: len(tokens[place])] = tokens[place]
            vectors[chosen] = step(token_ids, lengths)
            on_texts(len(chosen))
        return vectors

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer

    def _load(self, method: Method) -> Step:
        weights = read_weights(self._folder / "model.safetensors")
        if method == "torch":
            from localmel.encode.minilm_torch import TorchStep

            return TorchStep(weights, threads=self._threads)
        return OnnxRuntimeStep(weights, threads=self._threads)


def best_method(n_texts: int) -> Method:
    """torch for many texts where it can use bfloat16 instructions or a GPU, ONNX Runtime otherwise."""
    if n_texts < _BULK_TEXTS:
        return "onnxruntime"
    fast = _cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"} or Path("/proc/driver/nvidia/version").exists()
    return "torch" if fast else "onnxruntime"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()[2:]}


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """The published tensors under the names of the graph; matrices are (in, out), query, key and value side by side."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stored = load_file(path)
        weights = {
            "words": stored["embeddings.word_embeddings.weight"],
            "positions": stored["embeddings.position_embeddings.weight"]
            + stored["embeddings.token_type_embeddings.weight"][0],
            "embedding.norm.scale": stored["embeddings.LayerNorm.weight"],
            "embedding.norm.shift": stored["embeddings.LayerNorm.bias"],
        }
        for number in range(LAYERS):
            layer = f"encoder.layer.{number}."
            attention = [f"{layer}attention.self.{part}" for part in ("query", "key", "value")]
            weights[f"{number}.qkv.weight"] = np.concatenate([stored[f"{part}.weight"] for part in attention]).T.copy()
            weights[f"{number}.qkv.bias"] = np.concatenate([stored[f"{part}.bias"] for part in attention])
            for ours, theirs in (("out", "attention.output"), ("up", "intermediate"), ("down", "output")):
                weights[f"{number}.{ours}.weight"] = stored[f"{layer}{theirs}.dense.weight"].T.copy()
                weights[f"{number}.{ours}.bias"] = stored[f"{layer}{theirs}.dense.bias"]
            for ours, theirs in (("out", "attention.output"), ("down", "output")):
                weights[f"{number}.{ours}.norm.scale"] = stored[f"{layer}{theirs}.LayerNorm.weight"]
                weights[f"{number}.{ours}.norm.shift"] = stored[f"{layer}{theirs}.LayerNorm.bias"]
    except (SafetensorError, KeyError) as error:
        raise CorruptArtifact(f"{path} does not hold the tensors of {MINILM.name} ({error})") from None
    return weights


class OnnxRuntimeStep:
    """The graph that ships with localmel, run in float32."""

    tokens_at_once = 4096  # measured on 2 cores; larger steps leave the cache

    def __init__(self, weights: dict[str, NDArray[Any]], *, threads: int) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        options.add_external_initializers(list(weights), values)
        graph = shipped("weights/minilm-l6-v2/graph.onnx").read_bytes()
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, token_ids: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """One padded batch."""
        vectors: NDArray[Any] = self._session.run(None, {"token_ids": token_ids, "lengths": lengths})[0]
        return vectors
