"""KBs of made-up features, and mentions of their entities, on which a small M3EL network can be trained in seconds.

In: how many, and whether entities stand alone or in clusters.  Out: tables of features.  A mention's whole text and
picture are dim, one of its words and one of its patches are clear; some rows lack a text or a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from localmel.retrieve.matchers.features import Features, FeatureTable, laid_end_to_end, pictures_of
from localmel.retrieve.matchers.m3el import M3el, M3elSettings
from localmel.retrieve.matchers.m3el_losses import M3elLossSettings, m3el_losses

WIDTH, PATCH_WIDTH = 16, 12
SETTINGS = M3elSettings(text_width=WIDTH, word_width=WIDTH, image_width=PATCH_WIDTH, patch_width=PATCH_WIDTH, width=20)
_PER_CLUSTER = 25
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Entities, and mentions of some of them."""

    entities: FeatureTable
    mentions: FeatureTable
    gold: NDArray[np.int64]


def crowd(n_entities: int, n_mentions: int, *, clustered: bool, seed: int = 0) -> Crowd:
    """Draw one."""
    chance = np.random.default_rng(seed)
    keys = _units(chance, n_entities)
    if clustered:
        centres = _units(chance, max(1, n_entities // _PER_CLUSTER))
        keys = _blurred(chance, centres[chance.integers(len(centres), size=n_entities)], 0.6)
    gold = chance.permutation(n_entities)[:n_mentions]
    return Crowd(
        entities=_table(chance, keys, dim=0.2, without=0.15),
        mentions=_table(chance, keys[gold], dim=1.2, without=0.1),
        gold=gold,
    )


def trained(settings: M3elSettings = SETTINGS, *, steps: int = 80, clustered: bool = False, seed: int = 0) -> M3el:
    """A network that has seen mentions of other entities drawn alike."""
    torch.manual_seed(seed)
    network = M3el(settings)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=0.0)
    source = crowd(32 * steps, 32 * steps, clustered=clustered, seed=1000 + seed)
    for rows in np.split(np.arange(32 * steps), steps):
        mentions, entities = source.mentions.of(rows), source.entities.of(source.gold[rows])
        parts = network.parts(network.mentions(mentions), network.entities(entities))
        wholes = network.whole_vectors(mentions), network.whole_vectors(entities)
        optimiser.zero_grad()
        m3el_losses(parts, *wholes, torch.arange(len(rows)), M3elLossSettings()).total.backward()
        optimiser.step()
    return network.eval()


def given(table: FeatureTable) -> Features:
    """All of its rows."""
    return table.of(np.arange(len(table)))


def _table(chance: np.random.Generator, keys: Floats, *, dim: float, without: float) -> FeatureTable:
    n = len(keys)
    texts, pictures = chance.random(n) >= without / 3, chance.random(n) >= without
    no_words = np.zeros((0, WIDTH), np.float32)
    words = [_tokens(chance, key) if there else no_words for key, there in zip(keys, texts, strict=True)]
    whole = _blurred(chance, keys, dim)
    shown = [_picture(chance, key, dim) if there else [] for key, there in zip(keys, pictures, strict=True)]
    return FeatureTable(
        text=whole * texts[:, None],
        words=laid_end_to_end(words, WIDTH),
        pictures=pictures_of(shown, image=PATCH_WIDTH, patch=PATCH_WIDTH),
    )


def _picture(chance: np.random.Generator, key: Floats, dim: float) -> list[tuple[Floats, Floats]]:
    """One picture: its vector and its patches."""
    seen = key[:PATCH_WIDTH]
    return [(_blurred(chance, seen, dim), _tokens(chance, seen))]


def _tokens(chance: np.random.Generator, key: Floats) -> Floats:
    """The key, slightly blurred, among two to six others."""
    tokens = _units(chance, int(chance.integers(3, 8)), len(key))
    tokens[chance.integers(len(tokens))] = _blurred(chance, key, 0.2)
    return tokens


def _units(chance: np.random.Generator, n: int, width: int = WIDTH) -> Floats:
    values = chance.normal(size=(n, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _blurred(chance: np.random.Generator, vectors: Floats, by: float) -> Floats:
    noise = chance.normal(size=vectors.shape).astype(np.float32) / np.sqrt(vectors.shape[-1])
    mixed = vectors + by * noise
    return (mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)).astype(np.float32)
