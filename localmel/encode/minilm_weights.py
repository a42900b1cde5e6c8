"""The weights of all-MiniLM-L6-v2: where they are, and how the published names map to ours.

In: a folder of the published model, or of one that was tuned from it.  Out: its space, and its tensors by the names
that the graph uses.  Every byte is hashed before a vector is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.space import Space
from localmel.errors import CorruptArtifact, MissingWeights, shell_line
from localmel.store.artifacts import sha256_of
from localmel.weights.catalog import MINILM, verified_folder
from localmel.weights.tuned import CARD, MADE_AGAIN, tuned_card

WIDTH, LAYERS = 384, 6
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
PUBLISHED = Space(name=MINILM.name, width=WIDTH, weights_sha256=MINILM.sha256[WEIGHTS])


def tuned_space(folder: Path) -> Space:
    """Return the space of tuned weights, after hashing every byte of their folder.

    Raises MissingWeights where a file is missing, CorruptArtifact where one is not as it was written."""
    card = tuned_card(folder)
    if card is None or card.model != MINILM.name:
        raise MissingWeights(f"{folder} is not a tuned {MINILM.name}: {CARD} does not say so", hint=MADE_AGAIN)
    for name in (WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise MissingWeights(f"{folder} is incomplete: {name} is missing", hint=MADE_AGAIN)
    if sha256_of(folder / TOKENIZER) != MINILM.sha256[TOKENIZER]:
        fact = f"{folder / TOKENIZER} is not that of {MINILM.name}, which the weights were tuned with"
        raise CorruptArtifact(fact, hint=shell_line("cp", verified_folder(MINILM) / TOKENIZER, folder))
    sha256 = sha256_of(folder / WEIGHTS)
    card.check(folder, sha256)
    return Space(name=f"minilm-{WIDTH}-{sha256[:12]}", width=WIDTH, weights_sha256=sha256)


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return the published tensors under the names of the graph.

    Matrices are (in, out); query, key and value are joined into one."""
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
        raise CorruptArtifact(f"cannot read {path}: it does not hold the tensors of {MINILM.name} ({error})") from None
    return weights


def published_names(weights: Mapping[str, NDArray[Any]], before: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Undo `read_weights`: return the same numbers under the names of the published file.

    before: the tensors of a published file, for those that localmel does not read.  The vector of token type 0 becomes
    zero, because `read_weights` adds it to the positions."""
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
