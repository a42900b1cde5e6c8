"""What is recorded of a model: where it comes from, and size and sha256 of every file.

In and out: JSON, of a bundle or of a folder under the user's home.  Everything that is read is checked first: names,
counts, hashes; what does not fit is CorruptArtifact.  Knows no archive and opens no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from localmel.errors import CorruptArtifact, MissingWeights, shell_line
from localmel.store.artifacts import MANIFEST, sha256_of, write_json
from localmel.weights.contents import LARGEST_TEXT, UnsafeWeights, refused_name
from localmel.weights.folders import is_name

KIND, VERSION = "weights", 1
MOST_FILES = 4096
LARGEST_MANIFEST = 8 * 1024 * 1024
SMALL = 1024 * 1024
"Bytes up to which a file is hashed whenever its model is looked up."
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_TEXT = 2000
_LARGEST_TENSOR_FILE = 1 << 42
RESERVED = (MANIFEST, "sbom.cdx.json")
"Names that localmel itself writes beside a model's files."


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file as it was when it was recorded."""

    bytes: int
    sha256: str
    changed_ns: int = 0
    "Of an adopted file: when its owner last changed it; 0 for files that are ours."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """One model with all its files, and where it comes from."""

    name: str
    files: Mapping[str, FileRecord]
    repository: str = ""
    "Owner/name on the hub it was published on; empty where nobody said."
    revision: str = ""
    "Commit of that repository."
    licence: str = ""
    "SPDX identifier, or the publisher's own name for it."
    purpose: str = ""
    source: str = ""
    "In words: how the bytes came here."
    adopted: str = ""
    "The folder in which the files stand, where they are not ours."
    signed_by: str = ""
    "Fingerprint of the key whose signature was checked; empty where none was."

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """As it is written; the form that `record_from` reads."""
        texts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "files"}
        files = {}
        for path, file in sorted(self.files.items()):
            files[path] = {"bytes": file.bytes, "sha256": file.sha256}
            if file.changed_ns:
                files[path]["changed_ns"] = file.changed_ns
        return {**texts, "files": files}


def record_from(table: Any, *, where: str) -> ModelRecord:
    """A record from parsed JSON.  Raises CorruptArtifact for what does not fit, UnsafeWeights for a name of a file."""
    try:
        given = dict(table)
        files = {path: _file(path, facts, where=where) for path, facts in given.pop("files").items()}
        if unknown := sorted(set(given) - {field.name for field in fields(ModelRecord)}):
            raise ValueError(f"unknown key {unknown[0]!r}")
        if not is_name(given["name"]):
            raise ValueError(f"the name {given['name']!r}")
        for key, value in given.items():
            if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
                raise ValueError(f"{key} is no short text")
        if not 0 < len(files) <= MOST_FILES:
            raise ValueError(f"{len(files):,} files")
        if len({path.casefold() for path in files}) != len(files):
            raise ValueError("two files whose names differ in upper and lower case only")
        for path in files:
            if any(f"{folder}" in files for folder in PurePosixPath(path).parents):
                raise ValueError(f"{path!r} below a file")
        return ModelRecord(files=files, **given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"{where} is no record of weights ({error})") from None


def _file(path: str, facts: Any, *, where: str) -> FileRecord:
    if reason := refused_name(path):
        raise UnsafeWeights(f"{where}: {path!r} {reason}")
    if PurePosixPath(path).name in RESERVED:
        raise UnsafeWeights(f"{where}: {path!r} is a name that localmel gives itself")
    size, digest, changed = facts["bytes"], facts["sha256"], facts.get("changed_ns", 0)
    if not set(facts) <= {"bytes", "sha256", "changed_ns"} or not _SHA256.fullmatch(digest):
        raise ValueError(f"{path!r} without size and sha256")
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in (size, changed)):
        raise ValueError(f"{path!r} with a size that is no count")
    if size > (_LARGEST_TENSOR_FILE if path.endswith(".safetensors") else LARGEST_TEXT):
        raise ValueError(f"{path!r} with {size:,} bytes")
    return FileRecord(bytes=size, sha256=digest, changed_ns=changed)


def read_record(folder: Path) -> ModelRecord:
    """The record in a folder under the user's home.  Raises MissingWeights, CorruptArtifact."""
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
        raise CorruptArtifact(f"{path} is no record of weights ({error})", hint=again) from None
    if (kind, version) != (KIND, VERSION):
        raise CorruptArtifact(f"{path} holds {kind!r} version {version!r}; {KIND!r} version {VERSION} is read")
    return record_from(table, where=str(path))


def holds_record(folder: Path) -> bool:
    """Whether the folder's manifest is one of weights; other folders may have a manifest of their own."""
    try:
        table = json.loads((folder / MANIFEST).read_bytes()[:LARGEST_MANIFEST])
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and table.get("kind") == KIND


def write_record(folder: Path, record: ModelRecord) -> None:
    """Write the record into its folder; with it the folder counts as whole."""
    write_json(folder / MANIFEST, {**record.to_json(), "kind": KIND, "version": VERSION})


def check_quickly(record: ModelRecord, folder: Path) -> None:
    """Every file's size, the hash of small ones, the time of change of adopted ones; without reading the weights.

    Raises MissingWeights for a file that is gone, CorruptArtifact for one that is not what was recorded."""
    for path, recorded in record.files.items():
        file = folder / path
        try:
            found = file.stat()
        except OSError:
            raise MissingWeights(f"{file} is missing from {record.name}", hint=_again(record)) from None
        if found.st_size != recorded.bytes:
            fact = f"{file} has {found.st_size:,} bytes; {recorded.bytes:,} were recorded"
            raise CorruptArtifact(fact, hint=_again(record))
        if recorded.changed_ns and recorded.changed_ns != found.st_mtime_ns:
            fact = f"{file} was changed since it was adopted"
            raise CorruptArtifact(fact, hint=f"localmel weights verify {record.name}")
        if recorded.bytes <= SMALL and sha256_of(file) != recorded.sha256:
            raise CorruptArtifact(f"{file} is not the file that was recorded (sha256)", hint=_again(record))


def _again(record: ModelRecord) -> str:
    if record.adopted:
        return shell_line("localmel weights install --replace --name", record.name, "--adopt", record.adopted)
    return "localmel weights install --replace BUNDLE.tar"
