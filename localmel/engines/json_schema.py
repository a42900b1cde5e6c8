"""The part of JSON schema that a request may use: check schemas, validate answers, draw random values.

In: a schema, a value.  Out: what is wrong with either, in words; or a random value that fulfils the schema.
A keyword outside this part is refused, because the grammars that enforce schemas while a model writes would ignore it.
Answers are validated by `jsonschema`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from random import Random
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from localmel.errors import BadInput

Schema = Mapping[str, Any]

_NOTES = {"$schema", "$id", "title", "description", "default", "examples", "$defs"}
_KEYWORDS = _NOTES | {
    *("type", "enum", "const", "anyOf", "$ref"),
    *("properties", "required", "additionalProperties"),
    *("items", "minItems", "maxItems"),
    *("minLength", "maxLength", "pattern"),
    *("minimum", "maximum"),
}
_WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa".split()
_DEEPEST = 6
"From this depth on, drawn values are as small as they may be, so that a schema that refers to itself still ends."


def check_schema(schema: Schema) -> None:
    """Raise BadInput with the place of an unknown keyword, or of a keyword with a wrong value."""
    _validator(json.dumps(schema, default=dict))


def fault_of(value: Any, schema: Schema) -> str:
    """Return why a value does not fulfil a checked schema, with the place; empty where it does."""
    fault = best_match(_validator(json.dumps(schema, default=dict)).iter_errors(value))
    return f"{fault.json_path}: {fault.message[:300]}" if fault else ""


def drawn(schema: Schema, random: Random) -> Any:
    """Return a random value that fulfils a checked schema.  Raises BadInput for a pattern, which cannot be drawn."""
    return _drawn(schema, random, schema, 0)


@lru_cache(maxsize=64)
def _validator(text: str) -> Draft202012Validator:
    """Return the validator of a schema, given as JSON: a million questions with one schema compile it once."""
    schema = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "/".join(["#", *map(str, error.absolute_path)])
        raise BadInput(f"the answer's schema cannot be enforced: {place}: {error.message}") from None
    for fault in _schema_faults(schema, "#", schema):
        raise BadInput(f"the answer's schema cannot be enforced: {fault}")
    return Draft202012Validator(schema)


def _schema_faults(schema: Any, place: str, root: Schema) -> Iterator[str]:
    """Yield the faults that JSON schema itself permits."""
    if not isinstance(schema, Mapping):
        yield f"{place} is {type(schema).__name__}, not an object"
        return
    if unknown := sorted(set(schema) - _KEYWORDS):
        yield f"{place} has {', '.join(map(repr, unknown))}; known are {', '.join(sorted(_KEYWORDS - _NOTES))}"
    if schema.get("additionalProperties") not in (None, False):
        yield f"{place} permits additional properties"
    if schema.get("enum") == []:
        yield f"{place} has an empty enum"
    if "pattern" in schema and {"minLength", "maxLength"} & schema.keys():
        yield f"{place} has a pattern and a length; put the length into the pattern"
    if missing := set(schema.get("required", ())) - set(schema.get("properties", {})):
        yield f"{place} requires {sorted(missing)}, which its properties lack"
    if "$ref" in schema and _resolved(schema, root) is None:
        yield f"{place} refers to {schema['$ref']!r}, which is not there"
    for name, part in _parts(schema):
        yield from _schema_faults(part, f"{place}/{name}", root)


def _parts(schema: Schema) -> Iterator[tuple[str, Any]]:
    for key in ("properties", "$defs"):
        for name, part in schema.get(key, {}).items():
            yield f"{key}/{name}", part
    if "items" in schema:
        yield "items", schema["items"]
    for number, part in enumerate(schema.get("anyOf", ())):
        yield f"anyOf/{number}", part


def _types(schema: Schema) -> tuple[str, ...]:
    kinds = schema.get("type", ())
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)


def _resolved(schema: Schema, root: Schema) -> Schema | None:
    found: Any = root
    for name in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _drawn(schema: Schema, random: Random, root: Schema, depth: int) -> Any:
    if "$ref" in schema:
        return _drawn(_resolved(schema, root) or {}, random, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return random.choice(list(schema["enum"]))
    if "anyOf" in schema:
        parts = list(schema["anyOf"])
        return _drawn(parts[-1] if depth >= _DEEPEST else random.choice(parts), random, root, depth + 1)
    if "pattern" in schema:
        raise BadInput(f"no text can be drawn for the pattern {schema['pattern']!r}", hint="write the answer down")
    kind = random.choice(_types(schema) or ("object" if "properties" in schema else "string",))
    if kind == "object":
        required, properties = schema.get("required", ()), schema.get("properties", {})
        chosen = [name for name in properties if name in required or (depth < _DEEPEST and random.random() < 0.5)]
        return {name: _drawn(properties[name], random, root, depth + 1) for name in chosen}
    if kind == "array":
        least = schema.get("minItems", 0)
        most = least if depth >= _DEEPEST else max(least, min(schema.get("maxItems", least + 3), least + 3))
        return [_drawn(schema.get("items", {}), random, root, depth + 1) for _ in range(random.randint(least, most))]
    if kind == "string":
        return _drawn_text(schema, random)
    if kind == "integer":
        least = math.ceil(schema.get("minimum", min(0, schema.get("maximum", 0))))
        return random.randint(least, math.floor(schema.get("maximum", least + 100)))
    if kind == "number":
        least = schema.get("minimum", min(0, schema.get("maximum", 0)))
        return random.uniform(least, schema.get("maximum", least + 100))
    return random.random() < 0.5 if kind == "boolean" else None


def _drawn_text(schema: Schema, random: Random) -> str:
    least, most = schema.get("minLength", 1), schema.get("maxLength", max(24, schema.get("minLength", 1)))
    text = " ".join(random.choice(_WORDS) for _ in range(random.randint(1, 3)))
    while len(text) < least:
        text += f" {random.choice(_WORDS)}"
    return text[:most]
