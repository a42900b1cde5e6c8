"""A folder as training writes one for a tuned MiniLM, with a few numbers for weights: all of it is looked at, none of
it is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

from localmel.store.artifacts import sha256_of
from localmel.weights.catalog import MINILM, verified_folder
from localmel.weights.tuned import TunedCard, write_tuned_card
from tests.weights.small import tensors

BESIDE = ("config.json", "tokenizer.json")


def small_tuned_minilm(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in BESIDE:
        shutil.copyfile(verified_folder(MINILM) / name, folder / name)
    (folder / "model.safetensors").write_bytes(tensors({"embeddings.word_embeddings.weight": (8, 4)}))
    card = TunedCard(
        model=MINILM.name,
        sha256=sha256_of(folder / "model.safetensors"),
        tuned_from={"name": MINILM.name},
        facts={},
        files={name: sha256_of(folder / name) for name in BESIDE},
    )
    write_tuned_card(folder, card)
    return folder
