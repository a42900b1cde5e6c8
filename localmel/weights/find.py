"""A model by name or path -> the folder that holds it, looked over.

In: a name in the catalog or of installed weights, or a path with a /.  Out: a folder with configuration, safetensors
and tokenizer, each file of the recorded size.  Reads no tensor (`localmel weights verify` does), fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.errors import LocalmelError, MissingWeights, UsageError
from localmel.store.artifacts import MANIFEST
from localmel.weights.catalog import MINILM, verified_folder
from localmel.weights.complete import WholeModel, whole_model
from localmel.weights.folders import installed_names, place_of
from localmel.weights.manifest import ModelRecord, check_quickly, holds_record, read_record
from localmel.weights.tuned import MADE_AGAIN, looks_tuned

INSTALL = "localmel weights install BUNDLE.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the files of a model say of it, and what was recorded when they came here."""

    name: str
    folder: Path
    architecture: str
    'First of the configuration\'s `architectures`; "open_clip" for a folder that open_clip reads.'
    model_type: str
    context: int
    "Tokens of prompt and answer together, as configured; 0 where the configuration does not say."
    dtype: str
    "As configured; empty where the configuration does not say."
    quantization: str
    "`quant_method` of the configuration; empty for weights as they were trained."
    n_parameters: int
    "Numbers in the tensors; of weights packed to 4 bit, the packed ones."
    weight_bytes: int
    for_open_clip: bool
    configuration: Mapping[str, Any]
    record: ModelRecord | None
    "None for a path that nobody installed or adopted."


def model_folder(name: str) -> Path:
    """The folder of a model.  Raises MissingWeights (exit 4), CorruptArtifact (6), or UnsafeWeights (3)."""
    return _found(name)[0].folder


def model_facts(name: str) -> ModelFacts:
    """What is known of a model that is here.  Raises as `model_folder` does."""
    whole, record = _found(name)
    configuration = whole.configuration
    text: Mapping[str, Any] = next(
        (configuration[key] for key in _TEXT_PARTS if isinstance(configuration.get(key), dict)), {}
    )
    architectures = configuration.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    quantization = configuration.get("quantization_config")
    return ModelFacts(
        name=name,
        folder=whole.folder,
        architecture="open_clip" if whole.for_open_clip else str(first),
        model_type=str(configuration.get("model_type", "")),
        context=_count(configuration, text, "max_position_embeddings") or _count(configuration, text, "context_length"),
        dtype=str(configuration.get("dtype") or configuration.get("torch_dtype") or text.get("dtype") or ""),
        quantization=str(quantization.get("quant_method", "")) if isinstance(quantization, dict) else "",
        n_parameters=whole.n_parameters,
        weight_bytes=whole.weight_bytes,
        for_open_clip=whole.for_open_clip,
        configuration=configuration,
        record=record,
    )


_TEXT_PARTS = ("text_config", "llm_config", "text_cfg")


def _count(configuration: Mapping[str, Any], text: Mapping[str, Any], key: str) -> int:
    value = text.get(key, configuration.get(key, 0))
    return value if isinstance(value, int) else 0


def _found(name: str) -> tuple[WholeModel, ModelRecord | None]:
    if name == MINILM.name:
        return whole_model(verified_folder(MINILM)), None
    if "/" in name:
        return _at_path(name)
    place = place_of(name)
    if not (place / MANIFEST).is_file():
        raise _missing(name)
    record = read_record(place)
    folder = Path(record.adopted) if record.adopted else place
    check_quickly(record, folder)
    return _whole(folder, hint=f"localmel weights verify {name}"), record


def _at_path(name: str) -> tuple[WholeModel, ModelRecord | None]:
    try:
        folder = Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name!r} is no path ({error})", hint="give the path from / on") from None
    record = None
    if holds_record(folder):
        record = read_record(folder)
        folder = Path(record.adopted) if record.adopted else folder
        check_quickly(record, folder)
    return _whole(folder, hint=MADE_AGAIN if looks_tuned(folder) else INSTALL), record


def _whole(folder: Path, *, hint: str) -> WholeModel:
    try:
        return whole_model(folder)
    except LocalmelError as error:
        if error.hint:
            raise
        raise type(error)(error.fact, hint=hint) from None


def _missing(name: str) -> MissingWeights:
    from localmel.weights.catalog import catalog

    known = (
        "is in the catalog but not on this machine" if name in catalog() else "is neither installed nor in the catalog"
    )
    there = ", ".join(installed_names()) or "none"
    return MissingWeights(f"the model {name!r} {known}; installed: {there}", hint=INSTALL)
