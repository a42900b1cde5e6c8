"""Real Wikidata lines and answers, held against a naive reading: everything in memory, the obvious definition."""

from __future__ import annotations

import bz2
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import BadInput, ImportProblem
from localmel.kb.importers import EntityRow, Problems, TripleRow, WikidataSource
from localmel.kb.importers.wikidata import shipped_property_labels

SHARED = Path(os.environ.get("LOCALMEL_SHARED", Path(__file__).resolve().parents[4] / "shared"))
SAMPLES = SHARED / "data" / "wikidata_json"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no samples at {SAMPLES}; set LOCALMEL_SHARED")

Json = dict[str, Any]
WORDS = ("wikibase-item", "wikibase-property", "string", "url", "monolingualtext", "time", "quantity")


def read(name: str, **options: Any) -> tuple[list[EntityRow], list[TripleRow], list[ImportProblem], Counter[str]]:
    problems: list[ImportProblem] = []
    source = WikidataSource(SAMPLES / name, problems=Problems(on_problem=problems.append), **options)
    return list(source.entities()), list(source.triples()), problems, source.left_out


def naive_entities(name: str) -> list[Json]:
    data = (SAMPLES / name).read_bytes()
    text = (bz2.decompress(data) if name.endswith(".bz2") else data).decode()
    if text.startswith('{"entities"'):
        return list(json.loads(text)["entities"].values())
    return [json.loads(line.strip().rstrip(",")) for line in text.splitlines() if line.strip() not in ("", "[", "]")]


def naive_label(entity: Json, languages: tuple[str, ...]) -> str:
    return next((entity["labels"][each]["value"].strip() for each in languages if each in entity.get("labels", {})), "")


def about(time: str) -> str:
    """The decade of a year that is written in any way."""
    return "vague" if time.endswith(("century", "millennium")) else time.lstrip("+0")[:3]


def naive_tail(value: Any, form: str, names: dict[str, str]) -> tuple[str, str]:
    """The id of the tail and its words; of a time only the decade (how times are written is tested elsewhere)."""
    if form == "wikibase-entityid":
        tail_id = value.get("id") or f"Q{value['numeric-id']}"
        return tail_id, names.get(tail_id, "")
    if form == "time":
        return "", "vague" if value["precision"] in (6, 7) else about(value["time"])
    if form == "quantity":
        unit = names.get(value["unit"].split("/")[-1], "")
        return "", f"{value['amount'].lstrip('+')} {unit}".strip()
    return "", (value["text"] if form == "monolingualtext" else value).strip()


