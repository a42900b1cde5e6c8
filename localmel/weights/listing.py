"""What there is: the catalog, and what of it and beside it is on this machine.

In: nothing.  Out: one line of facts for each model.  A damaged model is a line like the others, with its problem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from localmel.errors import LocalmelError, MissingWeights
from localmel.store.artifacts import MANIFEST
from localmel.weights.catalog import MINILM, CatalogEntry, catalog, entry_of
from localmel.weights.find import ModelFacts, model_facts
from localmel.weights.folders import installed_names, place_of
from localmel.weights.manifest import read_record
from localmel.weights.memory_estimate import estimated_memory
from localmel.weights.sbom import sbom

State = Literal["not here", "installed", "adopted", "packaged", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One model: in the catalog, on this machine, or both."""

    name: str
    state: State
    entry: CatalogEntry | None
    facts: ModelFacts | None
    problem: str = ""
    "Why it cannot be used, of a damaged one."

    @property
    def folder(self) -> Path | None:
        return self.facts.folder if self.facts else None

    @property
    def purpose(self) -> str:
        record = self.facts.record if self.facts else None
        return self.entry.purpose if self.entry else record.purpose if record else ""

    @property
    def licence(self) -> str:
        record = self.facts.record if self.facts else None
        return record.licence if record and record.licence else self.entry.licence if self.entry else ""

    @property
    def disk_bytes(self) -> int:
        """As it is here, or as the catalog says."""
        record = self.facts.record if self.facts else None
        if record:
            return record.total_bytes
        return self.entry.disk_bytes if self.entry else self.facts.weight_bytes if self.facts else 0

    @property
    def memory(self) -> dict[str, int]:
        """Estimated bytes by quantisation; empty where the catalog does not know the model."""
        if self.entry is None:
            return {}
        ways = ("16bit", *self.entry.quantizations) if self.entry.layers else ("32bit",)
        return {way: estimated_memory(self.entry, way).total for way in ways}

    def to_json(self) -> dict[str, Any]:
        record = self.facts.record if self.facts else None
        return {
            "name": self.name,
            "state": self.state,
            "problem": self.problem,
            "purpose": self.purpose,
            "summary": self.entry.summary if self.entry else "",
            "licence": self.licence,
            "folder": str(self.folder) if self.folder else None,
            "repository": record.repository if record else self.entry.repository if self.entry else "",
            "revision": record.revision if record else self.entry.revision if self.entry else "",
            "signed_by": record.signed_by if record else "",
            "disk_bytes": self.disk_bytes,
            "estimated_memory_bytes": self.memory,
            "catalog_verified": self.entry.verified if self.entry else None,
        }


def listing() -> list[Listed]:
    """The catalog in its own order, then what is installed beside it."""
    names = [*catalog(), *(name for name in installed_names() if name not in catalog())]
    return [listed(name) for name in names]


def listed(name: str) -> Listed:
    """One model by name.  A name that nobody knows is `not here` without an entry."""
    entry = catalog().get(name)
    here = name == MINILM.name or place_of(name).exists()
    if not here:
        return Listed(name=name, state="not here", entry=entry, facts=None)
    try:
        facts = model_facts(name)
    except LocalmelError as error:
        return Listed(name=name, state="damaged", entry=entry, facts=None, problem=error.fact)
    if name == MINILM.name:
        return Listed(name=name, state="packaged", entry=entry, facts=facts)
    adopted = facts.record is not None and bool(facts.record.adopted)
    return Listed(name=name, state="adopted" if adopted else "installed", entry=entry, facts=facts)


def described(name: str) -> dict[str, Any]:
    """Everything that is known of one model.  Raises UsageError where it is neither here nor in the catalog."""
    one = listed(name)
    if one.state == "not here" and one.entry is None:
        entry_of(name)
    entry, facts, record = one.entry, one.facts, one.facts.record if one.facts else None
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
    if facts:
        described |= {
            "architecture": facts.architecture,
            "context": facts.context,
            "dtype": facts.dtype,
            "quantization": facts.quantization,
            "numbers_in_tensors": facts.n_parameters,
            "weight_bytes": facts.weight_bytes,
        }
    if record:
        described["files"] = record.to_json()["files"]
    return described


def sbom_of(name: str) -> dict[str, Any]:
    """The CycloneDX document of installed or adopted weights.  Raises MissingWeights."""
    place = place_of(name)
    if not (place / MANIFEST).is_file():
        raise MissingWeights(f"no weights are installed as {name!r}", hint="localmel weights list")
    return sbom([read_record(place)])
