"""Scan one segment of vectors; an exact index consists of two.

In: codes with their ids, queries, a mask.  Out: the best k ids of each query.  The scan keeps some more candidates than
k, and these are scored again by the exact query.  Where a candidate that was dropped could still be among the best k,
the scan is repeated for that query with more candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.index.codes import Codes, Scratch
from localmel.index.protocol import NO_ID
from localmel.index.settings import ExactSettings

if TYPE_CHECKING:
    from torch import Tensor

_SPARE = 16
"The scan keeps at least this many candidates beyond k."
_POOLED = 16
"How many chunks are scanned before their best candidates are merged."
_COORDINATES_AT_ONCE = 2**22
"How many coordinates are decoded at once when candidates are scored again."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """The codes of n vectors under ascending ids."""

    ids: NDArray[Any]  # (n,) int64, ascending
    parts: Mapping[str, Tensor]  # each (n, ...)

    def __len__(self) -> int:
        return len(self.ids)


class SegmentSearch:
    """Searches one segment in one way."""

    def __init__(self, segment: Segment, codes: Codes, settings: ExactSettings) -> None:
        self._segment = segment
        self._codes = codes
        self._settings = settings
        self._scratch = Scratch()

    def search(self, queries: Tensor, k: int, mask: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return scores (m, k) and ids (m, k), filled up with -inf and NO_ID.

        queries: (m, w) float32; mask: (n,) bool, which vectors may be found."""
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), NO_ID, np.int64)
        n = len(self._segment) if mask is None else int(np.count_nonzero(mask))
        if not n or not k:
            return scores, ids
        kept = min(k, n)
        room = min(n, max(k * (self._settings.rescored or self._codes.rescored), k + _SPARE))
        open_rows = np.arange(len(queries))
        while len(open_rows):
            unsure = []
            at_once = min(self._settings.queries_at_once, max(1, _COORDINATES_AT_ONCE // room))
            for start in range(0, len(open_rows), at_once):
                rows = open_rows[start : start + at_once]
                found = self._best(queries[rows], kept, room, mask)
                scores[rows, :kept], ids[rows, :kept] = found[:2]
                if room < n:
                    unsure.append(rows[found[2]])
            open_rows = np.concatenate(unsure) if unsure else open_rows[:0]
            room = min(n, room * 4)
        return scores, ids

    def _best(
        self, queries: Tensor, k: int, room: int, mask: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return scores and ids (m, k), and whether a dropped candidate could be among them, (m,)."""
        scanned, positions = (array.cpu().numpy() for array in self._scan(queries, room, mask))
        exact = self._scored_again(queries, positions)
        ids = self._segment.ids[positions]
        order = np.lexsort((ids, -exact))[:, :k]
        exact, ids = (np.take_along_axis(array, order, axis=1) for array in (exact, ids))
        slack = self._codes.slack(queries)
        worst = scanned.min(axis=1)
        if slack is None:
            unsure = np.take_along_axis(scanned, order, axis=1).min(axis=1) <= worst
        else:
            unsure = exact[:, -1] <= worst + slack
        return exact, ids, unsure

    def _scan(self, queries: Tensor, room: int, mask: NDArray[Any] | None) -> tuple[Tensor, Tensor]:
        """Return scores (m, room) float32 and positions (m, room), in any order."""
        import torch

        ready = self._codes.ready(queries)
        pool: list[tuple[Tensor, Tensor]] = []
        at_once = min(self._settings.rows_at_once, max(1, self._settings.scores_at_once // len(queries)))
        for start in range(0, len(self._segment), at_once):
            window = slice(start, start + at_once)
            if (top := self._chunk(ready, window, room, mask)) is not None:
                pool.append(top)
            if len(pool) >= _POOLED:
                pool = [_merged(pool, room)]
        scores, positions = _merged(pool, room)
        return scores.to(torch.float32), positions

    def _chunk(self, ready: Any, window: slice, room: int, mask: NDArray[Any] | None) -> tuple[Tensor, Tensor] | None:
        """Return the best of one chunk, or None if the mask excludes all of it."""
        import torch

        rows = {name: part[window] for name, part in self._segment.parts.items()}
        n_rows = min(window.stop, len(self._segment)) - window.start
        live = np.flatnonzero(mask[window]) if mask is not None else None
        if live is not None and not len(live):
            return None
        few = live is not None and len(live) <= n_rows // 2
        if live is not None and few:  # copying few rows is cheaper than scanning all
            there = torch.from_numpy(live)
            rows = {name: part[there.to(part.device)] for name, part in rows.items()}
            n_rows = len(live)
        scores = self._codes.scan(ready, rows, self._scratch)
        if mask is not None and live is not None and not few and len(live) < n_rows:
            scores.masked_fill_(torch.from_numpy(~mask[window]).to(scores.device), -torch.inf)
        top = scores.topk(min(room, n_rows), dim=1)
        positions = top.indices
        if live is not None and few:
            positions = torch.from_numpy(live).to(positions.device)[positions]
        return top.values.float(), positions + window.start

    def _scored_again(self, queries: Tensor, positions: NDArray[Any]) -> NDArray[Any]:
        """Return inner products (m, c) float32 with the decoded vectors at positions (m, c), rounded once."""
        import torch

        out = np.empty(positions.shape, np.float32)
        on_host = queries.cpu().numpy()
        at_once = max(1, _COORDINATES_AT_ONCE // (positions.shape[1] * queries.shape[1]))
        for start in range(0, len(queries), at_once):
            rows = slice(start, start + at_once)
            parts = {}
            for name, part in self._segment.parts.items():
                if part.device.type == "cpu":
                    parts[name] = part.numpy()[positions[rows]]
                else:
                    parts[name] = part[torch.from_numpy(positions[rows]).to(part.device)].cpu().numpy()
            out[rows] = self._codes.products(on_host[rows], parts)
        return out


def _merged(pool: list[tuple[Tensor, Tensor]], room: int) -> tuple[Tensor, Tensor]:
    """Return the best `room` of all chunks so far."""
    import torch

    scores = torch.cat([scores for scores, _ in pool], dim=1)
    positions = torch.cat([positions for _, positions in pool], dim=1)
    if scores.shape[1] <= room:
        return scores, positions
    top = scores.topk(room, dim=1)
    return top.values, positions.gather(1, top.indices)
