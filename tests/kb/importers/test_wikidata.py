"""Wikidata dumps: forms of files, languages, classes, what is left out, what is reported."""

from __future__ import annotations

import bz2
import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.errors import BadInput, ImportProblem, LocalmelError
from localmel.kb.importers import EntityRow, Problems, TripleRow, WikidataSource
from localmel.kb.importers.wikidata import Labels, shipped_property_labels
from localmel.records import Entity
from localmel.store.progress import Listener, listening

Json = dict[str, Any]


def texts(**by_language: str) -> Json:
    return {language: {"language": language, "value": value} for language, value in by_language.items()}


def link(tail: str, rank: str = "normal") -> Json:
    value = {"entity-type": "item", "numeric-id": int(tail[1:]), "id": tail}
    snak = {
        "snaktype": "value",
        "datatype": "wikibase-item",
        "datavalue": {"type": "wikibase-entityid", "value": value},
    }
    return {"mainsnak": snak, "rank": rank}


def literal(datatype: str, form: str, value: Any) -> Json:
    snak = {"snaktype": "value", "datatype": datatype, "datavalue": {"type": form, "value": value}}
    return {"mainsnak": snak, "rank": "normal"}


def item(entity_id: str, label: str = "", **more: Any) -> Json:
    return {"type": "item", "id": entity_id, "labels": texts(en=label) if label else {}, "claims": {}, **more}


DUMP = [
    item(
        "Q1",
        "Ann",
        descriptions=texts(en="a person"),
        aliases={"en": [{"language": "en", "value": "Annie"}]},
        sitelinks={"enwiki": {}, "dewiki": {}},
        claims={
            "P31": [link("Q5")],
            "P999999": [link("Q2")],
            "P18": [literal("commonsMedia", "string", "Ann.jpg")],
            "P2048": [literal("quantity", "quantity", {"amount": "+170", "unit": "http://www.wikidata.org/entity/Q3"})],
            "P26": [link("Q404")],
        },
    ),
    item("Q2", "Bob", claims={"P31": [link("Q6")]}),
    item("Q3", "centimetre"),
    item("Q5", "human"),
    item("Q7"),
    {"type": "property", "id": "P999999", "datatype": "wikibase-item", "labels": texts(en="likes"), "claims": {}},
]


def array(entities: list[Json]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, entities)) + "\n]\n"


def source_of(
    folder: Path, data: bytes | str, name: str = "dump.json", **options: Any
) -> tuple[WikidataSource, list[ImportProblem]]:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    problems: list[ImportProblem] = []
    return WikidataSource(path, problems=Problems(on_problem=problems.append), **options), problems


def everything(source: WikidataSource) -> tuple[list[EntityRow], list[TripleRow]]:
    return list(source.entities()), list(source.triples())


def facts(rows: list[TripleRow]) -> list[tuple[str, ...]]:
    return [tuple(row[:5]) for row in rows]


def test_a_dump_becomes_entities_and_triples_in_words(tmp_path: Path) -> None:
    source, problems = source_of(tmp_path, array(DUMP))
    entities, triples = everything(source)
    ann = Entity(id="Q1", label="Ann", description="a person", aliases=("Annie",), image="Ann.jpg", popularity=2.0)
    assert problems == []
    assert entities[0] == EntityRow(entity=ann, source=str(tmp_path / "dump.json"), line=2)
    assert [row.entity.id for row in entities] == ["Q1", "Q2", "Q3", "Q5"]
    assert entities[1].entity.popularity is None
    assert facts(triples) == [
        ("Q1", "P31", "instance of", "Q5", "human"),
        ("Q1", "P999999", "likes", "Q2", "Bob"),
        ("Q1", "P2048", "height", "", "170 centimetre"),
    ]
    assert source.left_out == {
        "item without a label in the languages": 1,
        "property": 1,
        "statement whose tail has no label": 2,
    }


