"""What an engine says of itself in manifests and journals.

In: a model's folder, the names of packages.  Out: versions, memory, and a revision that changes as soon as the answers
may change.  Reads small files whole, and of large ones names and sizes, or the hashes of a manifest beside them."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from collections.abc import Iterable
from importlib import metadata

from localmel.engines.model_folder import ModelFolder
from localmel.store.artifacts import MANIFEST, sha256_of

_READ_UP_TO = 64 * 1024 * 1024
"Bytes: every configuration and tokenizer is smaller, every weight file of use larger."
_SUFFIXES = {".json", ".jinja", ".model", ".txt"}


def revision_of(folder: ModelFolder) -> str:
    """SHA-256 over everything that decides answers: bytes of configuration, tokenizer and templates, and of the weight
    files names, sizes and, where a manifest of localmel lies beside them, the hashes in it."""
    told = hashlib.sha256()
    for path in sorted(folder.path.iterdir()):
        if path.is_file() and path.suffix in _SUFFIXES and path.name != MANIFEST:
            size = path.stat().st_size
            told.update(f"{path.name}\0{sha256_of(path) if size <= _READ_UP_TO else size}\n".encode())
    known = _hashes(folder)
    for path in folder.weight_files:
        told.update(f"{path.name}\0{path.stat().st_size}\0{known.get(path.name, '')}\n".encode())
    return told.hexdigest()


def _hashes(folder: ModelFolder) -> dict[str, str]:
    try:
        files = json.loads((folder.path / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {str(name): str(facts["sha256"]) for name, facts in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_bytes(device: str) -> int:
    """The most memory this process has held: on a GPU what torch took there, else resident memory."""
    if device == "cuda":
        import torch

        return sum(torch.cuda.max_memory_reserved(number) for number in range(torch.cuda.device_count()))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
