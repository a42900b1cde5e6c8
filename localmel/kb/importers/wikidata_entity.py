"""The JSON of one Wikidata entity -> its names, and its statements as a person would write them.

In: parsed JSON as Wikibase writes it.  Out: an entity with its claims, and facts whose ids are not labelled yet.
Raises ValueError for anything that Wikibase does not write.  Knows no file and no label of another entity."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from localmel.kb.importers.reading import clean, excerpt
from localmel.records import Entity

Json = dict[str, Any]

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
"The datatypes that do not, and are left out.  A datatype in neither table is left out and counted."
INSTANCE_OF = "P31"
_IMAGE = "P18"
_OTHER_TYPES = ("lexeme", "form", "sense", "mediainfo", "redirect", "entity-schema")

_ID = re.compile("[QP][1-9][0-9]{0,16}")
_TIME = re.compile(r"([+-])([0-9]{1,16})-([0-9]{2})-([0-9]{2})T[0-9:]{8}Z?")
_AMOUNT = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class WikidataEntity:
    """An item or property of a dump, checked."""

    id: str
    label: str
    description: str
    aliases: tuple[str, ...]
    sitelinks: int | None
    claims: Json

    def entity(self) -> Entity:
        """Return it as a record."""
        image = first_text(self.claims, _IMAGE)
        return Entity(
            id=self.id,
            label=self.label,
            description=self.description,
            aliases=self.aliases,
            image=clean(image) if image else None,
            popularity=None if self.sitelinks is None else float(self.sitelinks),
        )


class Fact(NamedTuple):
    """One statement that counts.  `value` is "" if `tail_id` says it all; `unit_id` is "" without a unit."""

    property_id: str
    value: str
    tail_id: str
    unit_id: str


class Unkept(NamedTuple):
    """A statement of a datatype that is in neither table."""

    datatype: str


# --- the entity -----------------------------------------------------------------------------------------------------


def is_entity_id(text: object) -> bool:
    """Tell whether this is the id of an item or a property."""
    return type(text) is str and _ID.fullmatch(text) is not None


def entities_in(value: Any) -> list[Any]:
    """Return the entities in a JSON value: those of an API answer or an array, else the value itself."""
    if isinstance(value, dict) and isinstance(value.get("entities"), dict):
        return list(value["entities"].values())
    return value if isinstance(value, list) else [value]


def kind_left_out(part: Any) -> str:
    """Return the kind of what is neither item nor property, "" for what is one.  Raises ValueError."""
    if not isinstance(part, dict):
        raise ValueError(f"not an entity in braces: {excerpt(part)}")
    if "missing" in part:
        return "missing on Wikidata"
    kind = "redirect" if "redirect" in part else part.get("type", "item")
    if kind in _OTHER_TYPES:
        return str(kind)
    if kind not in ("item", "property"):
        raise ValueError(f"{part.get('id')} is of the unknown type {excerpt(kind)}")
    return ""


def wikidata_entity(part: Json, languages: Sequence[str]) -> WikidataEntity:
    """Check an item or property and take its names; the first of `languages` that has a label names it."""
    if not is_entity_id(part.get("id")):
        raise ValueError(f"id {excerpt(part.get('id'))} is not the id of an item or a property")
    claims = _map(part, "claims")
    _check_claims(claims)
    labels, descriptions, aliases = (_map(part, key) for key in ("labels", "descriptions", "aliases"))
    names = [_text(labels, language) for language in languages]
    for language in languages:
        names += _texts(aliases, language)
    names = list(dict.fromkeys(filter(None, names)))
    label = next(filter(None, (_text(labels, language) for language in languages)), "")
    return WikidataEntity(
        id=part["id"],
        label=label,
        description=next(filter(None, (_text(descriptions, language) for language in languages)), ""),
        aliases=tuple(name for name in names if name != label),
        sitelinks=len(_map(part, "sitelinks")) if "sitelinks" in part else None,
        claims=claims,
    )


def _map(part: Json, key: str) -> Json:
    value = part.get(key, {})
    if type(value) is not dict:
        raise ValueError(f"{part['id']}: {key} is {excerpt(value)}, not a map in braces")
    return value


def _text(texts: Json, language: str) -> str:
    """Return the text in one language, "" if there is none."""
    return _value(texts[language], language) if language in texts else ""


def _texts(texts: Json, language: str) -> list[str]:
    values = texts.get(language, [])
    if type(values) is not list:
        raise ValueError(f"aliases in {language!r} are not a list: {excerpt(values)}")
    return [_value(value, language) for value in values]


def _value(value: object, language: str) -> str:
    if type(value) is not dict or type(value.get("value")) is not str:
        raise ValueError(f"a text in {language!r} is not a text: {excerpt(value)}")
    return clean(value["value"])


def _check_claims(claims: Json) -> None:
    for property_id, group in claims.items():
        if not is_entity_id(property_id) or property_id[0] != "P" or type(group) is not list:
            raise ValueError(f"claims of {property_id!r} are not a list of statements of a property")
        for statement in group:
            snak = statement.get("mainsnak") if type(statement) is dict else None
            if type(snak) is not dict or snak.get("snaktype") not in ("value", "somevalue", "novalue"):
                raise ValueError(f"a statement of {property_id} has no main snak")
            if type(snak.get("datatype", "")) is not str:
                raise ValueError(f"a statement of {property_id} has a datatype that is not a text")
            if snak["snaktype"] == "value" and type(snak.get("datavalue")) is not dict:
                raise ValueError(f"a statement of {property_id} has no value")


# --- its statements -------------------------------------------------------------------------------------------------


def best(claims: Json, property_id: str) -> Iterator[Json]:
    """Yield the main snaks with a value that count ("truthy"): the preferred ones if any, else the normal ones."""
    group = [statement for statement in claims.get(property_id, ()) if statement.get("rank") != "deprecated"]
    preferred = [statement for statement in group if statement.get("rank") == "preferred"]
    for statement in preferred or group:
        if statement["mainsnak"]["snaktype"] == "value":
            yield statement["mainsnak"]


def fact(property_id: str, snak: Json) -> Fact | Unkept | None:
    """Return what a snak says, None if its datatype says nothing in words.

    Raises ValueError for a value that does not have the form of its datatype."""
    form = snak["datavalue"].get("type")
    datatype = snak.get("datatype") or _datatype_of(form)
    if datatype in SKIPPED:
        return None
    if datatype not in KEPT:
        return Unkept(datatype)
    if form != KEPT[datatype]:
        raise ValueError(f"a value of {property_id} is {form!r}, but {datatype} needs {KEPT[datatype]!r}")
    try:
        return _fact(property_id, form, snak["datavalue"]["value"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot read a {form} of {property_id} ({type(error).__name__}: {error})") from None


def item_ids(claims: Json, property_id: str) -> set[str]:
    """Return the ids of the items that count under a property, without values that cannot be read."""
    found = set()
    for snak in best(claims, property_id):
        try:
            stated = fact(property_id, snak)
        except ValueError:
            continue
        if isinstance(stated, Fact) and stated.tail_id:
            found.add(stated.tail_id)
    return found


def first_text(claims: Json, property_id: str) -> str | None:
    """Return the first text that counts under a property, such as a file name."""
    for snak in best(claims, property_id):
        value = snak["datavalue"].get("value")
        if isinstance(value, str) and value.strip():
            return value
    return None


def _datatype_of(form: object) -> str:
    """Name the datatype in a dump that does not.  A bare string may be a database id, so it does not count as words."""
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
        raise ValueError(f"a text of {property_id} is empty or missing")
    return Fact(property_id, text, "", "")


def _entity_id(value: Json) -> str:
    """Return the id, which old dumps give as a number only."""
    found = value.get("id")
    if found is None:
        found = {"item": "Q", "property": "P"}.get(value["entity-type"], "?") + str(value["numeric-id"])
    if not is_entity_id(found):
        raise ValueError(f"{found!r} is not the id of an item or a property")
    return str(found)


def _amount(text: str) -> str:
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{text!r} is not an amount")
    return text.removeprefix("+")


def _unit_id(unit: str) -> str:
    """Turn "http://www.wikidata.org/entity/Q11573" into "Q11573"; "1" means no unit and gives ""."""
    unit_id = unit.rpartition("/")[2]
    return unit_id if is_entity_id(unit_id) else ""


def _time(text: str, precision: int) -> str:
    """Write a time as precisely as Wikidata states it; -0044 is 44 BCE, geological ages are given as their year.

    Examples: 1963-02-17, 1963-02, 1963, 1960s, 20th century, 2nd millennium."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time")
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
