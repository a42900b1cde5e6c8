"""The part of JSON schema that requests may use is checked, and only values that fulfil it pass or are drawn."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.engines.json_schema import check_schema, drawn, fault_of
from localmel.errors import BadInput

NUMBERS = st.integers(-9, 9) | st.sampled_from([0.5, -2.0])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text("ab1 ", max_size=4)


@st.composite
def bounds(draw: st.DrawFn, least: str, most: str) -> dict[str, int]:
    low = draw(st.integers(0, 3))
    return draw(st.sampled_from([{}, {least: low}, {most: low}, {least: low, most: low + draw(st.integers(0, 2))}]))


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    """A schema of the permitted part."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const"]
    kind = draw(st.sampled_from([*kinds, *(["object", "array", "anyOf"] if depth else [])]))
    inner = schemas(depth=depth - 1)
    if kind == "enum":
        return {"enum": draw(st.lists(SCALARS, min_size=1, max_size=3))}
    if kind == "const":
        return {"const": draw(SCALARS)}
    if kind == "anyOf":
        return {"anyOf": draw(st.lists(inner, min_size=1, max_size=3))}
    if kind == "object":
        properties = draw(st.dictionaries(st.sampled_from("abc"), inner, max_size=3))
        required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
        closed = draw(st.sampled_from([{}, {"additionalProperties": False}]))
        return {"type": "object", "properties": properties, "required": required, **closed}
    if kind == "array":
        return {"type": "array", "items": draw(inner), **draw(bounds("minItems", "maxItems"))}
    if kind == "string":
        return {"type": "string", **draw(bounds("minLength", "maxLength"))}
    if kind in ("integer", "number"):
        return {"type": kind, **draw(bounds("minimum", "maximum"))}
    return {"type": kind}


@settings(deadline=None)
@given(schemas(), st.integers(0, 2**32))
def test_what_is_drawn_fulfils_its_schema_and_is_the_same_for_the_same_seed(schema: dict[str, Any], seed: int) -> None:
    check_schema(schema)
    value = drawn(schema, Random(seed))
    assert value == drawn(schema, Random(seed))
    assert fault_of(json.loads(json.dumps(value)), schema) == ""


def test_a_schema_that_refers_to_itself_is_read_and_drawn() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}, "additionalProperties": False}
    schema = {"$defs": {"tree": tree}, "$ref": "#/$defs/tree"}
    check_schema(schema)
    assert fault_of({"left": {"left": {}}}, schema) == ""
    assert fault_of({"left": {"right": {}}}, schema) == (
        "$.left: Additional properties are not allowed ('right' was unexpected)"
    )
    for seed in range(20):
        assert fault_of(drawn(schema, Random(seed)), schema) == ""


@pytest.mark.parametrize(
    ("schema", "fact"),
    [
        ({"type": "array", "uniqueItems": True}, "# has 'uniqueItems'"),
        ({"oneOf": [{}]}, "# has 'oneOf'"),
        ({"properties": {"a": {"format": "date"}}}, "#/properties/a has 'format'"),
        ({"type": "thing"}, "#/type: 'thing' is not valid"),
        ({"items": [1]}, r"#/items: \[1\] is not of type 'object', 'boolean'"),
        ({"items": True}, "#/items is bool, not an object"),
        ({"enum": []}, "# has an empty enum"),
        ({"type": "object", "additionalProperties": True}, "# permits additional properties"),
        ({"required": ["a"]}, r"# requires \['a'\], which its properties lack"),
        ({"$ref": "#/$defs/a"}, "# refers to '#/[$]defs/a', which is not there"),
        ({"maxItems": -1}, "#/maxItems: -1 is less than the minimum of 0"),
        ({"type": "string", "pattern": "a+", "maxLength": 3}, "# has a pattern and a length"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_place(schema: dict[str, Any], fact: str) -> None:
    with pytest.raises(BadInput, match=f"the answer's schema cannot be enforced: {fact}"):
        check_schema(schema)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"a": 1}, "$: 'b' is a required property"),
        ({"b": ["x"]}, "$.b[0]: 'x' is not of type 'integer'"),
        ({"b": [1, 2, 3]}, "$.b: [1, 2, 3] is too long"),
        ({"b": [True]}, "$.b[0]: True is not of type 'integer'"),
        ({"b": [], "c": 1}, "$: Additional properties are not allowed ('c' was unexpected)"),
        ([], "$: [] is not of type 'object'"),
    ],
)
def test_a_fault_names_its_place(value: Any, fault: str) -> None:
    properties = {"a": {}, "b": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}}
    schema = {"type": "object", "properties": properties, "required": ["b"], "additionalProperties": False}
    assert fault_of(value, schema) == fault


def test_no_text_is_drawn_for_a_pattern() -> None:
    schema = {"type": "string", "pattern": "^Q[0-9]+$"}
    check_schema(schema)
    assert fault_of("Q42", schema) == ""
    assert "does not match" in fault_of("P31", schema)
    with pytest.raises(BadInput, match="no text can be drawn"):
        drawn(schema, Random(0))
