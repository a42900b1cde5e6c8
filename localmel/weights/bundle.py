"""A bundle: one tar that carries models with a manifest first, a list of its contents, and perhaps a signature.

    manifest.json        every model: origin, licence, size and sha256 of every file
    manifest.json.sig    made by `ssh-keygen -Y sign` over the manifest; optional
    sbom.cdx.json        the same for other people's tools, CycloneDX 1.6
    models/NAME/...      the files, models and files in the order of their names

In: records and the folders of their files, or an archive.  Out: an archive, or its records after everything about it
but the content of the files was checked.  Unpacks nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, BinaryIO

from localmel.errors import CorruptArtifact
from localmel.store.artifacts import MANIFEST
from localmel.weights.archive import Member, read_member, read_members
from localmel.weights.catalog import catalog
from localmel.weights.contents import UnsafeWeights
from localmel.weights.manifest import LARGEST_MANIFEST, ModelRecord, record_from
from localmel.weights.signature import LONGEST

KIND, VERSION = "localmel-weights-bundle", 1
SIGNATURE, SBOM, MODELS = f"{MANIFEST}.sig", "sbom.cdx.json", "models"
MOST_MODELS = 64
_SPEC_VERSION = "1.6"
_SPDX = {name.lower(): name for name in ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0")}
"Identifiers of the SPDX list that models are published under; any other licence is given by its name."
_TASKS = {"vlm": "image-text-to-text", "llm": "text-generation", "clip": "zero-shot-image-classification"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An archive whose names, sizes and manifest fit together."""

    path: Path
    manifest: bytes
    signature: bytes | None
    records: tuple[ModelRecord, ...]
    members: Mapping[tuple[str, str], Member]
    "By the name of the model and the path of the file."

    @property
    def digest(self) -> str:
        """The sha256 of the manifest, which covers everything in the bundle."""
        return sha256(self.manifest).hexdigest()

    @property
    def total_bytes(self) -> int:
        return sum(record.total_bytes for record in self.records)


def manifest_bytes(records: Sequence[ModelRecord], listed: bytes) -> bytes:
    """Return the manifest of these records and the bytes of their CycloneDX list; the same records, the same bytes."""
    return as_bytes(
        {
            "kind": KIND,
            "version": VERSION,
            "models": [record.to_json() for record in sorted(records, key=lambda record: record.name)],
            SBOM: {"bytes": len(listed), "sha256": sha256(listed).hexdigest()},
        }
    )


def as_bytes(value: object) -> bytes:
    """Return JSON in its one canonical form."""
    return (json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def read_bundle(file: BinaryIO, path: Path) -> Bundle:
    """Check everything about a bundle that can be known without reading the models.  Errors name `path`.

    Raises CorruptArtifact for a bundle that is cut off, altered or incomplete, UnsafeWeights for forbidden members."""
    members = read_members(file, path)
    if not members or members[0].path != MANIFEST or members[0].size > LARGEST_MANIFEST:
        raise CorruptArtifact(f"{path} is not a bundle of weights: it does not begin with {MANIFEST}")
    manifest = read_member(file, members[0])
    records, listed = _parsed(manifest, path)
    signature = None
    rest = members[1:]
    if rest and rest[0].path == SIGNATURE:
        if rest[0].size > LONGEST:
            raise CorruptArtifact(f"{path} has a signature of {rest[0].size:,} bytes")
        signature = read_member(file, rest[0])
        rest = rest[1:]
    expected = [(SBOM, listed["bytes"])]
    for record in records:
        expected += [(f"{MODELS}/{record.name}/{name}", facts.bytes) for name, facts in sorted(record.files.items())]
    _check_members(rest, expected, path)
    if sha256(read_member(file, rest[0])).hexdigest() != listed["sha256"]:
        raise CorruptArtifact(f"{path} is damaged: {SBOM} is not the one its manifest names")
    names = [(record.name, name) for record in records for name in sorted(record.files)]
    by_file = dict(zip(names, rest[1:], strict=True))
    return Bundle(path=path, manifest=manifest, signature=signature, records=records, members=by_file)


def _parsed(manifest: bytes, path: Path) -> tuple[tuple[ModelRecord, ...], dict[str, Any]]:
    where = f"{path}: {MANIFEST}"
    try:
        table = json.loads(manifest.decode("utf-8"))
        kind, version, models, listed = (table[key] for key in ("kind", "version", "models", SBOM))
        if (kind, version) != (KIND, VERSION):
            raise ValueError(f"it holds {kind!r} version {version!r}, not {KIND!r} version {VERSION}")
        if set(table) != {"kind", "version", "models", SBOM} or set(listed) != {"bytes", "sha256"}:
            raise ValueError("unknown keys")
        if type(listed["bytes"]) is not int or not 0 < listed["bytes"] <= LARGEST_MANIFEST:
            raise ValueError(f"{SBOM} has {listed['bytes']!r} bytes")
        if not 0 < len(models) <= MOST_MODELS:
            raise ValueError(f"{len(models)} models")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptArtifact(f"cannot read {where} ({error})") from None
    records = tuple(record_from(model, where=where) for model in models)
    names = [record.name for record in records]
    if names != sorted(names) or len({name.casefold() for name in names}) != len(names):
        raise CorruptArtifact(f"{where} names its models twice or out of order")
    for record in records:
        if record.adopted or record.signed_by or any(facts.changed_ns for facts in record.files.values()):
            raise UnsafeWeights(f"{where} claims for {record.name!r} what only the receiving machine can know")
    return records, listed


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


def sbom(records: Sequence[ModelRecord]) -> dict[str, Any]:
    """Return the CycloneDX document of these records, with this version of localmel as the tool.

    Each model is one component of type `machine-learning-model`, its files below it with their hashes.  The same
    records give the same document, serial number included."""
    components = [_component(record) for record in records]
    digest = sha256(json.dumps(components, sort_keys=True).encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": _SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "localmel", "version": version_of("localmel")}]}
        },
        "components": components,
    }


def _component(record: ModelRecord) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{record.name}",
        "name": record.name,
        "version": record.revision or "unknown",
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{record.name}/{path}",
                "name": path,
                "hashes": [{"alg": "SHA-256", "content": file.sha256}],
                "properties": [{"name": "localmel:bytes", "value": str(file.bytes)}],
            }
            for path, file in sorted(record.files.items())
        ],
    }
    if record.licence:
        known = _SPDX.get(record.licence.lower())
        component["licenses"] = [{"license": {"id": known} if known else {"name": record.licence}}]
    if record.repository:
        revision = f"@{record.revision}" if record.revision else ""
        component["purl"] = f"pkg:huggingface/{record.repository}{revision}"
        url = f"https://huggingface.co/{record.repository}"
        component["externalReferences"] = [{"type": "distribution", "url": url}]
    if task := _TASKS.get(record.purpose):
        component["modelCard"] = {"modelParameters": {"task": task}}
    if record.name in catalog():
        component["description"] = catalog()[record.name].summary
    return component
