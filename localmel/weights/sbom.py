"""What is in a bundle, for people who keep lists: CycloneDX 1.6 as JSON.

In: records of models.  Out: one component of type `machine-learning-model` each, its files below it with their
hashes, its licence and where it was published.  The same records give the same document, serial number included."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from localmel.weights.catalog import catalog
from localmel.weights.manifest import ModelRecord

SPEC_VERSION = "1.6"
_SPDX = {name.lower(): name for name in ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0")}
"Identifiers of the SPDX list that models are published under; any other licence is given by its name."
_TASKS = {"vlm": "image-text-to-text", "llm": "text-generation", "clip": "zero-shot-image-classification"}


def sbom(records: Sequence[ModelRecord]) -> dict[str, Any]:
    """The document; this version of localmel stands in it as the tool."""
    components = [_component(record) for record in records]
    digest = hashlib.sha256(json.dumps(components, sort_keys=True).encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "localmel", "version": version("localmel")}]}
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
