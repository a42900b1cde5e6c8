"""The header of a safetensors file: which tensors it holds, and whether its bytes can be those.

In: a path.  Out: name, type, shape and place of every tensor.  Refuses a header that does not add up: holes, overlaps,
sizes that do not follow from type and shape, a file shorter or longer than its tensors.  Reads no tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact

LONGEST_HEADER = 32 * 1024 * 1024
"Bytes.  The largest published checkpoints stay under one MiB a file; the format itself allows 100 MB."

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlace:
    """One tensor: its type as the format names it, its shape, and its bytes counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path, *, size: int | None = None) -> dict[str, TensorPlace]:
    """Name -> place of every tensor, in the order of the bytes.  Raises CorruptArtifact naming the file.

    `size` stands for the file's size where only its beginning is there yet."""
    actual = path.stat().st_size if size is None else size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if actual < 8 or length > min(LONGEST_HEADER, actual - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {actual:,}")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_repetition)
        return _checked(header, actual - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CorruptArtifact(f"{path} is no whole safetensors file ({_short(error)})") from None


def n_parameters(tensors: Mapping[str, TensorPlace]) -> int:
    """How many numbers the tensors hold.  Of packed 4-bit weights these are the packed ones."""
    return sum(math.prod(place.shape) for place in tensors.values())


def _checked(header: Any, n_bytes: int) -> dict[str, TensorPlace]:
    if not isinstance(header, dict):
        raise ValueError("a header that is no table")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise ValueError("__metadata__ that is not text")
    places = {}
    for name, facts in header.items():
        if not isinstance(facts, dict) or set(facts) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name!r} without dtype, shape and data_offsets")
        shape, (start, end) = tuple(facts["shape"]), facts["data_offsets"]
        if not all(_is_count(number) for number in (*shape, start, end)):
            raise ValueError(f"tensor {name!r} with a size that is no count")
        if facts["dtype"] not in _BITS:
            raise ValueError(f"tensor {name!r} of type {facts['dtype']!r}")
        if math.prod(shape) * _BITS[facts["dtype"]] != (end - start) * 8:
            raise ValueError(f"tensor {name!r} of shape {list(shape)} in {end - start:,} bytes")
        places[name] = TensorPlace(dtype=facts["dtype"], shape=shape, start=start, end=end)
    ordered = dict(sorted(places.items(), key=lambda pair: (pair[1].start, pair[1].end)))
    position = 0
    for name, place in ordered.items():
        if place.start != position:
            raise ValueError(f"tensor {name!r} begins at {place.start:,}, the one before it ends at {position:,}")
        position = place.end
    if position != n_bytes:
        raise ValueError(f"{n_bytes:,} bytes of tensors, the header names {position:,}")
    return ordered


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name that stands twice")
    return found


def _short(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 300 else f"{text[:300]}..."
