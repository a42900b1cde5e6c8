"""The claims of one Wikidata entity -> what a person would write: which statements count, and their values in words.

In: the JSON of a `claims` map.  Out: facts whose ids still want labels.  Knows no file and no label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

KEPT = {
    "wikibase-item": "wikibase-entityid",
    "wikibase-property": "wikibase-entityid",
    "string": "string",
    "url": "string",
    "monolingualtext": "monolingualtext",
    "time": "time",
    "quantity": "quantity",
}
"The datatypes of properties that say something in words, and the form of their values."
SKIPPED = frozenset(
    "external-id commonsMedia globe-coordinate geo-shape tabular-data math musical-notation localMedia entity-schema "
    "wikibase-lexeme wikibase-form wikibase-sense wikibase-mediainfo".split()
)
"The datatypes that do not, and are left out.  One that is in neither table is left out and counted."
IMAGE = "P18"
INSTANCE_OF = "P31"

_ID = re.compile("[QP][1-9][0-9]{0,16}")
_TIME = re.compile(r"([+-])([0-9]{1,16})-([0-9]{2})-([0-9]{2})T[0-9:]{8}Z?")
_AMOUNT = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


class Fact(NamedTuple):
    """One statement that counts.  `value` is "" where `tail_id` says it all; `unit_id` is "" without a unit."""

    property_id: str
    value: str
    tail_id: str
    unit_id: str


class Unkept(NamedTuple):
    """A statement of a datatype that is in neither table."""

    datatype: str


def check_claims(claims: dict[str, Any]) -> None:
    """Raises ValueError where the frame of any statement is not as Wikibase writes it."""
    for property_id, group in claims.items():
        if not is_entity_id(property_id) or property_id[0] != "P" or type(group) is not list:
            raise ValueError(f"claims of {property_id!r} are no list of statements of a property")
        for statement in group:
            snak = statement.get("mainsnak") if type(statement) is dict else None
            if type(snak) is not dict or snak.get("snaktype") not in ("value", "somevalue", "novalue"):
                raise ValueError(f"a statement of {property_id} has no main snak")
            if type(snak.get("datatype", "")) is not str:
                raise ValueError(f"a statement of {property_id} has a datatype that is no text")
            if snak["snaktype"] == "value" and type(snak.get("datavalue")) is not dict:
                raise ValueError(f"a statement of {property_id} has no value")


def is_entity_id(text: object) -> bool:
    """Whether this is the id of an item or a property."""
    return type(text) is str and _ID.fullmatch(text) is not None


def best(claims: dict[str, Any], property_id: str) -> Iterator[dict[str, Any]]:
    """The main snaks with a value that count ("truthy"): the preferred ones if there are any, else the normal ones."""
    group = [statement for statement in claims.get(property_id, ()) if statement.get("rank") != "deprecated"]
    preferred = [statement for statement in group if statement.get("rank") == "preferred"]
    for statement in preferred or group:
        if statement["mainsnak"]["snaktype"] == "value":
            yield statement["mainsnak"]


def fact(property_id: str, snak: dict[str, Any]) -> Fact | Unkept | None:
    """What a snak says; None where its datatype says nothing in words.

    Raises ValueError at a value that is not as its datatype wants it."""
    form = snak["datavalue"].get("type")
    datatype = snak.get("datatype") or _datatype_of(form)
    if datatype in SKIPPED:
        return None
    if datatype not in KEPT:
        return Unkept(datatype)
    if form != KEPT[datatype]:
        raise ValueError(f"a value of {property_id} is {form!r}, not {KEPT[datatype]!r} as {datatype} wants")
    try:
        return _fact(property_id, form, snak["datavalue"]["value"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a {form} of {property_id} does not read ({type(error).__name__}: {error})") from None


def item_ids(claims: dict[str, Any], property_id: str) -> set[str]:
    """The ids of the items that count under a property; a value that does not read is none."""
    found = set()
    for snak in best(claims, property_id):
        try:
            stated = fact(property_id, snak)
        except ValueError:
            continue
        if isinstance(stated, Fact) and stated.tail_id:
            found.add(stated.tail_id)
    return found


def first_text(claims: dict[str, Any], property_id: str) -> str | None:
    """The first text that counts under a property, as a file name is."""
    for snak in best(claims, property_id):
        value = snak["datavalue"].get("value")
        if isinstance(value, str) and value.strip():
            return value
    return None


def _datatype_of(form: object) -> str:
    """For dumps that do not name it.  A bare string may be an id of some database, hence is not taken for words."""
    named = {"wikibase-entityid": "wikibase-item", "string": "string without a datatype"}
    return named.get(form, form) if isinstance(form, str) else "value without a type"


def _fact(property_id: str, form: str, value: Any) -> Fact:
    if form == "wikibase-entityid":
        return Fact(property_id, "", _entity_id(value), "")
    if form == "quantity":
        return Fact(property_id, _amount(value["amount"]), "", _unit_id(value.get("unit", "1")))
    if form == "time":
        return Fact(property_id, _time(value["time"], value["precision"]), "", "")
    text = value["text"] if form == "monolingualtext" else value
    if type(text) is not str or not text.strip():
        raise ValueError(f"a text of {property_id} is empty or none")
    return Fact(property_id, text, "", "")


def _entity_id(value: dict[str, Any]) -> str:
    """The id, which old dumps give as a number only."""
    found = value.get("id")
    if found is None:
        found = {"item": "Q", "property": "P"}.get(value["entity-type"], "?") + str(value["numeric-id"])
    if not is_entity_id(found):
        raise ValueError(f"{found!r} is no id of an item or a property")
    return str(found)


def _amount(text: str) -> str:
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{text!r} is no amount")
    return text.removeprefix("+")


def _unit_id(unit: str) -> str:
    """ "http://www.wikidata.org/entity/Q11573" -> "Q11573"; "1" stands for none."""
    unit_id = unit.rpartition("/")[2]
    return unit_id if is_entity_id(unit_id) else ""


def _time(text: str, precision: int) -> str:
    """As precise as Wikidata says: 1963-02-17, 1963-02, 1963, 1960s, 20th century, 2nd millennium; -0044 is 44 BCE.

    Anything vaguer (geological ages) is given as its year."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time")
    sign, year, month, day = match[1].replace("+", ""), int(match[2]), match[3], match[4]
    if precision == 8:
        return f"{sign}{year // 10 * 10:04d}s"
    if precision in (6, 7):
        length, name = (1000, "millennium") if precision == 6 else (100, "century")
        return f"{_ordinal(max(1, -(-year // length)))} {name}{' BCE' if sign else ''}"
    written = f"{sign}{year:04d}"
    if precision >= 10 and month != "00":
        written += f"-{month}"
        if precision >= 11 and day != "00":
            written += f"-{day}"
    return written


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
