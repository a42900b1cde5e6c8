"""Pack folders or installed models into one bundle to carry over.

In: sources, a place for the file.  Out: a tar whose bytes depend on the models' bytes alone.  Every file is hashed
while it is written and compared with its record; the bundle appears under its name only when it is complete."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, CorruptArtifact, MissingWeights, OutOfSpace, UsageError, shell_line
from localmel.store import progress
from localmel.store.artifacts import MANIFEST, failed_writes_are_reported, sha256_of
from localmel.weights.archive import write_bytes, write_end, write_file
from localmel.weights.bundle import MODELS, SBOM, SIGNATURE, as_bytes, manifest_bytes, sbom
from localmel.weights.folders import checked_name, place_of
from localmel.weights.manifest import FileRecord, ModelRecord, check_quickly, holds_record, read_record
from localmel.weights.model_folder import model_folder
from localmel.weights.signature import sign
from localmel.weights.sources import hashed_record, is_licence, model_source, suggested_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A bundle that was written."""

    path: Path
    bytes: int
    manifest_sha256: str
    signed: bool
    records: tuple[ModelRecord, ...]
    left_out: Mapping[str, str]
    "Files of the folders that are not in the bundle, with the reason."
    without_licence: tuple[str, ...]
    "Models whose folder has no licence text."

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "records": [record.to_json() for record in self.records]}


def pack(
    sources: Sequence[str],
    output: Path,
    *,
    name: str = "",
    licence: Path | None = None,
    key: Path | None = None,
    replace_output: bool = False,
) -> Packed:
    """Write a bundle of the sources: names of installed weights, or folders.

    `name` and `licence` (a file with its text) are for a single folder.  Raises the errors of `model_folder`, BadInput
    where the output exists already, OutOfSpace before anything is written."""
    if (name or licence) and len(sources) != 1:
        raise UsageError(f"--name and --licence go with one model, not {len(sources)}")
    if output.exists() and not replace_output:
        raise BadInput(f"{output} already exists", hint="add --replace, or choose another file")
    found = [_gathered(source, name=name, licence=licence) for source in sources]
    models = sorted(found, key=lambda model: model.record.name)
    records = [model.record for model in models]
    if len({record.name.casefold() for record in records}) != len(records):
        raise UsageError(f"two of the models have the same name: {', '.join(record.name for record in records)}")
    listed = as_bytes(sbom(records))
    manifest = manifest_bytes(records, listed)
    signature = sign(manifest, key) if key else None
    total = sum(record.total_bytes for record in records)
    _check_space(output, total + len(manifest) + len(listed))
    progress.begin("packing", total, unit=progress.BYTES)
    with failed_writes_are_reported(output):
        _write(output, models, {MANIFEST: manifest, SIGNATURE: signature or b"", SBOM: listed})
    return Packed(
        path=output,
        bytes=output.stat().st_size,
        manifest_sha256=sha256(manifest).hexdigest(),
        signed=signature is not None,
        records=tuple(records),
        left_out={path: why for model in models for path, why in model.left_out.items()},
        without_licence=tuple(model.record.name for model in models if not model.has_licence),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathered:
    record: ModelRecord
    files: Mapping[str, Path]
    left_out: Mapping[str, str]
    has_licence: bool


def _gathered(source: str, *, name: str, licence: Path | None) -> _Gathered:
    """Return one source with a record of all its files, hashed now unless a record exists."""
    folder = Path(source).expanduser()
    recorded = place_of(source) if "/" not in source and (place_of(source) / MANIFEST).is_file() else folder
    if holds_record(recorded):
        record = read_record(recorded)
        folder = Path(record.adopted) if record.adopted else recorded
        check_quickly(record, folder)
        model_folder(folder)
        files = {path: folder / path for path in record.files}
        left_out: Mapping[str, str] = {}
    elif folder.is_dir():
        found = model_source(folder)
        files, left_out = dict(found.files), found.left_out
        record = hashed_record(found, suggested_name(folder))
    else:
        fact = f"cannot pack {source!r}: it is neither a folder nor the name of installed weights"
        raise MissingWeights(fact, hint="localmel weights list")
    if licence:
        if not licence.is_file():
            raise BadInput(f"there is no file {licence}", hint=shell_line("ls -l", licence.parent))
        files["LICENSE"] = licence
        added = FileRecord(bytes=licence.stat().st_size, sha256=sha256_of(licence))
        record = replace(record, files={**record.files, "LICENSE": added})
    ours = {path: replace(file, changed_ns=0) for path, file in record.files.items()}
    record = replace(record, files=ours, adopted="", signed_by="", name=checked_name(name or record.name))
    has_licence = any(is_licence(path) for path in files)
    return _Gathered(record=record, files=files, left_out=left_out, has_licence=has_licence)


def _write(output: Path, models: Sequence[_Gathered], small: Mapping[str, bytes]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            for path, data in small.items():
                if data:
                    write_bytes(file, "", path, data)
            for model in models:
                for path, recorded in sorted(model.record.files.items()):
                    place = f"{MODELS}/{model.record.name}"
                    found = write_file(file, place, path, model.files[path], recorded.bytes)
                    if found != recorded.sha256:
                        fact = (
                            f"{model.files[path]} is damaged: its sha256 is {found}, the record says {recorded.sha256}"
                        )
                        raise CorruptArtifact(fact)
            write_end(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def _check_space(output: Path, needed: int) -> None:
    place = next(parent for parent in output.absolute().parents if parent.exists())
    if (free := shutil.disk_usage(place).free) < needed:
        raise OutOfSpace(
            f"cannot write the bundle: it needs {needed:,} bytes, {place} has {free:,} free",
            hint=shell_line("df -h", place),
        )
