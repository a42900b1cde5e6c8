"""The part of JSON schema that a request may use: checked before, held after, and drawn from.

In: a schema, a value.  Out: what is wrong with either, in words; or a random value that fulfils the schema.
A keyword outside this part is refused, because what enforces schemas while a model writes would pass over it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

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
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa".split()
_DEEPEST = 6
"From this depth on, drawn values take the least they may: a schema that refers to itself still ends."


def check_schema(schema: Schema) -> None:
    """Raises BadInput with the place of a keyword that is unknown, or of a value that is none of the keyword's."""
    for fault in _schema_faults(schema, "#", schema):
        raise BadInput(f"the answer's schema cannot be enforced: {fault}")


def fault_of(value: Any, schema: Schema) -> str:
    """What keeps a value from fulfilling a checked schema, with its place; empty where nothing does."""
    return next(_faults(value, schema, "$", schema), "")


def drawn(schema: Schema, random: Random) -> Any:
    """A random value that fulfils a checked schema.  Raises BadInput for a pattern, which nothing here can draw."""
    return _drawn(schema, random, schema, 0)


def _schema_faults(schema: Any, place: str, root: Schema) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        yield f"{place} is {type(schema).__name__}, no object"
        return
    if unknown := sorted(set(schema) - _KEYWORDS):
        yield f"{place} has {', '.join(map(repr, unknown))}; known are {', '.join(sorted(_KEYWORDS - _NOTES))}"
    for kind in _types(schema):
        if kind not in _KINDS:
            yield f"{place} has type {kind!r}; known are {', '.join(_KINDS)}"
    if schema.get("additionalProperties") not in (None, False):
        yield f"{place} permits additional properties"
    if "enum" in schema and not (isinstance(schema["enum"], list | tuple) and schema["enum"]):
        yield f"{place} has an empty enum"
    for key in ("minItems", "maxItems", "minLength", "maxLength"):
        if key in schema and not (isinstance(schema[key], int) and schema[key] >= 0):
            yield f"{place} has {key} {schema[key]!r}"
    if "pattern" in schema and {"minLength", "maxLength"} & schema.keys():
        yield f"{place} has a pattern and a length; say the length in the pattern"
    if missing := set(schema.get("required", ())) - set(schema.get("properties", {})):
        yield f"{place} requires {sorted(missing)}, which are none of its properties"
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


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _KINDS[kind])


def _faults(value: Any, schema: Schema, place: str, root: Schema) -> Iterator[str]:
    if "$ref" in schema:
        yield from _faults(value, _resolved(schema, root) or {}, place, root)
    kinds = _types(schema)
    if kinds and not any(_is_of(value, kind) for kind in kinds):
        yield f"{place} is {_shown(value)}, not {' or '.join(kinds)}"
        return
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{place} is {_shown(value)}, not {_shown(schema['const'])}"
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        yield f"{place} is {_shown(value)}, none of the {len(schema['enum'])} that may stand there"
    if "anyOf" in schema and all(any(_faults(value, part, place, root)) for part in schema["anyOf"]):
        yield f"{place} is {_shown(value)}, which fits none of {len(schema['anyOf'])} alternatives"
    yield from _number_faults(value, schema, place)
    if isinstance(value, str):
        yield from _length_faults(len(value), schema, place, "Length", "characters")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{place} is {_shown(value)}, which does not match {schema['pattern']!r}"
    if isinstance(value, list):
        yield from _length_faults(len(value), schema, place, "Items", "values")
        for number, part in enumerate(value):
            yield from _faults(part, schema.get("items", {}), f"{place}[{number}]", root)
    if isinstance(value, dict):
        yield from _object_faults(value, schema, place, root)


def _object_faults(value: dict[str, Any], schema: Schema, place: str, root: Schema) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place} has no {name!r}"
    for name, part in value.items():
        if name in properties:
            yield from _faults(part, properties[name], f"{place}.{name}", root)
        elif schema.get("additionalProperties") is False:
            yield f"{place} has {name!r}, which may not stand there"


def _number_faults(value: Any, schema: Schema, place: str) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if value < schema.get("minimum", value) or value > schema.get("maximum", value):
        yield f"{place} is {value}, outside {schema.get('minimum', '')}..{schema.get('maximum', '')}"


def _length_faults(length: int, schema: Schema, place: str, key: str, unit: str) -> Iterator[str]:
    least, most = schema.get(f"min{key}", 0), schema.get(f"max{key}", length)
    if not least <= length <= most:
        yield f"{place} has {length} {unit}, not {least} to {schema.get(f'max{key}', 'any number')}"


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
