"""List the models of the catalog and the models on this machine.

In: nothing, or a name.  Out: one line of facts for each model.  A damaged model is a line like the others, with its
problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from localmel.errors import LocalmelError, MissingWeights
from localmel.store.artifacts import MANIFEST
from localmel.weights.bundle import sbom
from localmel.weights.catalog import MINILM, CatalogEntry, catalog, entry_of
from localmel.weights.find import FoundModel, find_model
from localmel.weights.folders import installed_names, place_of
from localmel.weights.manifest import ModelRecord, read_record

State = Literal["not here", "installed", "adopted", "packaged", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One model: in the catalog, on this machine, or both."""

    name: str
    state: State
    entry: CatalogEntry | None
    found: FoundModel | None
    problem: str = ""
    "Why a damaged model cannot be used."

    @property
    def record(self) -> ModelRecord | None:
        return self.found.record if self.found else None

    @property
    def purpose(self) -> str:
        return self.entry.purpose if self.entry else self.record.purpose if self.record else ""

    @property
    def licence(self) -> str:
        if self.record and self.record.licence:
            return self.record.licence
        return self.entry.licence if self.entry else ""

    @property
    def disk_bytes(self) -> int:
        """Bytes of the files here; where none are, those that the catalog expects."""
        if self.record:
            return self.record.total_bytes
        return self.entry.disk_bytes if self.entry else self.found.folder.weight_bytes if self.found else 0

    @property
    def memory(self) -> dict[str, int]:
        """Estimated bytes by quantisation; empty for a model that the catalog does not list."""
        if self.entry is None:
            return {}
        ways = ("16bit", *self.entry.quantizations) if self.entry.layers else ("32bit",)
        return {way: self.entry.memory(way).total for way in ways}

    def to_json(self) -> dict[str, Any]:
        record = self.record
        return {
            "name": self.name,
            "state": self.state,
            "problem": self.problem,
            "purpose": self.purpose,
            "summary": self.entry.summary if self.entry else "",
            "licence": self.licence,
            "folder": str(self.found.path) if self.found else None,
            "repository": record.repository if record else self.entry.repository if self.entry else "",
            "revision": record.revision if record else self.entry.revision if self.entry else "",
            "signed_by": record.signed_by if record else "",
            "disk_bytes": self.disk_bytes,
            "estimated_memory_bytes": self.memory,
            "catalog_verified": self.entry.verified if self.entry else None,
        }


def listing() -> list[Listed]:
    """Return the catalog in its own order, then the other installed models."""
    names = [*catalog(), *(name for name in installed_names() if name not in catalog())]
    return [listed(name) for name in names]


def listed(name: str) -> Listed:
    """Return one model by name.  An unknown name is `not here` and has no entry."""
    entry = catalog().get(name)
    here = name == MINILM.name or place_of(name).exists()
    if not here:
        return Listed(name=name, state="not here", entry=entry, found=None)
    try:
        found = find_model(name)
    except LocalmelError as error:
        return Listed(name=name, state="damaged", entry=entry, found=None, problem=error.fact)
    adopted = found.record is not None and bool(found.record.adopted)
    state: State = "packaged" if name == MINILM.name else "adopted" if adopted else "installed"
    return Listed(name=name, state=state, entry=entry, found=found)


def described(name: str) -> dict[str, Any]:
    """Return all facts about one model.  Raises UsageError where it is neither here nor in the catalog."""
    one = listed(name)
    if one.state == "not here" and one.entry is None:
        entry_of(name)
    entry, record = one.entry, one.record
    described = one.to_json()
    if entry:
        described |= {
            "licence_url": entry.licence_url,
            "account_needed": entry.gated,
            "parameters": entry.parameters,
            "context": entry.context,
            "image_tokens": entry.image_tokens,
            "vector_width": entry.width,
            "wanted_files": list(entry.files),
            "note": entry.note,
        }
    if one.found:
        facts = one.found.folder
        described |= {
            "architecture": facts.architecture,
            "context": facts.context,
            "dtype": facts.dtype,
            "quantization": facts.quantized_as,
            "numbers_in_tensors": facts.n_parameters,
            "weight_bytes": facts.weight_bytes,
        }
    if record:
        described["files"] = record.to_json()["files"]
    return described


def sbom_of(name: str) -> dict[str, Any]:
    """Return the CycloneDX document of installed or adopted weights.  Raises MissingWeights."""
    place = place_of(name)
    if not (place / MANIFEST).is_file():
        raise MissingWeights(f"no weights are installed as {name!r}", hint="localmel weights list")
    return sbom([read_record(place)])