def naive_triples(entities: list[Json], languages: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    names = {each["id"]: naive_label(each, languages) for each in reversed(entities)}
    seen: set[str] = set()
    triples = []
    for entity in entities:
        if entity["id"] in seen or entity.get("type") != "item" or not naive_label(entity, languages):
            continue
        seen.add(entity["id"])
        for property_id, group in entity["claims"].items():
            for rank in ("preferred", "normal"):
                if chosen := [each["mainsnak"] for each in group if each["rank"] == rank]:
                    break
            for snak in chosen:
                if snak["snaktype"] != "value" or snak["datatype"] not in WORDS:
                    continue
                tail_id, tail = naive_tail(snak["datavalue"]["value"], snak["datavalue"]["type"], names)
                if tail:
                    triples.append((entity["id"], property_id, tail_id, tail))
    return triples


@pytest.mark.parametrize("languages", [("en",), ("fr", "de")])
@pytest.mark.parametrize(
    "name",
    [
        "sample_wikidata_items.json.bz2",
        "short_stream.json.bz2",
        "Q31.json",
        "wbgetentities-Douglas-Adams.json",
        "wbgetentities-Q1.json",
        "wbgetentities-Q6-Q42-P31.json",
    ],
)
def test_the_samples_read_as_a_naive_reading_does(name: str, languages: tuple[str, ...]) -> None:
    entities, triples, problems, _ = read(name, languages=languages)
    naive = naive_entities(name)
    any_language = (*languages, "mul")
    named = [each for each in naive if each.get("type") == "item" and naive_label(each, any_language)]
    assert problems == []
    assert [(row.entity.id, row.entity.label) for row in entities] == [
        (each["id"], naive_label(each, any_language)) for each in named
    ]
    assert [row.entity.popularity for row in entities] == [len(each["sitelinks"]) for each in named]
    times = {(each["id"], pid) for each in naive for pid, group in each.get("claims", {}).items() if _is_time(group)}
    found = [
        (row.head, row.predicate, row.tail_id, about(row.tail) if (row.head, row.predicate) in times else row.tail)
        for row in triples
    ]
    assert found == naive_triples(naive, any_language)


def _is_time(group: list[Json]) -> bool:
    return any(each["mainsnak"]["datatype"] == "time" for each in group)


def test_the_counts_of_the_samples_are_these() -> None:
    counts = {}
    for name in ("sample_wikidata_items.json.bz2", "short_stream.json.bz2", "Q31.json"):
        entities, triples, _, left_out = read(name)
        counts[name] = (len(entities), len({row.entity.id for row in entities}), len(triples), sum(left_out.values()))
    assert counts == {
        "sample_wikidata_items.json.bz2": (100, 100, 2724, 4989),
        "short_stream.json.bz2": (515, 456, 2176, 3195),
        "Q31.json": (1, 1, 122, 144),
    }


def test_douglas_adams_is_who_he_was() -> None:
    entities, triples, _, _ = read("wbgetentities-Douglas-Adams.json")
    entity = entities[0].entity
    assert (entity.id, entity.label, entity.description) == ("Q42", "Douglas Adams", "English writer and humorist")
    assert entity.aliases == ("Douglas Noël Adams", "Douglas Noel Adams")
    assert entity.image == "Douglas adams portrait cropped.jpg"
    said = {(row.relation, row.tail) for row in triples}
    assert {
        ("date of birth", "1952-03-11"),
        ("date of death", "2001-05-11"),
        ("birth name", "Douglas Noël Adams"),
    } <= said


def test_an_answer_with_a_missing_item_and_a_property_counts_both() -> None:
    entities, _, problems, left_out = read("wbgetentities-Q6-Q42-P31.json")
    assert [row.entity.id for row in entities] == ["Q42"]
    assert problems == []
    assert (left_out["missing on Wikidata"], left_out["property"]) == (1, 1)


def test_classes_agree_with_a_naive_count() -> None:
    entities, _, _, left_out = read("short_stream.json.bz2", classes={"Q13442814"})
    expected = []
    for each in naive_entities("short_stream.json.bz2"):
        group = each["claims"].get("P31", [])
        best = [one for one in group if one["rank"] == "preferred"] or [one for one in group if one["rank"] == "normal"]
        ids = {one["mainsnak"]["datavalue"]["value"]["id"] for one in best if one["mainsnak"]["snaktype"] == "value"}
        if naive_label(each, ("en", "mul")) and "Q13442814" in ids:
            expected.append(each["id"])
    assert len(expected) > 10
    assert [row.entity.id for row in entities] == expected
    assert left_out["item of another class"] == 515 - len(expected)


def test_the_mock_dump_has_no_label_and_says_so() -> None:
    entities, triples, problems, left_out = read("mock-dump-for-long-testing.json")
    assert (entities, triples, problems) == ([], [], [])
    assert left_out == {"item without a label in the languages": 55, "property": 46}


def test_the_bugs_of_the_mock_dump_are_reported_with_their_lines() -> None:
    _, _, problems, left_out = read("mock-dump-with-bugs.json")
    assert [problem.fact.removeprefix(str(SAMPLES)) for problem in problems] == [
        "/mock-dump-with-bugs.json:3: Q8: labels is [], not a map in braces",
        "/mock-dump-with-bugs.json:19: P53: claims is [], not a map in braces",
    ]
    assert [problem.line for problem in problems] == [3, 19]
    assert left_out == {"item without a label in the languages": 54, "property": 45}


def test_without_a_collector_the_bugs_end_the_import() -> None:
    problems = Problems()
    source = WikidataSource(SAMPLES / "mock-dump-with-bugs.json", problems=problems)
    assert (list(source.entities()), list(source.triples())) == ([], [])
    with pytest.raises(BadInput, match=r"(?s)2 lines cannot be used.*:3: Q8: labels.*:19: P53: claims"):
        problems.finish()


def test_no_relation_of_the_samples_differs_from_the_shipped_table() -> None:
    _, triples, _, _ = read("sample_wikidata_items.json.bz2")
    shipped = shipped_property_labels()
    assert {(row.predicate, row.relation) for row in triples} == {
        (row.predicate, shipped.get(row.predicate, row.predicate)) for row in triples
    }
