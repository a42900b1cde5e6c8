"""The bulk encoder on a GPU: the same vectors as on a CPU, many more of them in a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
LAYERS, WIDTH, INNER, VOCABULARY, POSITIONS = 6, 384, 1536, 30522, 512


def random_weights() -> dict[str, NDArray[Any]]:
    """Weights of the model's shapes; norms near one, so that vectors stay tame."""
    random = np.random.default_rng(0)

    def matrix(*shape: int) -> NDArray[Any]:
        return (random.standard_normal(shape) * 0.05).astype(np.float32)

    weights = {"words": matrix(VOCABULARY, WIDTH), "positions": matrix(POSITIONS, WIDTH)}
    norms = ["embedding"]
    for number in range(LAYERS):
        norms += [f"{number}.out", f"{number}.down"]
        for part, shape in (
            ("qkv", (WIDTH, 3 * WIDTH)), ("out", (WIDTH, WIDTH)), ("up", (WIDTH, INNER)), ("down", (INNER, WIDTH))
        ):  # fmt: skip
            weights[f"{number}.{part}.weight"] = matrix(*shape)
            weights[f"{number}.{part}.bias"] = matrix(shape[1])
    for norm in norms:
        weights[f"{norm}.norm.scale"] = 1 + matrix(WIDTH)
        weights[f"{norm}.norm.shift"] = matrix(WIDTH)
    return weights


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_gives_the_vectors_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from localmel.encode.minilm_torch import TorchStep

    weights, random = random_weights(), np.random.default_rng(1)
    lengths = random.integers(1, 129, 300).astype(np.int32)
    token_ids = np.where(np.arange(128) < lengths[:, None], random.integers(0, VOCABULARY, (300, 128)), 0)
    on_gpu = TorchStep(weights, threads=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = TorchStep(weights, threads=4)
    assert on_gpu.tokens_at_once > on_cpu.tokens_at_once
    cosine = (on_gpu(token_ids, lengths) * on_cpu(token_ids, lengths)).sum(axis=1)
    assert cosine.min() > 0.999
