"""A bundle: one tar that carries models with a manifest first, a list of what is in it, and perhaps a signature.

    manifest.json        every model: where from, licence, size and sha256 of every file
    manifest.json.sig    made by `ssh-keygen -Y sign` over the manifest; optional
    sbom.cdx.json        the same for other people's tools, CycloneDX
    models/NAME/...      the files, models and files in the order of their names

In: records and where their files lie, or an archive.  Out: an archive, or its records after everything about it but
the content of the files was checked.  Unpacks nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from localmel.errors import CorruptArtifact
from localmel.store.artifacts import MANIFEST
from localmel.weights.archive import Member, read_member, read_members
from localmel.weights.contents import UnsafeWeights
from localmel.weights.manifest import LARGEST_MANIFEST, ModelRecord, record_from
from localmel.weights.signature import LONGEST

KIND, VERSION = "localmel-weights-bundle", 1
SIGNATURE, SBOM, MODELS = f"{MANIFEST}.sig", "sbom.cdx.json", "models"
MOST_MODELS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An archive whose names, sizes and manifest fit together."""

    path: Path
    manifest: bytes
    signature: bytes | None
    records: tuple[ModelRecord, ...]
    members: Mapping[tuple[str, str], Member]
    "By name of the model and path of the file."

    @property
    def digest(self) -> str:
        """Of the manifest, and by that of everything in the bundle."""
        return sha256(self.manifest).hexdigest()

    @property
    def total_bytes(self) -> int:
        return sum(record.total_bytes for record in self.records)


def manifest_bytes(records: Sequence[ModelRecord], sbom: bytes) -> bytes:
    """The manifest as it is written; the same records, the same bytes."""
    return as_bytes(
        {
            "kind": KIND,
            "version": VERSION,
            "models": [record.to_json() for record in sorted(records, key=lambda record: record.name)],
            SBOM: {"bytes": len(sbom), "sha256": sha256(sbom).hexdigest()},
        }
    )


def as_bytes(value: object) -> bytes:
    """JSON in one form."""
    return (json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def read_bundle(file: BinaryIO, path: Path) -> Bundle:
    """Everything about a bundle that can be known without reading the models.  `path` is named in errors.

    Raises CorruptArtifact for what is cut, altered or missing, UnsafeWeights for what may not be in a bundle."""
    members = read_members(file, path)
    if not members or members[0].path != MANIFEST or members[0].size > LARGEST_MANIFEST:
        raise CorruptArtifact(f"{path} is no bundle of weights: it does not begin with {MANIFEST}")
    manifest = read_member(file, members[0])
    records, sbom = _parsed(manifest, path)
    signature = None
    rest = members[1:]
    if rest and rest[0].path == SIGNATURE:
        if rest[0].size > LONGEST:
            raise CorruptArtifact(f"{path} has a signature of {rest[0].size:,} bytes")
        signature = read_member(file, rest[0])
        rest = rest[1:]
    expected = [(SBOM, sbom["bytes"])]
    for record in records:
        expected += [(f"{MODELS}/{record.name}/{name}", facts.bytes) for name, facts in sorted(record.files.items())]
    _check_members(rest, expected, path)
    if sha256(read_member(file, rest[0])).hexdigest() != sbom["sha256"]:
        raise CorruptArtifact(f"{path} is damaged: {SBOM} is not the one its manifest names")
    names = [(record.name, name) for record in records for name in sorted(record.files)]
    by_file = dict(zip(names, rest[1:], strict=True))
    return Bundle(path=path, manifest=manifest, signature=signature, records=records, members=by_file)


def _parsed(manifest: bytes, path: Path) -> tuple[tuple[ModelRecord, ...], dict[str, Any]]:
    where = f"{path}: {MANIFEST}"
    try:
        table = json.loads(manifest.decode("utf-8"))
        kind, version, models, sbom = (table[key] for key in ("kind", "version", "models", SBOM))
        if (kind, version) != (KIND, VERSION):
            raise ValueError(f"it holds {kind!r} version {version!r}; {KIND!r} version {VERSION} is read")
        if set(table) != {"kind", "version", "models", SBOM} or set(sbom) != {"bytes", "sha256"}:
            raise ValueError("unknown keys")
        if type(sbom["bytes"]) is not int or not 0 < sbom["bytes"] <= LARGEST_MANIFEST:
            raise ValueError(f"{SBOM} has {sbom['bytes']!r} bytes")
        if not 0 < len(models) <= MOST_MODELS:
            raise ValueError(f"{len(models)} models")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptArtifact(f"{where} is not readable ({error})") from None
    records = tuple(record_from(model, where=where) for model in models)
    names = [record.name for record in records]
    if names != sorted(names) or len({name.casefold() for name in names}) != len(names):
        raise CorruptArtifact(f"{where} names its models twice or out of order")
    for record in records:
        if record.adopted or record.signed_by or any(facts.changed_ns for facts in record.files.values()):
            raise UnsafeWeights(f"{where} claims for {record.name!r} what only the receiving machine can know")
    return records, sbom


def _check_members(members: Sequence[Member], expected: Sequence[tuple[str, int]], path: Path) -> None:
    found = {member.path: member.size for member in members}
    for name, size in expected:
        if name not in found:
            raise CorruptArtifact(f"{path} lacks {name}, which its manifest names")
        if found[name] != size:
            raise CorruptArtifact(f"{path}: {name} has {found[name]:,} bytes, its manifest says {size:,}")
    wanted = {name for name, _ in expected}
    for member in members:
        if member.path not in wanted:
            raise UnsafeWeights(f"{path} holds {member.path!r}, which its manifest does not name")
    if [member.path for member in members] != [name for name, _ in expected]:
        raise CorruptArtifact(f"{path} has its members in another order than its manifest")
