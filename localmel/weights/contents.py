"""Which files may be part of a model, and what they may contain.

In: the name of a file, its first bytes, a configuration, a safetensors header.  Out: nothing, or a refusal that names
the file; of a header, the place of every tensor.  Weights are safetensors whose header adds up; configurations are
JSON that asks for no code; everything else is text.  Nothing here runs, unpickles or renders what it looks at."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from localmel.errors import BadInput, CorruptArtifact

LONGEST_NAME = 100
"Bytes of a path inside a bundle: what the oldest tar header holds."
LARGEST_TEXT = 256 * 1024 * 1024
"Bytes of a file that is not safetensors; the largest vocabularies have about 40 MB."
LARGEST_CONFIGURATION = 16 * 1024 * 1024
"Bytes of a JSON file that is parsed here; the largest tokenizer configurations have about 1 MB."
LONGEST_HEADER = 32 * 1024 * 1024
"Bytes.  The largest published checkpoints stay under one MiB a file; the format itself allows 100 MB."
PIECE = 1024 * 1024
"Bytes that are read, hashed and written at a time."

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_DEEPEST = 4
_SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".jinja", ".md"}
_BARE = {"license", "licence", "notice", "copying", "copyright", "readme"}
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib", ".msgpack", ".h5"}
_CODE = {".py", ".pyc", ".so", ".sh", ".dll", ".dylib", ".js", ".exe"}
_DEVICE_NAMES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_BEGINNINGS = {b"PK\x03\x04": "a zip archive, as torch.save writes", b"\x7fELF": "a program", b"MZ": "a program",
               b"#!": "a script", b"\x1f\x8b": "a gzip archive", b"\x93NUMPY": "a NumPy array",
               b"\x89HDF": "an HDF5 file", b"GGUF": "a GGUF file"}  # fmt: skip
_VOCABULARIES = re.compile(r"(tokenizer|vocab|added_tokens|tekken|.*\.index)\.json")
"JSON that loaders read as data only; a vocabulary may hold any word as a key."
_REMOTE_CODE = ("auto_map", "custom_pipelines")
"Keys by which a configuration names Python files that a loader would import."
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


class UnsafeWeights(BadInput):
    """A file that has no place in a model: code, a pickle, a configuration that asks for code, a dangerous name."""


def refused_name(name: str) -> str:
    """Return why a path may not be part of a model; empty where it may."""
    if not name or len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        return f"has a name of {len(name)} characters; at most {LONGEST_NAME} are allowed"
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name:
        return "would lead out of its folder"
    if any(not _PART.fullmatch(part) or _DEVICE_NAMES.fullmatch(part) for part in parts) or len(parts) > _DEEPEST:
        return "is not a plain name"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _PICKLES:
        return "may hold a pickle; only safetensors are accepted as weights"
    if suffix in _CODE:
        return "is code; models that bring code are refused"
    if suffix not in _SUFFIXES and parts[-1].lower() not in _BARE:
        return f"is not a kind of file that models consist of ({', '.join(sorted(_SUFFIXES))}, LICENSE, NOTICE)"
    return ""


def check_beginning(name: str, first: bytes) -> None:
    """Refuse a file whose first bytes do not fit its name.  Errors show `name` as it is given."""
    if name.endswith(".safetensors"):
        if len(first) >= 9 and first[8:9] != b"{":
            raise UnsafeWeights(f"{name} is not a safetensors file: its header does not open with {{")
        return
    for beginning, kind in _BEGINNINGS.items():
        if first.startswith(beginning):
            raise UnsafeWeights(f"{name} is {kind}, which does not fit its name")
    if first[:1] == b"\x80":
        raise UnsafeWeights(f"{name} is a pickle")
    if b"\0" in first and not name.endswith(".model"):
        raise UnsafeWeights(f"{name} is not text")


def check_configuration(name: str, path: Path) -> None:
    """Refuse JSON that cannot be read or that names code to import.  Vocabularies are not parsed."""
    short = PurePosixPath(name).name
    if not short.endswith(".json") or _VOCABULARIES.fullmatch(short):
        return
    if key := _code_in(read_json(path, name=name)):
        raise UnsafeWeights(
            f"{name} has {key!r}: it asks for Python code to be imported from the model's folder",
            hint="use a model that transformers knows without trust_remote_code",
        )


def read_json(path: Path, *, name: str = "") -> Any:
    """Return the value of a JSON file, bounded in bytes and depth.  Raises BadInput with the name of the file."""
    name = name or str(path)
    if (size := path.stat().st_size) > LARGEST_CONFIGURATION:
        raise BadInput(f"{name} has {size:,} bytes; a configuration may have {LARGEST_CONFIGURATION:,}")
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} is not JSON ({error})") from None


def _code_in(value: Any) -> str:
    """Return the first key, at any depth, that would make a loader import Python; empty where there is none."""
    left = [value]
    while left:
        current = left.pop()
        if isinstance(current, dict):
            for key in _REMOTE_CODE:
                if key in current:
                    return key
            left.extend(current.values())
        elif isinstance(current, list):
            left.extend(current)
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlace:
    """One tensor: its type as the format names it, its shape, and its bytes counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def n_numbers(self) -> int:
        """Return how many numbers the tensor holds; packed 4-bit weights count as packed."""
        return math.prod(self.shape)


def read_header(path: Path, *, size: int | None = None) -> dict[str, TensorPlace]:
    """Return the place of every tensor of a safetensors file by name, in the order of the bytes.

    Refuses holes, overlaps, sizes that do not follow from type and shape, and a file shorter or longer than its
    tensors.  `size` replaces the file's own where only its beginning is there yet.  Raises CorruptArtifact."""
    actual = path.stat().st_size if size is None else size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if actual < 8 or length > min(LONGEST_HEADER, actual - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {actual:,}")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_repetition)
        return _checked_header(header, actual - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        why = str(error) if len(str(error)) <= 300 else f"{str(error)[:300]}..."
        raise CorruptArtifact(f"{path} is not a complete safetensors file ({why})") from None


def _checked_header(header: Any, n_bytes: int) -> dict[str, TensorPlace]:
    if not isinstance(header, dict):
        raise ValueError("the header is not a table")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise ValueError("__metadata__ is not text")
    places = {}
    for name, facts in header.items():
        if not isinstance(facts, dict) or set(facts) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name!r} lacks dtype, shape or data_offsets")
        shape, (start, end) = tuple(facts["shape"]), facts["data_offsets"]
        if not all(_is_count(number) for number in (*shape, start, end)):
            raise ValueError(f"tensor {name!r} has a size that is not a count")
        if facts["dtype"] not in _BITS:
            raise ValueError(f"tensor {name!r} has type {facts['dtype']!r}")
        if math.prod(shape) * _BITS[facts["dtype"]] != (end - start) * 8:
            raise ValueError(f"tensor {name!r} of shape {list(shape)} takes {end - start:,} bytes")
        places[name] = TensorPlace(dtype=facts["dtype"], shape=shape, start=start, end=end)
    ordered = dict(sorted(places.items(), key=lambda pair: (pair[1].start, pair[1].end)))
    position = 0
    for name, place in ordered.items():
        if place.start != position:
            raise ValueError(f"tensor {name!r} begins at {place.start:,}, the one before it ends at {position:,}")
        position = place.end
    if position != n_bytes:
        raise ValueError(f"the tensors have {n_bytes:,} bytes, the header names {position:,}")
    return ordered


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name appears twice")
    return found
