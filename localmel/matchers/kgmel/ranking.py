"""Embed all entities of a KB with the fusion network, and rank each mention's gold.

In: a network and the vectors it fuses.  Out: one vector per entity or mention; ranks by counting.
Entities are processed in pieces with nearly equal numbers of triples, which limits memory. Several processes share the
pieces and get the same results as one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from localmel.errors import BadInput
from localmel.matchers.kgmel.inputs import EntityVectors, MentionVectors, fusion_inputs, rows_of
from localmel.matchers.kgmel.kb_triples import pieces_of
from localmel.matchers.kgmel.network import FusionNetwork
from localmel.matchers.train.learner import Alone, Workers

_ROWS_AT_ONCE = 4096
_MENTIONS_AT_ONCE = 256


@torch.no_grad()
def embed_entities(network: FusionNetwork, entities: EntityVectors, workers: Workers | None = None) -> Tensor:
    """Return unit rows on the network's device in position order, (n, width).  Raises BadInput for a damaged input."""
    workers = workers or Alone()
    network.eval()
    device = _device_of(network)
    vectors = torch.zeros(len(entities.text), network.settings.width, device=device)
    for number, piece in enumerate(pieces_of(entities.triples.counts())):
        if number % workers.of == workers.number:
            inputs = fusion_inputs(entities, piece, entities.triples.of(piece), np.zeros(len(piece), bool), device)
            vectors[torch.from_numpy(piece).to(device)] = unit_rows(network.embed(**inputs), "entity", piece)
    return workers.sum(vectors)


@torch.no_grad()
def embed_mentions(network: FusionNetwork, mentions: MentionVectors, rows: NDArray[np.int64]) -> Tensor:
    """Return unit rows on the network's device, shape (len(rows), width)."""
    network.eval()
    device = _device_of(network)
    parts = [torch.empty(0, network.settings.width, device=device)]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        inputs = fusion_inputs(mentions, some, rows_of(mentions.triples, some), np.zeros(len(some), bool), device)
        parts.append(unit_rows(network.embed(**inputs), "mention", some))
    return torch.cat(parts)


def unit_rows(vectors: Tensor, what: str, numbers: NDArray[np.int64]) -> Tensor:
    """Return the rows scaled to length 1.  Raises BadInput for a row that is zero or not finite."""
    length = vectors.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(length).all() and (length > 0).all()):
        wrong = int(numbers[int((~(torch.isfinite(length) & (length > 0))).nonzero()[0, 0])])
        raise BadInput(
            f"the fused vector of {what} {wrong} is zero or not finite: its inputs or the network are damaged"
        )
    return F.normalize(vectors, dim=1)


@torch.no_grad()
def gold_ranks(
    network: FusionNetwork, mentions: MentionVectors, entities: Tensor, workers: Workers | None = None
) -> Tensor:
    """Return the rank of each gold by cosine: 1 + higher entities + half of the tied ones; 0 without a gold.  (m,)"""
    workers = workers or Alone()
    ranks = torch.zeros(len(mentions), dtype=torch.float64, device=entities.device)
    own = np.flatnonzero(mentions.gold >= 0)[workers.number :: workers.of]
    vectors = embed_mentions(network, mentions, own)
    for start in range(0, len(own), _MENTIONS_AT_ONCE):
        rows = own[start : start + _MENTIONS_AT_ONCE]
        scores = vectors[start : start + _MENTIONS_AT_ONCE] @ entities.T
        right = scores.gather(1, torch.from_numpy(mentions.gold[rows]).to(entities.device)[:, None])
        above, level = (scores > right).sum(dim=1), (scores == right).sum(dim=1) - 1
        ranks[torch.from_numpy(rows).to(entities.device)] = (1.0 + above + level / 2).double()
    return workers.sum(ranks)


@torch.no_grad()
def nearest_entities(
    network: FusionNetwork, mentions: MentionVectors, entities: Tensor, most: int, workers: Workers | None = None
) -> NDArray[np.int64]:
    """Return the positions of the entities nearest to each mention, shape (m, most)."""
    workers = workers or Alone()
    most = min(most, len(entities))
    found = torch.zeros(len(mentions), most, dtype=torch.int64, device=entities.device)
    own = np.arange(workers.number, len(mentions), workers.of)
    for start in range(0, len(own), _ROWS_AT_ONCE):
        rows = own[start : start + _ROWS_AT_ONCE]
        vectors = torch.split(embed_mentions(network, mentions, rows), _MENTIONS_AT_ONCE)
        best = torch.cat([(part @ entities.T).topk(most, dim=1).indices for part in vectors])
        found[torch.from_numpy(rows).to(entities.device)] = best
    numbers: NDArray[np.int64] = workers.sum(found).cpu().numpy()
    return numbers


def _device_of(network: FusionNetwork) -> torch.device:
    return network.tail_in.weight.device
