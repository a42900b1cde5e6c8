"""Prepare vectors of mentions and entities for the fusion network.

In: arrays, memory-mapped if large.  Out: the tensors of some rows.  Passes golds through without using them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from localmel.kb.packed import Lists
from localmel.matchers.kgmel.kb_triples import KbTriples, TripleArrays
from localmel.matchers.kgmel.network import PackedTriples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MentionVectors:
    """The inputs of m mentions before fusion."""

    text: NDArray[Any]  # (m, text width) float32
    triples: TripleArrays  # m rows
    gold: NDArray[Any]  # (m,) int64 position of the gold in the KB, -1 where it has none
    candidates: NDArray[Any]  # (m, k) int64 positions found by name, -1 beyond
    image: NDArray[Any] | None = None  # (m, image width) float32
    has_image: NDArray[Any] | None = None  # (m,) bool

    def __len__(self) -> int:
        return len(self.text)

    def triples_of(self, rows: NDArray[Any], *, without: NDArray[Any] | None = None) -> TripleArrays:
        """Return the triples of some mentions.  `without` applies to entities only."""
        return rows_of(self.triples, rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EntityVectors:
    """The inputs of the n entities of a KB before fusion."""

    text: NDArray[Any]  # (n, text width)
    triples: KbTriples
    image: NDArray[Any] | None = None  # (n, image width)
    has_image: NDArray[Any] | None = None  # (n,) bool

    def triples_of(self, rows: NDArray[Any], *, without: NDArray[Any] | None = None) -> TripleArrays:
        """Return the triples of some entities, (b,); rows where `without` (b,) is true get none."""
        return self.triples.of(rows, without=without)


class NoTriples(KbTriples):
    """A KB whose entities have no triples, for ablation."""

    def counts(self) -> NDArray[Any]:
        """Return zero for every entity, shape (n,)."""
        return np.zeros_like(super().counts())

    def of(self, positions: NDArray[Any], *, without: NDArray[Any] | None = None) -> TripleArrays:
        """Return empty lists of triples for the entities at `positions` (b,)."""
        return super().of(positions, without=np.ones(len(positions), bool))


def fusion_inputs(
    vectors: MentionVectors | EntityVectors,
    rows: NDArray[Any],
    triples: TripleArrays,
    blind: NDArray[Any],
    device: torch.device,
) -> dict[str, Any]:
    """Return the arguments of `FusionNetwork.forward` for some rows of one side; rows where `blind` (b,) get no
    image."""
    inputs: dict[str, Any] = {
        "text": _tensor(np.asarray(vectors.text[rows], np.float32)).to(device),
        "triples": packed_triples(triples).to(device),
    }
    if vectors.image is not None:
        seen = ~blind if vectors.has_image is None else vectors.has_image[rows] & ~blind
        inputs["image"] = _tensor(np.asarray(vectors.image[rows], np.float32)).to(device)
        inputs["has_image"] = _tensor(seen).to(device)
    return inputs


def packed_triples(arrays: TripleArrays) -> PackedTriples:
    """Return the same triples as tensors."""
    return PackedTriples(**{name: _tensor(value) for name, value in arrays.named()})


def rows_of(triples: TripleArrays, rows: NDArray[Any]) -> TripleArrays:
    """Return the triples of some rows only; the tables of pairs are kept whole."""
    values, owner = Lists(starts=triples.starts, values=triples.triples).of(rows)
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(rows)))])
    pairs, numbers = np.unique(values, return_inverse=True)
    tails, tail_numbers = np.unique(triples.pair_tail[pairs], return_inverse=True)
    return replace(
        triples,
        tails=triples.tails[tails],
        pair_tail=tail_numbers,
        pair_relation=triples.pair_relation[pairs],
        triples=numbers,
        starts=starts,
    )


def _tensor(values: NDArray[Any]) -> torch.Tensor:
    """Return the same values, copied only if not contiguous or not writable (torch requires writable memory)."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