FORMS = {
    "array.json": array(DUMP),
    "comma-at-the-end.json": array(DUMP).replace("\n]", ",\n]"),
    "windows.json": array(DUMP).replace("\n", "\r\n"),
    "lines.json": "\n".join(map(json.dumps, DUMP)),
    "one-line.json": json.dumps(DUMP),
    "answer.json": json.dumps({"entities": {each["id"]: each for each in DUMP}, "success": 1}),
    "pretty-answer.json": json.dumps({"entities": {each["id"]: each for each in DUMP}}, indent=2),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_file_gives_the_same(tmp_path: Path, name: str) -> None:
    expected_entities, expected_triples = everything(source_of(tmp_path, array(DUMP))[0])
    source, problems = source_of(tmp_path, FORMS[name], name)
    entities, triples = everything(source)
    assert problems == []
    assert [row.entity for row in entities] == [row.entity for row in expected_entities]
    assert facts(triples) == facts(expected_triples)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".zst", zstandard.ZstdCompressor().compress)],
)
def test_compressed_dumps_read_the_same_and_cut_off_ones_say_so(tmp_path: Path, suffix: str, compress: Any) -> None:
    data = compress(array(DUMP).encode())
    told: list[int] = []
    source, _ = source_of(tmp_path, data, f"dump.json{suffix}")
    with listening(Listener(on_done=told.append)):
        assert [len(rows) for rows in everything(source)] == [4, 3]
    assert sum(told) == source.total_bytes == 2 * len(data)
    source, _ = source_of(tmp_path, data[: len(data) // 2], f"cut.json{suffix}")
    with pytest.raises(BadInput, match="is cut off"):
        everything(source)


def test_a_plain_dump_that_is_cut_off_is_reported_at_its_last_line(tmp_path: Path) -> None:
    source, problems = source_of(tmp_path, array(DUMP).removesuffix("]\n"))
    assert len(everything(source)[0]) == 4
    assert [(problem.line, "cut off" in problem.fact) for problem in problems] == [(7, True)]


def test_the_first_language_that_has_a_label_gives_it_and_the_others_are_aliases(tmp_path: Path) -> None:
    labels = texts(en="Cologne", de="Köln", fr="Cologne (fr)", mul="Colonia")
    aliases = {"de": [{"language": "de", "value": "Kölle"}], "fr": [{"language": "fr", "value": "Coulogne"}]}
    city = item("Q365", labels=labels, aliases=aliases, descriptions=texts(fr="ville", de="Stadt"))

    def read(*languages: str) -> Entity:
        return everything(source_of(tmp_path, array([city]), languages=languages)[0])[0][0].entity

    assert (read("de", "en").label, read("de", "en").aliases) == ("Köln", ("Cologne", "Colonia", "Kölle"))
    assert (read("ja", "en").label, read("en", "de").description) == ("Cologne", "Stadt")
    assert (read("ja").label, read("ja").description) == ("Colonia", "")


def test_classes_keep_direct_instances_and_the_labels_of_all_others(tmp_path: Path) -> None:
    source, _ = source_of(tmp_path, array(DUMP), classes={"Q5"})
    entities, triples = everything(source)
    assert [row.entity.id for row in entities] == ["Q1"]
    assert [row.tail for row in triples] == ["human", "Bob", "170 centimetre"]
    assert source.left_out["item of another class"] == 3


def test_a_class_that_is_no_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="class 'human' is not a Wikidata id"):
        source_of(tmp_path, "", classes={"human"})


def test_of_an_id_that_stands_twice_the_first_gives_the_triples(tmp_path: Path) -> None:
    second = item("Q5", "people", claims={"P31": [link("Q1")]})
    source, _ = source_of(tmp_path, array([*DUMP, second]))
    entities, triples = everything(source)
    assert [row.entity.id for row in entities].count("Q5") == 2  # the store reports the second
    assert [row.tail for row in triples if row.predicate == "P31"] == ["human"]
    assert not any(row.head == "Q5" for row in triples)


def test_what_is_no_item_is_counted(tmp_path: Path) -> None:
    others = [
        {"type": "lexeme", "id": "L1"},
        {"id": "Q9", "missing": ""},
        {"type": "item", "id": "Q8", "redirect": "Q1"},
    ]
    source, problems = source_of(tmp_path, array([*DUMP, *others]))
    everything(source)
    assert problems == []
    assert {key: source.left_out[key] for key in ("lexeme", "missing on Wikidata", "redirect")} == {
        "lexeme": 1,
        "missing on Wikidata": 1,
        "redirect": 1,
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ('"Q1"', "not an entity in braces"),
        ('{"id": "Q0", "type": "item"}', "id 'Q0' is not the id"),
        ('{"id": "Q٣", "type": "item"}', "is not the id"),
        ('{"type": "item"}', "id None is not the id"),
        ('{"id": "Q1", "type": "planet"}', "unknown type 'planet'"),
        ('{"id": "Q1", "labels": []}', "labels is [], not a map"),
        ('{"id": "Q1", "labels": {"en": "Ann"}}', "a text in 'en' is not a text"),
        ('{"id": "Q1", "aliases": {"en": {"value": "x"}}}', "aliases in 'en' are not a list"),
        ('{"id": "Q1", "claims": {"P31": {}}}', "claims of 'P31' are not a list"),
        ('{"id": "Q1", "claims": {"P31": [{}]}}', "a statement of P31 has no main snak"),
        ('{"id": "Q1", "claims": {"P31": [{"mainsnak": {"snaktype": "value"}}]}}', "has no value"),
    ],
)
def test_a_line_that_is_not_as_wikibase_writes_it_is_reported_once(tmp_path: Path, line: str, says: str) -> None:
    source, problems = source_of(tmp_path, json.dumps(DUMP[3]) + f"\n{line}\n" + json.dumps(DUMP[1]))
    entities, _ = everything(source)
    assert [problem.line for problem in problems] == [2]
    assert says in problems[0].fact
    assert [row.entity.id for row in entities] == ["Q5", "Q2"]


