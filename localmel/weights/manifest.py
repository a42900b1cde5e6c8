"""The record of a model: its origin, and size and sha256 of every file.

In and out: JSON, of a bundle or of a folder under the user's home.  Names, counts and hashes are checked as they are
read; a record that does not fit is a CorruptArtifact.  Knows no archive and opens no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from localmel.errors import CorruptArtifact, MissingWeights, shell_line
from localmel.store.artifacts import MANIFEST, sha256_of, write_json
from localmel.store.codec import from_json
from localmel.weights.contents import LARGEST_TEXT, UnsafeWeights, refused_name
from localmel.weights.folders import is_name

KIND, VERSION = "weights", 1
MOST_FILES = 4096
LARGEST_MANIFEST = 8 * 1024 * 1024
SMALL = 1024 * 1024
"Bytes: files up to this size are hashed whenever their model is looked up."
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_TEXT = 2000
_LARGEST_TENSOR_FILE = 1 << 42
RESERVED = (MANIFEST, "sbom.cdx.json")
"Names of files that localmel itself adds to a model's folder."


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file as it was when it was recorded."""

    bytes: int
    sha256: str
    changed_ns: int = 0
    "When the owner of an adopted file last changed it; 0 for files of ours."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """One model with all its files and its origin."""

    name: str
    files: Mapping[str, FileRecord]
    repository: str = ""
    "Owner/name on the hub it was published on; empty where unknown."
    revision: str = ""
    "Commit of that repository."
    licence: str = ""
    "SPDX identifier, or the publisher's own name for it."
    purpose: str = ""
    source: str = ""
    "How the bytes came here, in words."
    adopted: str = ""
    "The folder that holds the files of an adopted model; empty where they are ours."
    signed_by: str = ""
    "Fingerprint of the key whose signature was checked; empty where none was."

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """Return the form that is written and that `record_from` reads."""
        texts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "files"}
        files = {}
        for path, file in sorted(self.files.items()):
            files[path] = {"bytes": file.bytes, "sha256": file.sha256}
            if file.changed_ns:
                files[path]["changed_ns"] = file.changed_ns
        return {**texts, "files": files}


def record_from(table: Any, *, where: str) -> ModelRecord:
    """Return a record from parsed JSON.  Raises CorruptArtifact, or UnsafeWeights for the name of a file."""
    record = from_json(ModelRecord, table, where=where)
    for path in record.files:
        if reason := refused_name(path):
            raise UnsafeWeights(f"{where}: {path!r} {reason}")
        if PurePosixPath(path).name in RESERVED:
            raise UnsafeWeights(f"{where}: {path!r} is a name that only localmel itself may use")
    if problem := next(_problems(record), ""):
        raise CorruptArtifact(f"cannot read {where}: {problem}")
    return record


def _problems(record: ModelRecord) -> Iterator[str]:
    if not is_name(record.name):
        yield f"the name {record.name!r} is not a name for weights"
    for field in fields(record):
        if field.name != "files" and len(getattr(record, field.name)) > _LONGEST_TEXT:
            yield f"{field.name} is longer than {_LONGEST_TEXT:,} characters"
    if not 0 < len(record.files) <= MOST_FILES:
        yield f"it has {len(record.files):,} files"
    if len({path.casefold() for path in record.files}) != len(record.files):
        yield "the names of two files differ in upper and lower case only"
    for path, file in record.files.items():
        if any(f"{folder}" in record.files for folder in PurePosixPath(path).parents):
            yield f"{path!r} is below a file"
        if not _SHA256.fullmatch(file.sha256):
            yield f"{path!r} has no sha256"
        if not 0 <= file.bytes <= (_LARGEST_TENSOR_FILE if path.endswith(".safetensors") else LARGEST_TEXT):
            yield f"{path!r} has {file.bytes:,} bytes"
        if file.changed_ns < 0:
            yield f"{path!r} has changed_ns {file.changed_ns}"


def read_record(folder: Path) -> ModelRecord:
    """Return the record in a folder under the user's home.  Raises MissingWeights, CorruptArtifact."""
    path = folder / MANIFEST
    again = shell_line("localmel weights rm --yes", folder.name, note="then install it again")
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise ValueError("too large")
        table = json.loads(path.read_bytes().decode("utf-8"))
        kind, version = table.pop("kind"), table.pop("version")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingWeights(f"no weights are installed as {folder.name!r}", hint="localmel weights list") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptArtifact(f"cannot read {path}: it is not a record of weights ({error})", hint=again) from None
    if (kind, version) != (KIND, VERSION):
        raise CorruptArtifact(
            f"cannot read {path}: it holds {kind!r} version {version!r}, not {KIND!r} version {VERSION}"
        )
    return record_from(table, where=str(path))


def holds_record(folder: Path) -> bool:
    """Say whether the folder's manifest is a record of weights; other folders have manifests of other kinds."""
    try:
        table = json.loads((folder / MANIFEST).read_bytes()[:LARGEST_MANIFEST])
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and table.get("kind") == KIND


def write_record(folder: Path, record: ModelRecord) -> None:
    """Write the record into its folder, which counts as complete from then on."""
    write_json(folder / MANIFEST, {**record.to_json(), "kind": KIND, "version": VERSION})


def check_quickly(record: ModelRecord, folder: Path) -> None:
    """Check the size of every file, the hash of small ones and the time of change of adopted ones, without the weights.

    Raises MissingWeights for a file that is gone, CorruptArtifact for one that differs from its record."""
    for path, recorded in record.files.items():
        file = folder / path
        try:
            found = file.stat()
        except OSError:
            raise MissingWeights(f"{file} is missing from {record.name}", hint=_again(record)) from None
        if found.st_size != recorded.bytes:
            fact = f"{file} has {found.st_size:,} bytes; its record says {recorded.bytes:,}"
            raise CorruptArtifact(fact, hint=_again(record))
        if recorded.changed_ns and recorded.changed_ns != found.st_mtime_ns:
            fact = f"{file} has changed since it was adopted"
            raise CorruptArtifact(fact, hint=f"localmel weights verify {record.name}")
        if recorded.bytes <= SMALL and sha256_of(file) != recorded.sha256:
            raise CorruptArtifact(f"{file} differs from its record (sha256)", hint=_again(record))


def _again(record: ModelRecord) -> str:
    if record.adopted:
        return shell_line("localmel weights install --replace --name", record.name, "--adopt", record.adopted)
    return "localmel weights install --replace BUNDLE.tar"
