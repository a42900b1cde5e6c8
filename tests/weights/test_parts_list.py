"""The list of what is in a bundle is CycloneDX, by the standard's own schema."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from localmel.weights.bundle import sbom
from localmel.weights.pack import pack
from tests.weights import small

cyclonedx = pytest.importorskip(
    "cyclonedx.validation.json", reason="cyclonedx-python-lib[json-validation], which has the schema, is not installed"
)
RECORDS = [
    small.record("small", small.language_model()),
    small.record(
        "qwen2.5-vl-3b",
        small.vision_language_model(),
        repository="Qwen/Qwen2.5-VL-3B-Instruct",
        revision="66285546d2b821cf421d4f5eb2576359d3770cd3",
        licence="qwen-research",
        purpose="vlm",
    ),
    small.record("clip", small.clip(), licence="apache-2.0", purpose="clip"),
]


def problems(document: str) -> object:
    from cyclonedx.schema import SchemaVersion

    return cyclonedx.JsonStrictValidator(SchemaVersion.V1_6).validate_str(document)


def test_the_document_fits_the_schema() -> None:
    assert problems(json.dumps(sbom(RECORDS))) is None


def test_the_schema_is_not_that_of_anything() -> None:
    document = sbom(RECORDS)
    document["components"][0]["type"] = "model"
    assert problems(json.dumps(document)) is not None


def test_every_model_and_file_stands_in_it_with_hash_and_licence() -> None:
    document = sbom(RECORDS)
    models = {one["name"]: one for one in document["components"]}
    assert {one["type"] for one in models.values()} == {"machine-learning-model"}
    for record in RECORDS:
        files = {one["name"]: one["hashes"][0]["content"] for one in models[record.name]["components"]}
        assert files == {name: file.sha256 for name, file in record.files.items()}
    qwen = models["qwen2.5-vl-3b"]
    assert qwen["licenses"] == [{"license": {"name": "qwen-research"}}]
    assert qwen["purl"] == f"pkg:huggingface/Qwen/Qwen2.5-VL-3B-Instruct@{RECORDS[1].revision}"
    assert models["clip"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_the_same_records_give_the_same_document_and_others_another() -> None:
    assert sbom(RECORDS) == sbom(list(RECORDS))
    assert sbom(RECORDS)["serialNumber"] != sbom(RECORDS[:2])["serialNumber"]


def test_it_is_in_the_bundle(own_home: Path, model: Path, tmp_path: Path) -> None:
    packed = pack([f"{model}/"], tmp_path / "b.tar")
    with tarfile.open(packed.path) as tar:
        document = json.load(tar.extractfile("sbom.cdx.json"))  # type: ignore[arg-type]
    assert problems(json.dumps(document)) is None
    assert document == sbom(packed.records)
