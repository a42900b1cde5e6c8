"""all-MiniLM-L6-v2: texts -> unit vectors of 384 numbers, on what this machine has.

In: texts.  Out: vectors in the order of the texts.  Two ways to compute the same function: ONNX Runtime in float32
(starts in half a second, needs no torch) and torch in bfloat16 (several times faster in bulk where the CPU has
bfloat16 instructions, or on a GPU).  Texts are batched by length, so that little is spent on padding.  The weights are
the published ones, or those of a folder in which they were tuned; both ways compute either."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.encode.batches import batches_by_length
from localmel.encode.space import Space
from localmel.errors import CorruptArtifact, MissingWeights, shell_line
from localmel.settings.shipped import shipped
from localmel.store.artifacts import sha256_of
from localmel.weights.catalog import MINILM, verified_folder
from localmel.weights.tuned import CARD, MADE_AGAIN, tuned_card

WIDTH, LAYERS = 384, 6
MAX_TOKENS = 128
"The length the model was trained at; later tokens of a longer text are not read."
_BULK_TEXTS = 3000
"From this many texts on, the seconds that importing torch costs are won back."
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"

Method = Literal["onnxruntime", "torch"]

PUBLISHED = Space(name=MINILM.name, width=WIDTH, weights_sha256=MINILM.sha256[WEIGHTS])


class Step(Protocol):
    """token_ids (batch, length) int64 right-padded, lengths (batch,) int32 -> unit rows (batch, width) float32."""

    @property
    def tokens_at_once(self) -> int:
        """Tokens with padding that are best taken in one step."""

    def __call__(self, token_ids: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]: ...


class MiniLM:
    """The encoder of the `embedded` profile.  The method is chosen by the work unless it is given."""

    def __init__(self, *, method: Method | None = None, threads: int | None = None, tuned: Path | None = None) -> None:
        """tuned: a folder of tuned weights.  Raises MissingWeights or CorruptArtifact for weights of other bytes."""
        self.folder = tuned or verified_folder(MINILM)
        self._space = tuned_space(tuned) if tuned else PUBLISHED
        self._method = method
        self._threads = threads or len(os.sched_getaffinity(0))
        self._steps: dict[Method, Step] = {}

    @property
    def space(self) -> Space:
        """MiniLM vectors, whichever method made them."""
        return self._space

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        """(n,) texts -> (n, 384) float32, unit rows.  An empty text gets the vector of no words."""
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

        tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer

    def _load(self, method: Method) -> Step:
        weights = read_weights(self.folder / WEIGHTS)
        if method == "torch":
            from localmel.encode.minilm_torch import TorchStep

            return TorchStep(weights, threads=self._threads)
        return OnnxRuntimeStep(weights, threads=self._threads)


def tuned_space(folder: Path) -> Space:
    """That of a folder of tuned weights, every byte of which is looked at.

    Raises MissingWeights where a file is missing, CorruptArtifact where one is not as it was written."""
    card = tuned_card(folder)
    if card is None or card.model != MINILM.name:
        raise MissingWeights(f"{folder} holds no {MINILM.name} that was tuned: no {CARD} says so", hint=MADE_AGAIN)
    for name in (WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise MissingWeights(f"{folder} is incomplete: {name} is missing", hint=MADE_AGAIN)
    if sha256_of(folder / TOKENIZER) != MINILM.sha256[TOKENIZER]:
        fact = f"{folder / TOKENIZER} is not that of {MINILM.name}, with which the weights were tuned"
        raise CorruptArtifact(fact, hint=shell_line("cp", verified_folder(MINILM) / TOKENIZER, folder))
    sha256 = sha256_of(folder / WEIGHTS)
    card.check(folder, sha256)
    return Space(name=f"minilm-{WIDTH}-{sha256[:12]}", width=WIDTH, weights_sha256=sha256)


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


def published_names(weights: Mapping[str, NDArray[Any]], before: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What `read_weights` takes apart, put together again: the same numbers under the names of the published file.

    before: a published file's tensors, for what localmel does not read.  The vector of the first kind of token, which
    stands in the positions here, becomes zero."""
    stored = dict(before)
    kinds = stored["embeddings.token_type_embeddings.weight"].copy()
    kinds[0] = 0
    stored |= {
        "embeddings.word_embeddings.weight": weights["words"],
        "embeddings.position_embeddings.weight": weights["positions"],
        "embeddings.token_type_embeddings.weight": kinds,
        "embeddings.LayerNorm.weight": weights["embedding.norm.scale"],
        "embeddings.LayerNorm.bias": weights["embedding.norm.shift"],
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        matrices = np.split(weights[f"{number}.qkv.weight"].T, 3)
        biases = np.split(weights[f"{number}.qkv.bias"], 3)
        for part, matrix, bias in zip(("query", "key", "value"), matrices, biases, strict=True):
            stored[f"{layer}attention.self.{part}.weight"] = matrix
            stored[f"{layer}attention.self.{part}.bias"] = bias
        for ours, theirs in (("out", "attention.output"), ("up", "intermediate"), ("down", "output")):
            stored[f"{layer}{theirs}.dense.weight"] = weights[f"{number}.{ours}.weight"].T
            stored[f"{layer}{theirs}.dense.bias"] = weights[f"{number}.{ours}.bias"]
        for ours, theirs in (("out", "attention.output"), ("down", "output")):
            stored[f"{layer}{theirs}.LayerNorm.weight"] = weights[f"{number}.{ours}.norm.scale"]
            stored[f"{layer}{theirs}.LayerNorm.bias"] = weights[f"{number}.{ours}.norm.shift"]
    return {name: np.ascontiguousarray(value) for name, value in stored.items()}


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
