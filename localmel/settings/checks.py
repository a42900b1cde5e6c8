"""Turn a parsed table into a profile; an unknown key, a wrong type or an impossible value is an error.

In: a table as TOML gives it.  Out: frozen settings.  Knows of files only the name to put into the error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from localmel.errors import UsageError
from localmel.settings.fields import (
    EncodeSettings,
    EngineSettings,
    GenerateSettings,
    Profile,
    RerankSettings,
    RetrieveSettings,
)

Table = Mapping[str, Any]

NAME = re.compile(r"\w[\w.-]{0,99}")
"The names that a profile or a folder of weights may have."

_TABLES: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (GenerateSettings, EncodeSettings, RetrieveSettings, RerankSettings, EngineSettings)
}
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_CHOICES: dict[tuple[type, str], tuple[str, ...]] = {
    (GenerateSettings, "backend"): ("embedded", "vlm"),
    (GenerateSettings, "format"): ("json", "line"),
    (RerankSettings, "backend"): ("evidence", "llm"),
    (EngineSettings, "engine"): ("", "vllm", "transformers", "server", "scripted"),
    (EngineSettings, "quantization"): ("", "4bit", "8bit", "awq", "gptq", "compressed-tensors", "fp8"),
    (EngineSettings, "dtype"): ("auto", "float32", "float16", "bfloat16"),
    (EngineSettings, "device"): ("auto", "cuda", "cpu"),
}
_FOLDERS = {
    (EncodeSettings, "model"),
    (RetrieveSettings, "matcher"),
    (RetrieveSettings, "network"),
    (RerankSettings, "weights"),
}
"Settings that name a folder: by a plain name, or by a path with a /."
_ABOVE_ZERO = {"max_tokens", "most_candidates", "orders", "at_once", "longest_side", "timeout", "memory_share"} | {
    f"{kind}_parallel" for kind in ("tensor", "pipeline")
}


def profile_from(table: Table, *, where: str) -> Profile:
    """Return the profile in a parsed table.  Raises UsageError for a wrong key or value, or an incomplete stage."""
    check_table(table, Profile, where)
    if "name" not in table:
        raise UsageError(f"{where} has no name; a profile needs one")
    profile: Profile = _built(table, Profile)
    for stage, model, used in (
        ("generate", profile.generate.model, profile.generate.backend == "vlm"),
        ("rerank", profile.rerank.model, profile.rerank.backend == "llm"),
    ):
        if used and not model.engine:
            engines = ", ".join(_CHOICES[EngineSettings, "engine"][1:])
            raise UsageError(f"{where}: [{stage}.model] has no engine; this version has {engines}")
        if model.engine and not model.weights:
            raise UsageError(f"{where}: [{stage}.model] has no weights", hint="localmel weights list")
    return profile


def _built(table: Table, kind: type[Any]) -> Any:
    types = {field.name: str(field.type) for field in fields(kind)}
    return kind(
        **{key: _built(value, _TABLES[types[key]]) if types[key] in _TABLES else value for key, value in table.items()}
    )


def check_table(table: Table, kind: type[Any], where: str, at: tuple[str, ...] = ()) -> None:
    """Raise UsageError unless `kind` has every key of the table and allows its value."""
    place = f"{where}: [{'.'.join(at)}]" if at else where
    types = {field.name: str(field.type) for field in fields(kind)}
    for key, value in table.items():
        if key not in types:
            raise UsageError(f"{place} has an unknown key {key!r}; the keys are {', '.join(types)}")
        if inner := _TABLES.get(types[key]):
            if not isinstance(value, dict):
                raise UsageError(f"{place}: {key} is not a table")
            check_table(value, inner, where, (*at, key))
        else:
            _check_value(value, kind, key, types[key], place)


def _check_value(value: Any, kind: type[Any], key: str, named: str, place: str) -> None:
    """Check one value; `named` is its type as the field states it."""
    of_type: bool = isinstance(value, _TYPES[named]) and (named == "bool" or type(value) is not bool)
    if not of_type:
        raise UsageError(f"{place}: {key} must be {named}, not {value!r}")
    choices = _CHOICES.get((kind, key))
    if choices and value not in choices:
        raise UsageError(f"{place} has {key} {value!r}; this version has {', '.join(filter(None, choices))}")
    if (kind, key) in _FOLDERS and "/" not in value and not NAME.fullmatch(value):
        raise UsageError(f"{place}: {key} must be a name or a path with a /, not {value!r}")
    if named in ("int", "float") and not 0 <= value < math.inf:
        raise UsageError(f"{place}: {key} must be 0 or more, not {value!r}")
    if key in _ABOVE_ZERO and not value:
        raise UsageError(f"{place}: {key} must be above 0")
    if key == "memory_share" and value > 1:
        raise UsageError(f"{place}: {key} must be at most 1, not {value!r}")
