"""Answers under the schema are read for what they say, name by name, and for nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.generate.answer import (
    LONGEST_TAIL,
    Said,
    SaidTriple,
    Unread,
    read_json,
    says_something,
    schema_for,
    tidy,
    vocabulary,
)

NAMES = ("UK", "UK parliament")


def entry(kind: str = "country", summary: str = "An island.", *triples: tuple[str, str, str]) -> dict[str, Any]:
    rows = [{"relation": relation, "tail": tail, "evidence": evidence} for relation, tail, evidence in triples]
    return {"type": kind, "description": summary, "triples": rows}


def read(said: object, labels: tuple[str, ...] = NAMES, *, cut_off: bool = False, most: int = 8) -> Any:
    text = said if isinstance(said, str) else json.dumps(said)
    return read_json(text, labels, most_triples=most, cut_off=cut_off)


WHOLE = {
    "UK": entry("country", "An island.", ("continent", "Europe", "text"), ("capital", "London", "image")),
    "UK parliament": entry("institution", "It makes laws.", ("located in", "London", "image")),
}


def test_the_vocabulary_is_that_of_the_paper() -> None:
    words = vocabulary()
    assert (len(set(words.entity_types)), len(set(words.relations))) == (20, 20)
    assert {"person", "work of art"} < set(words.entity_types)
    assert {"instance of", "named after"} < set(words.relations)


def test_each_name_gets_what_is_said_of_it() -> None:
    reading = read(WHOLE)
    assert reading["UK"] == Said(
        entity_type="country",
        summary="An island.",
        triples=(
            SaidTriple(relation="continent", tail="Europe", source="text"),
            SaidTriple(relation="capital", tail="London", source="image"),
        ),
    )
    assert reading["UK parliament"].triples == (SaidTriple(relation="located in", tail="London", source="image"),)


def test_a_name_without_triples_is_described_all_the_same() -> None:
    assert read({"UK": entry()}, ("UK",))["UK"] == Said(entity_type="country", summary="An island.")


def test_a_name_that_is_left_out_is_unread_and_the_others_are_not() -> None:
    reading = read({"UK": entry()})
    assert isinstance(reading["UK"], Said)
    assert reading["UK parliament"] == Unread(problem="the answer lacks this name")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "I cannot help with that.",
        "[]",
        "null",
        '{"UK": {}',
        '{"UK": 1, "UK": 2}',
        "[" * 100_000,
        '{"UK": {"type": "country", "description": "x", "triples": [], "type": "city"}}',
    ],
)
def test_what_is_no_object_says_nothing_of_any_name(said: str) -> None:
    assert all(isinstance(one, Unread) and one.problem for one in read(said).values())


@pytest.mark.parametrize(
    "change",
    [
        {"type": "planet"},
        {"type": ["country"]},
        {"description": None},
        {"triples": ""},
        {"triples": {}},
        {"triples": None},
        {"triples": ["x"]},
        {"triples": [{"relation": "country", "tail": "x"}]},
        {"triples": [{"relation": "likes", "tail": "x", "evidence": "text"}]},
        {"triples": [{"relation": "country", "tail": 5, "evidence": "text"}]},
        {"triples": [{"relation": "country", "tail": "x", "evidence": "smell"}]},
    ],
    ids=str,
)
def test_an_entry_that_does_not_keep_the_schema_is_unread_alone(change: dict[str, Any]) -> None:
    reading = read({"UK": {**entry(), **change}, "UK parliament": entry()})
    assert isinstance(reading["UK"], Unread)
    assert isinstance(reading["UK parliament"], Said)


@pytest.mark.parametrize("tail", ["", " ", "None", "unknown.", '"N/A"', "- -", "Not specified", "…"])
def test_a_tail_that_says_nothing_is_no_triple(tail: str) -> None:
    assert not says_something(tail)
    assert read({"UK": entry("country", "x", ("country", tail, "text"))}, ("UK",))["UK"].triples == ()


@pytest.mark.parametrize(
    "tail", ["canzone nonet", "Unknown Pleasures", "Nonetheless", "23", "日本", "none of the above"]
)
def test_none_inside_of_words_says_something(tail: str) -> None:
    assert says_something(tail)


def test_a_triple_said_twice_is_one_and_more_than_asked_are_left() -> None:
    rows = [("country", "France", "text")] * 3 + [("capital", f"c{n}", "text") for n in range(9)]
    assert len(read({"UK": entry("country", "x", *rows)}, ("UK",), most=5)["UK"].triples) == 3
    assert len(read({"UK": entry("country", "x", *rows)}, ("UK",), most=12)["UK"].triples) == 10


def test_half_characters_and_controls_do_not_come_through() -> None:
    assert tidy("a\ud800b\x00\n c\u200d") == "a b c\u200d"
    said = read({"UK": entry("country", "x\ud83d\n", ("country", "\udc00y\x07", "text"))}, ("UK",))["UK"]
    (said.summary + said.triples[0].tail).encode("utf-8")
    assert (said.summary, said.triples[0].tail) == ("x", "y")


# --- cut off -----------------------------------------------------------------------------------------------------


def test_of_an_answer_that_was_cut_off_what_is_whole_counts() -> None:
    text = json.dumps(WHOLE)
    for size in range(len(text)):
        reading = read(text[:size], cut_off=True)
        for name in NAMES:
            said = reading[name]
            full = read(WHOLE)[name]
            if isinstance(said, Unread):
                assert size < text.index("}", text.index(f'"{name}": {{')) + 1
            elif said.whole:
                assert said == full
            else:
                assert (said.entity_type, said.summary) == (full.entity_type, full.summary)
                assert said.triples == full.triples[: len(said.triples)]
    assert read(text, cut_off=True) == read(WHOLE)


def test_an_answer_that_ended_by_itself_is_not_mended() -> None:
    assert all(isinstance(one, Unread) for one in read(json.dumps(WHOLE)[:-1]).values())


@settings(max_examples=120, deadline=None)
@given(
    text=st.one_of(
        st.text(),
        st.text(alphabet='{}[]",:\\ UKtypedescription'),
        st.recursive(
            st.none() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        ).map(json.dumps),
    ),
    cut_off=st.booleans(),
    most=st.integers(0, 9),
)
def test_reading_never_raises_and_answers_for_every_name(text: str, cut_off: bool, most: int) -> None:
    reading = read(text, cut_off=cut_off, most=most)
    assert tuple(reading) == NAMES
    assert all(isinstance(one, Unread | Said) for one in reading.values())


# --- the schema --------------------------------------------------------------------------------------------------


def test_an_answer_under_the_schema_is_read_whatever_it_says() -> None:
    """Valid answers drawn at random, as a model without sense would give them."""
    from random import Random

    from localmel.engines.json_schema import drawn, fault_of

    for seed in range(300):
        schema = schema_for(NAMES, most_triples=seed % 9, with_image=seed % 2 == 0, max_tokens=1024)
        answer = drawn(schema, Random(seed))
        assert not fault_of(answer, schema)
        reading = read(answer, most=seed % 9)
        assert all(isinstance(one, Said) for one in reading.values()), (answer, reading)
        assert all(len(triple.tail) <= LONGEST_TAIL for one in reading.values() for triple in one.triples)


def test_without_a_picture_nothing_can_be_seen_in_it() -> None:
    def sources(*, with_image: bool) -> object:
        schema = schema_for(("UK",), most_triples=2, with_image=with_image, max_tokens=1024)
        return schema["properties"]["UK"]["properties"]["triples"]["items"]["properties"]["evidence"]["enum"]

    assert sources(with_image=False) == ["text"]
    assert sources(with_image=True) == ["text", "image"]


def test_the_longest_answer_under_the_schema_is_bounded() -> None:
    """A model that never comes to an end by itself comes to one: no text and no list in it may go on for ever."""

    def check(schema: Any) -> None:
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])
            for inner in schema["properties"].values():
                check(inner)
        elif schema["type"] == "array":
            assert schema["maxItems"] == 3
            check(schema["items"])
        else:
            assert "enum" in schema or schema["maxLength"] > 0

    check(schema_for(NAMES, most_triples=3, with_image=True, max_tokens=1024))


@pytest.mark.parametrize("max_tokens", [256, 512, 1024, 4096])
def test_a_lone_name_has_a_whole_triple_within_its_tokens_even_at_a_character_each(max_tokens: int) -> None:
    schema = schema_for(("A name of some length",), most_triples=8, with_image=True, max_tokens=max_tokens)
    entry = schema["properties"]["A name of some length"]["properties"]
    triple = entry["triples"]["items"]["properties"]
    longest = {
        "type": max(entry["type"]["enum"], key=len),
        "description": "x" * entry["description"]["maxLength"],
        "triples": [
            {
                "relation": max(triple["relation"]["enum"], key=len),
                "tail": "y" * triple["tail"]["maxLength"],
                "evidence": "image",
            }
        ]
        * 8,
    }
    text = json.dumps({"A name of some length": longest})[:max_tokens]
    said = read(text, ("A name of some length",), cut_off=True)["A name of some length"]
    assert isinstance(said, Said)
    assert said.triples


def test_a_control_character_inside_of_a_text_is_a_blank() -> None:
    """The grammars of engines let them through, although JSON wants them escaped."""
    text = json.dumps({"UK": entry("country", "An@island.", ("country", "x@y", "text"))}).replace("@", "\t\x01")
    said = read(text, ("UK",))["UK"]
    assert (said.summary, said.triples[0].tail) == ("An island.", "x y")
