"""How fast texts become vectors beside the plain transformers loop, and whether a search still finds the same."""

from __future__ import annotations

import random
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.mel_kb import benchmark_kb
from bench.run import Figure
from localmel.encode.minilm import MAX_TOKENS, MiniLM, best_method
from localmel.kb.packed import entity_texts
from localmel.weights.catalog import MINILM, verified_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS, QUERIES, ROUNDS, PLAIN_BATCH = 7000, 1000, 3, 32


def measure(shared: Path) -> list[Figure]:
    """Interleaved rounds over the same texts; top-1 of 1,000 entity texts among 6,000 others."""
    import numpy as np

    texts = list(islice(entity_texts(benchmark_kb(shared)), 100_000))
    texts = random.Random(0).sample(texts, TEXTS)
    plain, ours = _plain_loop(), MiniLM(method=best_method(TEXTS))
    ours.encode(texts[:200])
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    vectors: dict[str, NDArray[Any]] = {}
    for _ in range(ROUNDS):
        for name, encode in (("plain", plain), ("ours", ours.encode)):
            start = time.perf_counter()
            vectors[name] = encode(texts)
            times[name].append(time.perf_counter() - start)
    ratios = [slow / fast for slow, fast in zip(times["plain"], times["ours"], strict=True)]
    best = {name: (found[:QUERIES] @ found[QUERIES:].T).argmax(axis=1) for name, found in vectors.items()}
    agreement = float((best["plain"] == best["ours"]).mean())
    rate = {name: TEXTS / min(spent) for name, spent in times.items()}
    value = f"{np.median(ratios):.1f} (rounds {', '.join(f'{ratio:.1f}' for ratio in ratios)})"
    return [
        Figure(section="encoding", name="texts/s, plain transformers loop", value=f"{rate['plain']:.0f}"),
        Figure(section="encoding", name=f"texts/s, {best_method(TEXTS)}", value=f"{rate['ours']:.0f}"),
        Figure(
            section="encoding", name="times the plain loop", value=value, asked="at least 4",
            reached=float(np.median(ratios)) >= 4,
        ),
        Figure(
            section="encoding", name="top-1 unchanged, 1,000 x 6,000", value=f"{agreement:.3f}", asked="at least .98",
            reached=agreement >= 0.98,
        ),
    ]  # fmt: skip


def _plain_loop() -> Any:
    """float32, input order, fixed batches: what one writes first."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    folder = verified_folder(MINILM)
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> NDArray[Any]:
        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), PLAIN_BATCH):
                batch = tokenizer.encode_batch(texts[start : start + PLAIN_BATCH])
                token_ids = torch.tensor([encoding.ids for encoding in batch])
                mask = torch.tensor([encoding.attention_mask for encoding in batch])
                states = model(input_ids=token_ids, attention_mask=mask).last_hidden_state * mask[..., None]
                found.append(torch.nn.functional.normalize(states.sum(dim=1), dim=1))
        return torch.cat(found).numpy()

    return encode
