"""Search by a scan of every vector, stored as floats or as quantised codes, on a CPU or a GPU.

In: unit vectors, in memory or mapped.  Out: the best k.  Float kinds return the exact best k of the vectors as stored;
how much int8 and binary find is measured by `recall_against_exact`.  Memory: the codes, and one step of the scan (see
ExactSettings).  Added vectors form a small second segment until the index is saved, and a mask hides removed ones, so
that neither copies the codes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput, MissingExtra
from localmel.index.codes import codes_of
from localmel.index.folder import ARRAYS, Origin, checked_manifest, damaged, saving, settings_from
from localmel.index.protocol import IndexFacts
from localmel.index.segment import Segment, SegmentSearch
from localmel.index.settings import ExactSettings
from localmel.index.vectors import ROWS_AT_ONCE, allowed_ids, check_asked, check_shape, checked_ids, places, unit_chunks
from localmel.store import progress
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays

if TYPE_CHECKING:
    from torch import Tensor


class ExactIndex:
    """An index that scans all vectors."""

    def __init__(self, width: int, settings: ExactSettings) -> None:
        import torch

        if settings.device.startswith("cuda") and not torch.cuda.is_available():
            raise MissingExtra(
                f"cannot keep an index on {settings.device!r}: torch finds no GPU", hint="set device to cpu"
            )
        self._settings = settings
        self._width = width
        self._codes = codes_of(settings.kind)
        self._device = torch.device(settings.device)
        self._origin = Origin()
        self._base = self._tail = self._empty()
        self._live: NDArray[Any] | None = None  # (n,) bool over the base; None: all of them

    @classmethod
    def build(cls, vectors: NDArray[Any], settings: ExactSettings, *, ids: NDArray[Any] | None = None) -> Self:
        """Build an index of unit rows (n, width) under ids (n,), by default 0 to n - 1."""
        check_shape(vectors, vectors.shape[-1], "vectors")
        index = cls(vectors.shape[1], settings)
        index._base = index._segment(vectors, ids)
        return index

    @property
    def settings(self) -> ExactSettings:
        return self._settings

    @property
    def width(self) -> int:
        return self._width

    @property
    def n_bytes(self) -> int:
        segments = (self._base, self._tail)
        codes = sum(part.numel() * part.element_size() for segment in segments for part in segment.parts.values())
        masks = 0 if self._live is None else self._live.nbytes
        return codes + masks + sum(segment.ids.nbytes for segment in segments)

    def __len__(self) -> int:
        dead = 0 if self._live is None else len(self._live) - int(np.count_nonzero(self._live))
        return len(self._base) + len(self._tail) - dead

    def ids(self) -> NDArray[Any]:
        base = self._base.ids if self._live is None else self._base.ids[self._live]
        merged: NDArray[Any] = np.sort(np.concatenate([base, self._tail.ids]))
        return merged

    def add(self, vectors: NDArray[Any], ids: NDArray[Any]) -> None:
        import torch

        check_shape(vectors, self._width, "vectors")
        ids = checked_ids(ids, len(vectors))
        if known := np.intersect1d(ids, self.ids()).tolist():
            raise BadInput(
                f"cannot add {len(known):,} of the ids: {known[0]} is in the index already", hint="remove them"
            )
        new = self._segment(vectors, ids)
        order = np.argsort(merged := np.concatenate([self._tail.ids, new.ids]))
        there = torch.from_numpy(order).to(self._device)
        parts = {name: torch.cat([self._tail.parts[name], part])[there] for name, part in new.parts.items()}
        self._tail = Segment(ids=merged[order], parts=parts)

    def remove(self, ids: NDArray[Any]) -> None:
        import torch

        ids = checked_ids(ids, None)
        if unknown := np.setdiff1d(ids, self.ids()).tolist():
            raise BadInput(f"cannot remove {len(unknown):,} of the ids: {unknown[0]} is not in the index")
        in_tail = np.isin(self._tail.ids, ids)
        if in_tail.any():
            kept = torch.from_numpy(np.flatnonzero(~in_tail)).to(self._device)
            parts = {name: part[kept] for name, part in self._tail.parts.items()}
            ids = np.setdiff1d(ids, self._tail.ids)
            self._tail = Segment(ids=self._tail.ids[~in_tail], parts=parts)
        if len(ids):
            self._live = np.ones(len(self._base), bool) if self._live is None else self._live
            self._live[places(self._base.ids, ids)[0]] = False

    def search(
        self, queries: NDArray[Any], k: int, *, allowed: Iterable[int] | NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        import torch

        check_asked(queries, self._width, k)
        wanted = None if allowed is None else allowed_ids(allowed)
        on_device = torch.from_numpy(np.array(queries, np.float32)).to(self._device)
        answers = []
        for segment, live in ((self._base, self._live), (self._tail, None)):
            mask = live
            if wanted is not None:
                mask = np.zeros(len(segment), bool)
                found, there = places(segment.ids, wanted)
                mask[found[there]] = True
                mask = mask if live is None else mask & live
            if len(segment) or segment is self._base:
                answers.append(SegmentSearch(segment, self._codes, self._settings).search(on_device, k, mask))
        if len(answers) == 1:
            return answers[0]
        scores, ids = (np.concatenate(pair, axis=1) for pair in zip(*answers, strict=True))
        order = np.lexsort((ids, -scores))[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def scores_of(self, queries: NDArray[Any], ids: NDArray[Any]) -> NDArray[Any]:
        """Return inner products (m, c) float32 of queries (m, width) with the vectors of ids (m, c).

        The score of an id that is not in the index is -inf."""
        scores = np.full(ids.shape, -np.inf, np.float32)
        for segment in (self._base, self._tail):
            found, there = places(segment.ids, ids)
            for row in np.flatnonzero(there.any(axis=1)):
                parts = {name: _taken(part, found[row][there[row]])[None] for name, part in segment.parts.items()}
                scores[row, there[row]] = self._codes.products(queries[row : row + 1], parts)[0]
        return scores

    def save(self, folder: Path, facts: IndexFacts) -> None:
        count = len(self)
        live = np.arange(len(self._base)) if self._live is None else np.flatnonzero(self._live)
        positions = np.concatenate([live, len(self._base) + np.arange(len(self._tail))])
        ids = np.concatenate([self._base.ids, self._tail.ids])[positions]
        order = np.argsort(ids, kind="stable")
        ids, positions = ids[order], positions[order]
        with saving(folder, facts, self._settings, width=self._width, count=count, origin=self._origin) as temporary:
            layout = self._codes.layout(self._width)
            shapes = {name: (kind, (count, *shape)) for name, (kind, shape) in layout.items()}
            arrays = create_arrays(temporary / ARRAYS, {"ids": ("<i8", (count,)), **shapes})
            arrays["ids"][:] = ids
            for start in range(0, count, ROWS_AT_ONCE):
                chunk = positions[start : start + ROWS_AT_ONCE]
                for name in layout:
                    arrays[name][start : start + len(chunk)] = self._rows(name, chunk)
            flush_arrays(arrays)

    def _rows(self, name: str, positions: NDArray[Any]) -> NDArray[Any]:
        """Return one part of the vectors at these positions, counted through the base and then the tail."""
        import torch

        from_base = positions < len(self._base)
        base, tail = self._base.parts[name], self._tail.parts[name]
        out = torch.empty((len(positions), *base.shape[1:]), dtype=base.dtype)
        out[torch.from_numpy(from_base)] = base[self._there(positions[from_base])].cpu()
        out[torch.from_numpy(~from_base)] = tail[self._there(positions[~from_base] - len(self._base))].cpu()
        array: NDArray[Any] = out.numpy()
        return array

    def _there(self, positions: NDArray[Any]) -> Tensor:
        import torch

        return torch.from_numpy(positions).to(self._device)

    @classmethod
    def load(cls, folder: Path, facts: IndexFacts, *, device: str = "cpu") -> Self:
        manifest = checked_manifest(folder, facts)
        index = cls(facts.width, settings_from(manifest, ExactSettings, folder, device=device))
        arrays = map_arrays(folder / ARRAYS)
        layout = index._codes.layout(facts.width)
        count = manifest["count"]
        shapes = {"ids": (count,), **{name: (count, *shape) for name, (_, shape) in layout.items()}}
        if {name: array.shape for name, array in arrays.items()} != shapes:
            raise damaged(folder, "arrays of other shapes than its manifest says")
        parts = {name: _mapped(arrays[name]).to(index._device) for name in layout}
        index._base = Segment(ids=arrays["ids"], parts=parts)
        index._origin.remember(folder)
        return index

    def _empty(self) -> Segment:
        return self._segment(np.zeros((0, self._width), np.float32), None)

    def _segment(self, vectors: NDArray[Any], ids: NDArray[Any] | None) -> Segment:
        import torch

        n = len(vectors)
        found = np.arange(n) if ids is None else checked_ids(ids, n)
        in_order = n < 2 or bool((np.diff(found) > 0).all())
        order = None if in_order else np.argsort(found)
        first = self._codes.encode(torch.zeros((0, self._width)))
        parts = {
            name: torch.empty((n, *part.shape[1:]), dtype=part.dtype, device=self._device)
            for name, part in first.items()
        }
        for start, rows in unit_chunks(vectors, order=order):
            codes = self._codes.encode(torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(self._device))
            for name, part in codes.items():
                parts[name][start : start + len(rows)] = part
            progress.advance(len(rows))
        return Segment(ids=found if order is None else found[order], parts=parts)


def _mapped(array: NDArray[Any]) -> Tensor:
    """Return a tensor over a mapped file.  Codes are never written to, so torch's warning is silenced."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _taken(part: Tensor, positions: NDArray[Any]) -> NDArray[Any]:
    """Return some rows of one part in main memory.  NumPy takes a few rows faster than torch starts its threads."""
    import torch

    if part.device.type == "cpu":
        rows: NDArray[Any] = part.numpy()[positions]
        return rows
    there: NDArray[Any] = part[torch.from_numpy(positions).to(part.device)].cpu().numpy()
    return there
