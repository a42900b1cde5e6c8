"""The starter KB: large, ambiguous, well described, and every id in it checked against real data."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from localmel.kb.importers import Problems, TablesSource, TripleRow
from localmel.kb.words import fold
from localmel.records import Entity

RENAMED = {"Q173399": "Ellen Page"}
"What the real data still calls an entity that has another name today."
FOLDER = Path(__file__).resolve().parents[2] / "localmel" / "kb" / "starter"


@dataclass(frozen=True)
class Starter:
    entities: dict[str, Entity]
    triples: list[TripleRow]
    unchecked: dict[str, str]
    "Ids that the real data does not have, with their labels."


@cache
def starter() -> Starter:
    problems = Problems()
    source = TablesSource(entities=FOLDER / "entities.jsonl", triples=FOLDER / "triples.tsv", problems=problems)
    rows = [row.entity for row in source.entities()]
    triples = list(source.triples())
    problems.finish()
    assert len({entity.id for entity in rows}) == len(rows)
    header, *lines = (FOLDER / "unchecked.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "id\tlabel"
    return Starter({entity.id: entity for entity in rows}, triples, dict(line.split("\t") for line in lines))


@pytest.fixture(scope="module")
def real_names(shared_data: Path) -> dict[str, set[str]]:
    """Of each id that the starter KB names anywhere: its folded names in the real data."""
    wanted = set(starter().entities) | {row.tail_id for row in starter().triples if row.tail_id}
    names: dict[str, set[str]] = {}
    with gzip.open(shared_data / "mel" / "kb" / "entities.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["id"] in wanted:
                names[row["id"]] = {fold(name) for name in (row["label"], *row.get("aliases", ()))}
    return names


@pytest.fixture(scope="module")
def real_tails(shared_data: Path) -> dict[str, set[str]]:
    """Of each id that stands as a tail in the real triples: its folded labels there."""
    tails: dict[str, set[str]] = defaultdict(set)
    wanted = set(starter().entities) | {row.tail_id for row in starter().triples if row.tail_id}
    with gzip.open(shared_data / "mel" / "kb" / "triples.tsv.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            tail_id, tail = line.rstrip("\n").split("\t")[3:]
            if tail_id in wanted:
                tails[tail_id].add(fold(tail))
    return tails


def test_it_has_at_least_400_entities_around_at_least_120_ambiguous_names() -> None:
    bearers: dict[str, set[str]] = defaultdict(set)
    for entity in starter().entities.values():
        for name in (entity.label, *entity.aliases):
            bearers[fold(name)].add(entity.id)
    ambiguous = {name for name, ids in bearers.items() if len(ids) > 1}
    assert len(starter().entities) >= 400
    assert len(ambiguous) >= 120
    for name in "jordan georgia paris lincoln miller golding lula mercury jaguar python apple".split():
        assert name in ambiguous, name


def test_each_entity_has_a_wikidata_id_a_description_and_six_different_triples() -> None:
    facts: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in starter().triples:
        assert row.head in starter().entities, row
        facts[row.head].add((row.relation, row.tail))
    for entity in starter().entities.values():
        assert entity.id[0] == "Q", entity
        assert entity.id[1:].isdigit(), entity
        assert 4 <= len(entity.description.split()) <= 25, entity
        assert len(facts[entity.id]) >= 6, entity
        assert entity.popularity is not None, entity


def test_no_triple_stands_twice_and_each_predicate_has_one_label() -> None:
    repeated = [row for row, count in Counter(row[:5] for row in starter().triples).items() if count > 1]
    assert repeated == []
    labels: dict[str, set[str]] = defaultdict(set)
    for row in starter().triples:
        labels[row.predicate].add(row.relation)
        assert row.predicate[0] == "P", row
        assert row.predicate[1:].isdigit(), row
        assert not row.tail_id or (row.tail_id[0] == "Q" and row.tail_id[1:].isdigit()), row
    assert {predicate: found for predicate, found in labels.items() if len(found) > 1} == {}


def test_the_predicates_are_called_what_the_real_data_calls_them(shared_data: Path) -> None:
    real: dict[str, set[str]] = defaultdict(set)
    with gzip.open(shared_data / "mel" / "kb" / "triples.tsv.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            _, predicate, relation, _, _ = line.split("\t")
            real[predicate].add(fold(relation))
    used = {(row.predicate, fold(row.relation)) for row in starter().triples}
    assert [pair for pair in sorted(used) if pair[0] in real and pair[1] not in real[pair[0]]] == []


def test_every_id_bears_its_label_in_the_real_data_wherever_that_has_it(
    real_names: dict[str, set[str]], real_tails: dict[str, set[str]]
) -> None:
    wrong = []
    for entity in starter().entities.values():
        known = real_names.get(entity.id) or real_tails.get(entity.id)
        if known and fold(RENAMED.get(entity.id, entity.label)) not in known:
            wrong.append((entity.id, entity.label, sorted(known)[:3]))
    assert wrong == []


def test_unchecked_lists_exactly_the_ids_that_the_real_data_has_neither_as_an_entity_nor_as_a_tail(
    real_names: dict[str, set[str]], real_tails: dict[str, set[str]]
) -> None:
    has = real_names.keys() | real_tails.keys()
    assert starter().unchecked == {one.id: one.label for one in starter().entities.values() if one.id not in has}


def test_every_tail_bears_its_label_in_the_real_data_or_in_the_starter_kb(
    real_names: dict[str, set[str]], real_tails: dict[str, set[str]]
) -> None:
    wrong = []
    for row in starter().triples:
        if not row.tail_id:
            continue
        known = real_names.get(row.tail_id, set()) | real_tails.get(row.tail_id, set())
        if entity := starter().entities.get(row.tail_id):
            known = known | {fold(name) for name in (entity.label, *entity.aliases)}
        if fold(row.tail) not in known:
            wrong.append((row.head, row.relation, row.tail_id, row.tail, sorted(known)[:3]))
    assert wrong == []