def test_a_value_that_does_not_read_is_reported_and_its_neighbours_stay(tmp_path: Path) -> None:
    claims = {"P31": [literal("wikibase-item", "string", "Q5"), link("Q5")]}
    source, problems = source_of(tmp_path, array([item("Q1", "Ann", claims=claims), item("Q5", "human")]))
    assert facts(everything(source)[1]) == [("Q1", "P31", "instance of", "Q5", "human")]
    assert [(problem.line, "Q1: a value of P31 is 'string'" in problem.fact) for problem in problems] == [(2, True)]


def test_an_unknown_datatype_is_left_out_and_counted(tmp_path: Path) -> None:
    claims = {"P1": [literal("hologram", "string", "x")], "P2": [literal("", "string", "y")]}
    source, problems = source_of(tmp_path, array([item("Q1", "Ann", claims=claims)]))
    assert everything(source)[1] == []
    assert problems == []
    assert source.left_out == {
        "statement of datatype hologram": 1,
        "statement of datatype string without a datatype": 1,
    }


def test_a_property_is_named_by_the_dump_then_by_the_shipped_table_then_by_its_id(tmp_path: Path) -> None:
    said = {pid: [literal("string", "string", pid)] for pid in ("P31", "P106", "P88888888")}
    named = {"type": "property", "id": "P31", "labels": texts(en="is a"), "claims": {}}
    source, _ = source_of(tmp_path, array([item("Q1", "Ann", claims=said), named]))
    relations = [(row.predicate, row.relation) for row in everything(source)[1]]
    assert relations == [("P31", "is a"), ("P106", "occupation"), ("P88888888", "P88888888")]


def test_the_shipped_table_is_sorted_whole_and_unique() -> None:
    shipped = shipped_property_labels()
    numbers = [int(property_id[1:]) for property_id in shipped]
    assert numbers == sorted(set(numbers))
    assert len(shipped) >= 150
    assert all(label and label == label.strip() for label in shipped.values())


def test_labels_are_found_in_batches_beyond_one_query() -> None:
    labels = Labels()
    for number in range(1, 10_001):
        labels.add(f"Q{number}", f"label {number}", number)
    labels.add("Q1", "later", 10_001)
    labels.finish()
    wanted = [f"Q{number}" for number in range(1, 12_000)]
    assert labels.of(wanted) == {f"Q{number}": f"label {number}" for number in range(1, 10_001)}
    assert (labels.first_line("Q1"), labels.first_line("Q10001")) == (1, 0)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _places(child, (*path, key))


RICH = copy.deepcopy(DUMP[0])
RICH["claims"]["P569"] = [literal("time", "time", {"time": "+1963-02-17T00:00:00Z", "precision": 11})]
RICH["claims"]["P1476"] = [literal("monolingualtext", "monolingualtext", {"text": "x", "language": "en"})]
PLACES = list(_places(RICH))
junk_values: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "Q5", "P31", "x\x00\ud800", [], [[]], {}, {"value": 1}, {"en": {}}]
)


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(PLACES), junk=junk_values, classes=st.sampled_from([None, {"Q5"}]))
def test_junk_anywhere_in_an_entity_gives_rows_or_problems(
    tmp_path_factory: pytest.TempPathFactory, path: tuple[Any, ...], junk: Any, classes: set[str] | None
) -> None:
    holder: Any = {"root": copy.deepcopy(RICH)}
    inner = holder
    full = ("root", *path)
    for key in full[:-1]:
        inner = inner[key]
    inner[full[-1]] = junk
    data = json.dumps(holder["root"]) + "\n" + json.dumps(DUMP[3] | {"claims": {"P31": [link("Q5")]}})
    source, problems = source_of(tmp_path_factory.getbasetemp(), data, classes=classes)
    entities, triples = everything(source)
    assert "Q5" in {row.entity.id for row in entities}
    assert {problem.line for problem in problems} <= {1}
    assert all(row.relation and row.tail.strip() for row in triples)
    "".join(map(str, [*entities, *triples])).encode()


@given(
    at=st.integers(0, 2200),
    length=st.integers(0, 40),
    junk=st.binary(max_size=12) | st.sampled_from([b"\n", b"[", b"]"]),
)
def test_any_bytes_give_rows_or_a_localmel_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, length: int, junk: bytes
) -> None:
    valid = array(DUMP).encode()
    data = valid[:at] + junk + valid[at + length :]
    source, problems = source_of(tmp_path_factory.getbasetemp(), data)
    try:
        entities, triples = everything(source)
    except LocalmelError as error:
        assert error.hint, error  # noqa: PT017
    else:
        assert {row.head for row in triples} <= {row.entity.id for row in entities}
        assert all(problem.line >= 1 for problem in problems)
        "".join(map(str, [*entities, *triples])).encode()
