"""all-MiniLM-L6-v2: texts -> unit vectors of 384 numbers, and the states of their words.

In: texts.  Out: vectors in the order of the texts.  Two methods compute the same function: ONNX Runtime in float32
(starts in half a second, needs no torch) and torch in bfloat16 (several times faster in bulk where the CPU has
bfloat16 instructions, or on a GPU).  The weights are the published ones, or those of a folder in which they were
tuned.  Words are computed by torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.encode.minilm_weights import PUBLISHED, TOKENIZER, WEIGHTS, WIDTH, read_weights, tuned_space
from localmel.encode.space import Method, Space, batches_by_length
from localmel.settings.shipped import shipped
from localmel.weights.catalog import MINILM, verified_folder

if TYPE_CHECKING:
    from localmel.encode.minilm_torch import TunableMiniLm, WordStates

MAX_TOKENS = 128
"The length the model was trained at; later tokens of a longer text are not read."
_BULK_TEXTS = 3000
"From this many texts on, torch wins back the seconds that importing it takes."


class Step(Protocol):
    """Encodes one padded batch."""

    @property
    def tokens_at_once(self) -> int:
        """Return how many tokens, padding included, are best encoded in one step."""

    def __call__(self, token_ids: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        """Return unit rows, shape (batch, width) float32.

        token_ids: (batch, length) int64, padded on the right; lengths: (batch,) int32."""
        ...


class MiniLM:
    """The encoder of the `embedded` profile.  Picks the faster method for the amount of work unless one is given."""

    def __init__(self, *, method: Method | None = None, threads: int | None = None, tuned: Path | None = None) -> None:
        """Find the weights, or those in the folder `tuned`.

        Raises MissingWeights or CorruptArtifact where the bytes are not the recorded ones."""
        self.folder = tuned or verified_folder(MINILM)
        self._space = tuned_space(tuned) if tuned else PUBLISHED
        self._method = method
        self._threads = threads or len(os.sched_getaffinity(0))
        self._steps: dict[Method, Step] = {}

    @property
    def space(self) -> Space:
        """Return the space of the vectors, which is the same for both methods."""
        return self._space

    @property
    def word_width(self) -> int:
        """Return the length of a word's state, which is that of a text's vector."""
        return WIDTH

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        """Return one unit vector per text, shape (n, 384) float32.  An empty text gets the vector of no words."""
        vectors = np.empty((len(texts), WIDTH), np.float32)
        if not len(texts):
            return vectors
        method = self._method or best_method(len(texts))
        step = self._steps.get(method) or self._steps.setdefault(method, self._load(method))
        tokens = self.tokens(texts)
        for chosen in batches_by_length([len(one) for one in tokens], step.tokens_at_once):
            lengths = np.array([len(tokens[place]) for place in chosen], np.int32)
            token_ids = np.zeros((len(chosen), lengths.max()), np.int64)
            for line, place in zip(token_ids, chosen, strict=True):
                line[: len(tokens[place])] = tokens[place]
            vectors[chosen] = step(token_ids, lengths)
            on_texts(len(chosen))
        return vectors

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, at most MAX_TOKENS with the begin and end tokens."""
        encodings = self._tokenizer.encode_batch([text.encode("utf-8", "replace").decode() for text in texts])
        return [encoding.ids for encoding in encodings]

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> list[NDArray[Any]]:
        """Return the states of each text's words; see `WordEncoder`."""
        return self._word_states.of(self.tokens(texts), on_texts)

    def tunable(self, *, sees: bool, recompute: bool) -> TunableMiniLm:
        """Return a copy with gradients; see `tunable.py`.  It reads no pictures, so `sees` changes nothing."""
        from localmel.encode.minilm_torch import TunableMiniLm

        return TunableMiniLm(self.folder, self.space, self.tokens, recompute=recompute)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer

    @cached_property
    def _word_states(self) -> WordStates:
        from localmel.encode.minilm_torch import WordStates

        return WordStates(read_weights(self.folder / WEIGHTS), short=best_method(_BULK_TEXTS) == "torch")

    def _load(self, method: Method) -> Step:
        weights = read_weights(self.folder / WEIGHTS)
        if method == "torch":
            from localmel.encode.minilm_torch import TorchStep

            return TorchStep(weights, threads=self._threads)
        return OnnxRuntimeStep(weights, threads=self._threads)


def best_method(n_texts: int) -> Method:
    """Return torch for many texts where it has bfloat16 instructions or a GPU, else ONNX Runtime."""
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


class OnnxRuntimeStep:
    """Runs the graph that ships with localmel, in float32."""

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
        """Encode one padded batch; see `Step`."""
        vectors: NDArray[Any] = self._session.run(None, {"token_ids": token_ids, "lengths": lengths})[0]
        return vectors
