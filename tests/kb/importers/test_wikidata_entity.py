"""Which statements count, and their values in words."""

from __future__ import annotations

from typing import Any

import pytest

from localmel.kb.importers.wikidata_entity import KEPT, SKIPPED, Fact, Unkept, best, fact, first_text, item_ids


def snak(datatype: str, form: str, value: Any) -> dict[str, Any]:
    return {"snaktype": "value", "datatype": datatype, "datavalue": {"type": form, "value": value}}


def said(datatype: str, form: str, value: Any) -> Fact | Unkept | None:
    return fact("P1", snak(datatype, form, value))


@pytest.mark.parametrize(
    ("time", "precision", "words"),
    [
        ("+1963-02-17T00:00:00Z", 11, "1963-02-17"),
        ("+00000001963-02-17T00:00:00Z", 11, "1963-02-17"),
        ("+1963-02-17T00:00:00Z", 10, "1963-02"),
        ("+1963-02-17T00:00:00Z", 9, "1963"),
        ("+1963-00-00T00:00:00Z", 11, "1963"),
        ("+1963-02-00T00:00:00Z", 11, "1963-02"),
        ("+0975-00-00T00:00:00Z", 9, "0975"),
        ("-0044-03-15T00:00:00Z", 11, "-0044-03-15"),
        ("-0044-00-00T00:00:00Z", 9, "-0044"),
        ("+1967-00-00T00:00:00Z", 8, "1960s"),
        ("+1901-00-00T00:00:00Z", 7, "20th century"),
        ("+1900-00-00T00:00:00Z", 7, "19th century"),
        ("+2100-00-00T00:00:00Z", 7, "21st century"),
        ("+1101-00-00T00:00:00Z", 7, "12th century"),
        ("-0450-00-00T00:00:00Z", 7, "5th century BCE"),
        ("+1500-00-00T00:00:00Z", 6, "2nd millennium"),
        ("-13798000000-00-00T00:00:00Z", 3, "-13798000000"),
    ],
)
def test_a_time_is_as_precise_as_wikidata_says(time: str, precision: int, words: str) -> None:
    assert said("time", "time", {"time": time, "precision": precision}) == Fact("P1", words, "", "")


@pytest.mark.parametrize(
    ("amount", "unit", "words", "unit_id"),
    [
        ("+198", "1", "198", ""),
        ("-3.50", "http://www.wikidata.org/entity/Q25267", "-3.50", "Q25267"),
        ("7", "http://example.org/none", "7", ""),
    ],
)
def test_a_quantity_is_its_number_and_its_unit(amount: str, unit: str, words: str, unit_id: str) -> None:
    assert said("quantity", "quantity", {"amount": amount, "unit": unit}) == Fact("P1", words, "", unit_id)


def test_items_properties_and_texts_are_said() -> None:
    assert said("wikibase-item", "wikibase-entityid", {"id": "Q5"}) == Fact("P1", "", "Q5", "")
    old = {"entity-type": "property", "numeric-id": 31}
    assert said("wikibase-property", "wikibase-entityid", old) == Fact("P1", "", "P31", "")
    assert said("monolingualtext", "monolingualtext", {"text": "hé", "language": "fr"}) == Fact("P1", "hé", "", "")
    assert said("string", "string", "s") == said("url", "string", "s") == Fact("P1", "s", "", "")


def test_the_tables_of_datatypes_do_not_overlap_and_the_rest_is_unkept() -> None:
    assert not KEPT.keys() & SKIPPED
    assert {said(datatype, "string", "x") for datatype in SKIPPED} == {None}
    assert said("hologram", "string", "x") == Unkept("hologram")


@pytest.mark.parametrize(
    ("datatype", "form", "value"),
    [
        ("time", "time", {"time": "soon", "precision": 11}),
        ("time", "time", {"time": "+1963-02-17T00:00:00Z"}),
        ("time", "time", {"time": "+1963-02-17T00:00:00Z", "precision": "day"}),
        ("quantity", "quantity", {"amount": "many"}),
        ("quantity", "quantity", {"amount": "+1", "unit": 1}),
        ("wikibase-item", "wikibase-entityid", {"id": "L5"}),
        ("wikibase-item", "wikibase-entityid", {"entity-type": "item"}),
        ("wikibase-item", "wikibase-entityid", "Q5"),
        ("wikibase-item", "string", "Q5"),
        ("monolingualtext", "monolingualtext", {"text": " "}),
        ("string", "string", ["x"]),
    ],
)
def test_a_value_that_is_not_as_its_datatype_wants_it_is_a_value_error(datatype: str, form: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"P1|not a time|not an amount|not the id"):
        said(datatype, form, value)


def ranked(**ranks: str) -> dict[str, Any]:
    return {"P1": [{"rank": rank, "mainsnak": snak("string", "string", name)} for name, rank in ranks.items()]}


@pytest.mark.parametrize(
    ("claims", "counts"),
    [
        (ranked(a="normal", b="normal", c="deprecated"), ["a", "b"]),
        (ranked(a="normal", b="preferred", c="deprecated", d="preferred"), ["b", "d"]),
        (ranked(a="deprecated"), []),
        ({"P1": [{"rank": "preferred", "mainsnak": {"snaktype": "novalue"}}, *ranked(a="normal")["P1"]]}, []),
        ({"P1": [{"rank": "normal", "mainsnak": {"snaktype": "somevalue"}}, *ranked(a="normal")["P1"]]}, ["a"]),
        ({}, []),
    ],
)
def test_the_preferred_statements_count_or_else_the_normal_ones(claims: dict[str, Any], counts: list[str]) -> None:
    assert [each["datavalue"]["value"] for each in best(claims, "P1")] == counts
    assert first_text(claims, "P1") == (counts[0] if counts else None)


def test_the_items_under_a_property_leave_out_what_does_not_read() -> None:
    values = [{"id": "Q5"}, {"id": "nonsense"}, 7, {"entity-type": "item", "numeric-id": 6}]
    group = [{"rank": "normal", "mainsnak": snak("wikibase-item", "wikibase-entityid", value)} for value in values]
    assert item_ids({"P31": group}, "P31") == {"Q5", "Q6"}
