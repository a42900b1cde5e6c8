"""A KB gives its entities and triples back as they were imported, to any reader, in any order."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from localmel.errors import BadInput, CorruptArtifact, UnknownKb
from localmel.kb.importers import Problems
from localmel.kb.schema import DATABASE
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import add_to_kb, remove_from_kb
from localmel.records import Triple
from tests.kb.conftest import MemorySource, new_entity


def test_an_entity_comes_back_whole(make_kb: Callable[..., Path], open_kb: Callable[[Path], KnowledgeBase]) -> None:
    whole = new_entity("Q1", "Beyoncé", "B", "Queen B", popularity=0.25, description='says "hi"', image="a/b.jpg")
    bare = new_entity("x:2", "🌍")
    kb = open_kb(make_kb([whole, bare], []))
    assert kb.entity("Q1") == whole
    assert kb.entity("x:2") == bare
    assert list(kb.all_entities()) == [whole, bare]


def test_triples_come_in_the_order_of_the_import_each_once(people: KnowledgeBase) -> None:
    assert people.triples("Q41421") == [
        Triple(head="Michael Jordan", relation="occupation", tail="basketball player", source="kb"),
        Triple(head="Michael Jordan", relation="member of sports team", tail="Chicago Bulls", source="kb"),
    ]
    fact = people.kb_triples("Q90")[0]
    assert (fact.predicate, fact.relation, fact.tail_id, fact.tail) == ("P-country", "country", "Q142", "France")
    assert people.triples("Q1") == []


@pytest.mark.parametrize("entity_id", ["Q404", "", "Q1'; DROP TABLE names; --", "\udcff", "Q" * 10_000])
def test_an_unknown_id_is_bad_input_wherever_it_is_asked_for(people: KnowledgeBase, entity_id: str) -> None:
    for ask in (people.entity, people.row, people.triples, people.kb_triples):
        with pytest.raises(BadInput):
            ask(entity_id)


def test_entities_come_in_the_order_asked_for_and_more_than_one_batch(
    make_kb: Callable[..., Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    many = [new_entity(f"Q{number}", f"name {number}", f"alias {number}") for number in range(1, 1203)]
    kb = open_kb(make_kb(many, []))
    rows = [kb.row("Q1200"), kb.row("Q3"), kb.row("Q3"), kb.row("Q700")]
    assert [entity.label for entity in kb.entities_at(rows)] == ["name 1200", "name 3", "name 3", "name 700"]
    assert list(kb.all_entities()) == many
    assert kb.entities_at([]) == []


def test_a_row_that_is_gone_is_said_to_be(
    make_kb: Callable[[], Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    folder = make_kb()
    kb = open_kb(folder)
    row = kb.row("Q90")
    remove_from_kb(folder, ["Q90"])
    with pytest.raises(BadInput, match=f"no row {row}: another process changed it meanwhile"):
        kb.entities_at([row])


def test_facts_count_what_was_imported(people: KnowledgeBase) -> None:
    facts = people.facts()
    assert (facts.name, facts.entities, facts.triples, facts.relations) == ("people", 21, 7, 6)
    assert (facts.described, facts.with_popularity, facts.with_image) == (5, 21, 0)
    assert facts.names == 21 + 14 - 1  # U.S. and US are one name
    assert facts.fingerprint == people.fingerprint
    assert facts.bytes >= (people.folder / DATABASE).stat().st_size > 0


@pytest.mark.parametrize("name", ["absent", "x" * 5000, "nul\0"])
def test_a_folder_without_a_kb_is_an_unknown_kb(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownKb, match="no KB at"):
        KnowledgeBase(tmp_path / name)


def test_a_kb_without_its_fingerprint_is_corrupt(
    make_kb: Callable[[], Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    folder = make_kb()
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("DELETE FROM meta")
    with pytest.raises(CorruptArtifact, match="no fingerprint"):
        open_kb(folder).facts()


def test_a_reader_inside_reading_sees_one_state_while_another_process_writes(
    make_kb: Callable[[], Path],
    open_kb: Callable[[Path], KnowledgeBase],
) -> None:
    folder = make_kb()
    kb = open_kb(folder)
    with kb.reading():
        before, fingerprint = len(kb), kb.fingerprint
        add_to_kb(folder, MemorySource([new_entity("Q500", "Somebody")]), Problems())  # type: ignore[arg-type]
        assert (len(kb), kb.fingerprint) == (before, fingerprint)
    assert len(kb) == before + 1
    assert kb.fingerprint != fingerprint


def test_a_change_by_another_moves_the_state_and_reading_does_not(
    make_kb: Callable[[], Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    folder = make_kb()
    kb = open_kb(folder)
    before = kb.state
    list(kb.all_entities())
    assert kb.state == before
    remove_from_kb(folder, ["Q90"])
    assert kb.state != before


def test_a_kb_cannot_be_written_through_a_reader(people: KnowledgeBase) -> None:
    with pytest.raises(BadInput, match="readonly"):
        people.select("DELETE FROM names")


def test_several_threads_read_one_kb(people: KnowledgeBase) -> None:
    found: list[list[str]] = []

    def read() -> None:
        found.append([entity.label for _ in range(20) for entity in people.all_entities()])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(labels == found[0] for labels in found)
