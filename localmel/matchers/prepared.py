"""Compute the vectors and tokens of a KB's entities once per matcher, for both steps of a search.

In: a matcher and the features of the entities.  Out: a folder with vectors in float32 (their inner products are scores)
and tokens in float16, memory-mapped, tied to the matcher and to the source of the features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.index import IndexFacts, IndexSettings, VectorIndex, build_index, load_index
from localmel.kb.packed import Lists
from localmel.matchers.protocol import EntityFeatures, Matcher, Side, Tokens, padded
from localmel.matchers.trained import SIDES_KIND, SIDES_VERSION
from localmel.store import progress
from localmel.store.arrays import ResumableArrays, read_arrays, starts_of

Given = TypeVar("Given")
_ROWS_AT_ONCE = 1024


class LaidOutSides:
    """An `EntitySides` without padding in storage."""

    def __init__(self, vectors: NDArray[Any], tokens: Mapping[str, Lists]) -> None:
        self.vectors = vectors
        "(n, width) float32."
        self.tokens = tokens
        "Token vectors of each entity, by name."

    def __len__(self) -> int:
        return len(self.vectors)

    def of(self, positions: NDArray[np.int64]) -> Side:
        """Return the entities at `positions`, padded to the longest of them."""
        made = {name: padded(lists, positions) for name, lists in self.tokens.items()}
        return Side(
            vectors=torch.from_numpy(np.array(self.vectors[positions], np.float32)),
            tokens={name: Tokens(values=values, there=there) for name, (values, there) in made.items()},
        )


class PreparedSides(LaidOutSides):
    """An `EntitySides` stored on disk."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Open a folder.  Raises FileNotFoundError if absent, BadInput if made from other facts, CorruptArtifact if
        damaged."""
        manifest, arrays = read_arrays(folder, kind=SIDES_KIND, version=SIDES_VERSION)
        if different := [name for name, value in facts.items() if manifest.get(name) != value]:
            raise BadInput(
                f"{folder} was made from another {' and another '.join(different)}",
                hint=shell_line("rm -r", folder, note="then run again what made it"),
            )
        tokens = {
            name: Lists(starts=starts_of(arrays[f"{name}.counts"]), values=arrays[name]) for name in manifest["tokens"]
        }
        super().__init__(arrays["vectors"], tokens)
        self.state = hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()
        "Changes with every byte."


@torch.no_grad()
def prepare_entities(
    matcher: Matcher[Given], entities: EntityFeatures[Given], folder: Path, facts: Mapping[str, Any]
) -> PreparedSides:
    """Return the sides of all entities, computed unless they exist.

    facts: the matcher's hash and everything the features depend on. An interrupted run resumes after its last piece.
    Progress counts entities."""
    try:
        return PreparedSides(folder, facts)
    except (FileNotFoundError, BadInput):
        pass
    n = len(entities)
    sample = matcher.entities(entities.of(np.arange(0)))
    resumable = ResumableArrays(folder, {**facts, "tokens": sorted(sample.tokens)})
    for number, first in enumerate(range(0, max(n, 1), _ROWS_AT_ONCE)):
        positions = np.arange(first, min(first + _ROWS_AT_ONCE, n))
        if number >= resumable.pieces:
            resumable.add(_columns(matcher.entities(entities.of(positions))))
        progress.advance(len(positions))
    resumable.seal(kind=SIDES_KIND, version=SIDES_VERSION)
    return PreparedSides(folder, facts)


@torch.no_grad()
def sides_in_memory(matcher: Matcher[Given], entities: EntityFeatures[Given]) -> LaidOutSides:
    """Return the sides of all entities in memory, for a network that is still being trained."""
    n = len(entities)
    pieces = [
        _columns(matcher.entities(entities.of(np.arange(first, min(first + _ROWS_AT_ONCE, n)))))
        for first in range(0, max(n, 1), _ROWS_AT_ONCE)
    ]
    whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    names = [name for name in whole if f"{name}.counts" in whole]
    tokens = {name: Lists(starts=starts_of(whole[f"{name}.counts"]), values=whole[name]) for name in names}
    return LaidOutSides(whole["vectors"], tokens)


def _columns(side: Side) -> dict[str, NDArray[Any]]:
    arrays = {"vectors": np.ascontiguousarray(side.vectors.float().cpu().numpy())}
    for name, tokens in side.tokens.items():
        arrays[name] = tokens.values[tokens.there].half().cpu().numpy()
        arrays[f"{name}.counts"] = tokens.there.sum(dim=1).cpu().numpy()
    return arrays


def index_sides(sides: LaidOutSides, settings: IndexSettings, folder: Path | None = None) -> tuple[VectorIndex, float]:
    """Return the index of the first step over the entities' positions, and the length of the longest vector.

    With a folder, the index is stored there, tied to the sides on disk, and loaded from there the next time."""
    lifted, longest = lifted_entities(sides.vectors)
    if folder is None:
        return build_index(lifted, settings), longest
    assert isinstance(sides, PreparedSides)
    facts = IndexFacts(space="lifted", width=lifted.shape[1], made_from=sides.state)
    try:
        index = load_index(folder, facts)
        if index.settings.kind == settings.kind:
            return index, longest
    except (FileNotFoundError, BadInput, CorruptArtifact):
        pass
    index = build_index(lifted, settings)
    index.save(folder, facts)
    return index, longest


def lifted_entities(vectors: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """Return unit rows (n, width + 1) for vectors (n, width), and the longest vector's length (1 if all are zero)."""
    lengths = _lengths(vectors, "entity")
    longest = float(lengths.max(initial=0.0)) or 1.0
    unit = np.empty((len(vectors), vectors.shape[1] + 1), np.float32)
    unit[:, :-1] = vectors / np.float32(longest)
    unit[:, -1] = np.sqrt(np.maximum(0.0, 1.0 - (lengths / longest) ** 2))
    return unit, longest


def lifted_mentions(vectors: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return unit rows (m, width + 1) for vectors (m, width), and the length of each vector (m,).

    A mention without any features has length 0: all its scores are 0."""
    lengths = _lengths(vectors, "mention")
    unit = np.zeros((len(vectors), vectors.shape[1] + 1), np.float32)
    unit[:, :-1] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
    unit[lengths == 0, -1] = 1.0
    return unit, lengths


def _lengths(vectors: NDArray[Any], what: str) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("nw,nw->n", vectors, vectors, dtype=np.float64))
    if not np.isfinite(lengths).all():
        wrong = int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise BadInput(f"the vector of {what} {wrong} is not finite: its features or the matcher are damaged")
    return lengths
