"""Which files may be part of a model, and what may stand in them.

In: the name of a file, its first bytes, a parsed configuration.  Out: nothing, or a refusal that names the file.
Weights are safetensors; configurations are JSON that asks for no code; everything else is text.  Nothing here runs,
unpickles or renders what it looks at."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from localmel.engines.model_folder import code_in
from localmel.errors import BadInput

LONGEST_NAME = 100
"Bytes of a path inside a bundle: what the oldest tar header holds."
LARGEST_TEXT = 256 * 1024 * 1024
"Bytes of a file that is no safetensors; the largest vocabularies are about 40 MB."
LARGEST_CONFIGURATION = 16 * 1024 * 1024
"Bytes of a JSON that is parsed here; the largest tokenizer configurations are about 1 MB."
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
_NOT_CONFIGURATIONS = re.compile(r"(tokenizer|vocab|added_tokens|tekken|.*\.index)\.json")
"JSON that loaders read as data only; a vocabulary may hold any word as a key."


class UnsafeWeights(BadInput):
    """A file that has no place in a model: code, a pickle, a configuration that asks for code, a dangerous name."""


def refused_name(name: str) -> str:
    """Why a path may not be part of a model, in words; empty where it may."""
    if not name or len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        return f"is a name of {len(name)} characters; at most {LONGEST_NAME} are taken"
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name:
        return "would lead out of its folder"
    if any(not _PART.fullmatch(part) or _DEVICE_NAMES.fullmatch(part) for part in parts) or len(parts) > _DEEPEST:
        return "is no plain name"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _PICKLES:
        return "may hold a pickle; weights are taken as safetensors only"
    if suffix in _CODE:
        return "is code; models that bring code are not taken"
    if suffix not in _SUFFIXES and parts[-1].lower() not in _BARE:
        return f"is none of the files a model consists of ({', '.join(sorted(_SUFFIXES))}, LICENSE, NOTICE)"
    return ""


def check_beginning(name: str, first: bytes) -> None:
    """Refuse a file whose first bytes are not what its name says.  `name` is used in the error as it is."""
    if name.endswith(".safetensors"):
        if len(first) >= 9 and first[8:9] != b"{":
            raise UnsafeWeights(f"{name} is no safetensors file: its header does not open with {{")
        return
    for beginning, kind in _BEGINNINGS.items():
        if first.startswith(beginning):
            raise UnsafeWeights(f"{name} is {kind}, not what its name says")
    if first[:1] == b"\x80":
        raise UnsafeWeights(f"{name} is a pickle")
    if b"\0" in first and not name.endswith(".model"):
        raise UnsafeWeights(f"{name} is not text")


def check_configuration(name: str, path: Path) -> None:
    """Refuse JSON that cannot be read or that names code to import.  Vocabularies are not parsed."""
    short = PurePosixPath(name).name
    if not short.endswith(".json") or _NOT_CONFIGURATIONS.fullmatch(short):
        return
    key = code_in(read_json(path, name=name))
    if key:
        raise UnsafeWeights(
            f"{name} has {key!r}: it asks for Python code to be imported from the model's folder",
            hint="use a model that transformers knows without trust_remote_code",
        )


def read_json(path: Path, *, name: str = "") -> Any:
    """A JSON value, bounded in bytes and depth.  Raises BadInput naming the file."""
    name = name or str(path)
    if (size := path.stat().st_size) > LARGEST_CONFIGURATION:
        raise BadInput(f"{name} has {size:,} bytes; a configuration of at most {LARGEST_CONFIGURATION:,} is read")
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} is not JSON ({error})") from None
