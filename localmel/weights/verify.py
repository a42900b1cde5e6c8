"""Verify that every byte of the weights here is still the recorded one.

In: names of installed, adopted or packaged weights.  Out: for each of them what is missing, changed or new.  Needs no
network: the weights are compared with the record that came with them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights
from localmel.store import progress
from localmel.store.artifacts import MANIFEST
from localmel.weights.catalog import MINILM, verified_folder
from localmel.weights.find import INSTALL
from localmel.weights.folders import installed_names, place_of
from localmel.weights.manifest import ModelRecord, read_record
from localmel.weights.model_folder import model_folder
from localmel.weights.sources import sha256_counted

Kind = Literal["missing", "changed", "not recorded", "unusable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference from the record."""

    file: str
    kind: Kind
    fact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The result of reading every byte of one model."""

    name: str
    folder: Path
    files: int
    bytes: int
    signed_by: str
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "findings": [asdict(one) for one in self.findings]}

    def error(self) -> LocalmelError | None:
        """Return the findings as one error: MissingWeights where a file is gone, else CorruptArtifact."""
        if not self.findings:
            return None
        first, more = self.findings[0], len(self.findings) - 1
        fact = f"{self.name}: {first.fact}" + (f" (and {more} more)" if more else "")
        kind = MissingWeights if any(one.kind == "missing" for one in self.findings) else CorruptArtifact
        return kind(fact, hint="localmel weights install --replace BUNDLE.tar")


def verify_all(name: str | None = None) -> list[Verified]:
    """Verify one model, or all that are here and the packaged one.  An unreadable one is a finding too."""
    if name is not None:
        return [verify(name)]
    found = []
    for one in (MINILM.name, *installed_names()):
        try:
            found.append(verify(one))
        except LocalmelError as error:
            kind: Kind = "missing" if isinstance(error, MissingWeights) else "unusable"
            finding = Finding(file="", kind=kind, fact=error.fact)
            found.append(Verified(name=one, folder=place_of(one), files=0, bytes=0, signed_by="", findings=(finding,)))
    return found


def verify(name: str) -> Verified:
    """Hash every file of a model, given by name or by the path of a folder with a record (fetched folders have one).

    Raises MissingWeights where there is none, CorruptArtifact for a record that cannot be read; problems with single
    files are findings of the result."""
    if name == MINILM.name:
        return _packaged()
    place = Path(name).expanduser() if "/" in name else place_of(name)
    if not (place / MANIFEST).is_file():
        what = f"{place} has no {MANIFEST}" if "/" in name else f"no weights are installed as {name!r}"
        raise MissingWeights(what, hint=INSTALL)
    record = read_record(place)
    folder = Path(record.adopted) if record.adopted else place
    progress.begin(name, record.total_bytes, unit=progress.BYTES)
    findings = [finding for path in sorted(record.files) if (finding := _file(folder, path, record))]
    if not record.adopted:
        findings += _not_recorded(folder, record)
    if not findings:
        try:
            model_folder(folder)
        except LocalmelError as error:
            findings.append(Finding(file="", kind="unusable", fact=error.fact))
    return Verified(
        name=name,
        folder=folder,
        files=len(record.files),
        bytes=record.total_bytes,
        signed_by=record.signed_by,
        findings=tuple(findings),
    )


def _file(folder: Path, path: str, record: ModelRecord) -> Finding | None:
    recorded, file = record.files[path], folder / path
    try:
        size = file.stat().st_size
        if size != recorded.bytes:
            fact = f"{file} has {size:,} bytes; its record says {recorded.bytes:,}"
            return Finding(file=path, kind="changed", fact=fact)
        if (found := sha256_counted(file)) != recorded.sha256:
            fact = f"{file} has sha256 {found}; its record says {recorded.sha256}"
            return Finding(file=path, kind="changed", fact=fact)
    except OSError as error:
        return Finding(file=path, kind="missing", fact=f"cannot read {file}: {error.strerror}")
    return None


def _not_recorded(folder: Path, record: ModelRecord) -> list[Finding]:
    """Return the files that somebody added to a folder of ours."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = (Path(parent) / name).relative_to(folder).as_posix()
            if path != MANIFEST and path not in record.files:
                fact = f"{folder / path} was not part of the weights when they were installed"
                found.append(Finding(file=path, kind="not recorded", fact=fact))
    return sorted(found, key=lambda finding: finding.file)


def _packaged() -> Verified:
    folder = verified_folder(MINILM)
    total = sum((folder / name).stat().st_size for name in MINILM.sha256)
    return Verified(name=MINILM.name, folder=folder, files=len(MINILM.sha256), bytes=total, signed_by="", findings=())
