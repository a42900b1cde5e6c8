"""KBs of made-up features, and mentions of their entities, on which a small M3EL network can be trained in seconds.

In: how many, and whether entities stand alone or in clusters.  Out: tables of features.  A mention's whole text and
picture are dim, one of its words and one of its patches are clear; some rows lack a text or a picture.  Tests and
benchmarks draw from here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from localmel.kb.packed import Lists
from localmel.matchers.m3el.losses import M3elLossSettings, m3el_losses
from localmel.matchers.m3el.network import M3el, M3elSettings
from localmel.matchers.protocol import Features, FeatureTable, Pictures

WIDTH, PATCH_WIDTH = 16, 12
SETTINGS = M3elSettings(text_width=WIDTH, word_width=WIDTH, image_width=PATCH_WIDTH, patch_width=PATCH_WIDTH, width=20)
_PER_CLUSTER, _BATCH = 25, 32
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
    source = crowd(_BATCH * steps, _BATCH * steps, clustered=clustered, seed=1000 + seed)
    for rows in np.split(np.arange(_BATCH * steps), steps):
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
    """dim: how much noise is in the wholes; without: the share of rows without a picture (a third of it, a text)."""
    has_text, has_picture = chance.random(len(keys)) >= without / 3, chance.random(len(keys)) >= without
    seen = keys[:, :PATCH_WIDTH]
    shown = Pictures(
        whole=_blurred(chance, seen, dim) * has_picture[:, None], patches=_tokens(chance, seen, has_picture)
    )
    text = _blurred(chance, keys, dim) * has_text[:, None]
    return FeatureTable(text=text, words=_tokens(chance, keys, has_text), pictures=shown)


def _tokens(chance: np.random.Generator, keys: Floats, there: NDArray[np.bool_]) -> Lists:
    """Each key, slightly blurred, among two to six others; none where nothing is there."""
    counts = chance.integers(3, 8, size=len(keys)) * there
    starts = np.concatenate([[0], np.cumsum(counts)])
    values = _units(chance, int(starts[-1]), keys.shape[1])
    places = starts[:-1] + (chance.random(len(keys)) * counts).astype(np.int64)
    values[places[there]] = _blurred(chance, keys[there], 0.2)
    return Lists(starts=starts, values=values)


def _units(chance: np.random.Generator, n: int, width: int = WIDTH) -> Floats:
    values = chance.standard_normal((n, width), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _blurred(chance: np.random.Generator, vectors: Floats, by: float) -> Floats:
    """Unit rows near the given ones; `by` is the length of the noise against a length of 1."""
    noise = chance.standard_normal(vectors.shape, dtype=np.float32) * np.float32(by / np.sqrt(vectors.shape[1]))
    mixed = vectors + noise
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
