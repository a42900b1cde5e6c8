"""The arrays say what the tables say: each is held against its obvious definition on random KBs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.errors import BadInput, CorruptArtifact
from localmel.kb.importers import Problems
from localmel.kb.packed import Lists, PackedKb, entity_texts, load_packed, pack, phrase_texts
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import stems
from localmel.kb.write import add_to_kb, build_kb, remove_from_kb
from localmel.records import Entity
from localmel.store.artifacts import MANIFEST
from tests.kb.conftest import MemorySource, new_entity

texts = st.sampled_from(
    ["", "Jordan", "Paris in France", "the painter", "Painters of Paris", "北京", "!!!", "1881-10-25", "river"]
)
labels = texts.filter(bool)
kbs = st.lists(
    st.builds(
        Entity, id=st.just("x"), label=labels, description=texts, popularity=st.none() | st.floats(0, 100, width=32)
    ),
    min_size=1,
    max_size=9,
).flatmap(
    lambda entities: st.tuples(
        st.just([replace(entity, id=f"Q{number}") for number, entity in enumerate(entities)]),
        st.lists(
            st.tuples(
                st.integers(0, len(entities) - 1).map("Q{}".format),
                st.sampled_from(["is", "made"]),
                st.just(""),
                labels,
            ),
            max_size=25,
        ),
    )
)


@pytest.fixture(scope="session")
def random_kb(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Build a KB, take some entities out of it, open it."""

    def make(drawn: tuple[list[Entity], Any], removed: list[str] | None = None) -> closing[KnowledgeBase]:
        folder = tmp_path_factory.mktemp("packed") / "kb"
        build_kb(folder, MemorySource(*drawn), Problems())
        if removed:
            remove_from_kb(folder, removed)
        return closing(KnowledgeBase(folder))

    return make


@pytest.fixture
def packed_people(make_kb: Callable[[], Path]) -> Iterator[tuple[KnowledgeBase, PackedKb]]:
    kb = KnowledgeBase(make_kb())
    yield kb, pack(kb)
    kb.close()


def of_one(lists: Lists, owner: int) -> list[int]:
    return [int(value) for value in lists.values[lists.starts[owner] : lists.starts[owner + 1]]]


@settings(max_examples=30, deadline=None)
@given(drawn=kbs, data=st.data())
def test_every_array_says_what_the_tables_say(
    random_kb: Callable[..., Any], drawn: tuple[list[Entity], Any], data: st.DataObject
) -> None:
    ids = [entity.id for entity in drawn[0]]
    removed = data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=len(ids) - 1))
    with random_kb(drawn, removed) as kb:
        packed = pack(kb)
        entities = list(kb.all_entities())
        rows = [kb.row(entity.id) for entity in entities]
        assert packed.rows.tolist() == sorted(rows) == rows
        assert packed.positions(np.array(rows[::-1])).tolist() == list(range(len(rows)))[::-1]
        wanted = [math.nan if entity.popularity is None else entity.popularity for entity in entities]
        np.testing.assert_array_equal(packed.popularity, np.array(wanted, np.float32))
        said = list(phrase_texts(kb, packed))
        assert len(set(said)) == len(said) == len(packed.phrase_triple)
        standing: dict[int, set[str]] = {}
        for position, entity in enumerate(entities):
            triples = kb.triples(entity.id)
            phrases = of_one(packed.phrases, position)
            assert [said[phrase] for phrase in phrases] == list(dict.fromkeys(triple.phrase for triple in triples))
            written = packed.phrase_triples(kb, phrases, entity.label)
            assert written == list(dict.fromkeys(triples))
            assert of_one(packed.label_words, position) == list(stems(entity.label))
            assert of_one(packed.description_words, position) == list(stems(entity.description))
            for phrase, triple in zip(phrases, written, strict=True):
                assert of_one(packed.phrase_words, phrase) == list(stems(triple.tail))
            for text in (entity.label, entity.description, *(triple.tail for triple in triples)):
                for stem in stems(text):
                    standing.setdefault(stem, set()).add(entity.id)
        assert dict(zip(packed.stems.tolist(), packed.stem_entities.tolist(), strict=True)) == {
            stem: len(where) for stem, where in standing.items()
        }
        asked = np.array([*standing, 1, 2**32 - 1], np.uint32)
        n = max(len(entities), 2)
        slow = [1 - math.log(max(len(standing.get(int(stem), ())), 1)) / math.log(n) for stem in asked]
        np.testing.assert_allclose(packed.weights(asked), slow, atol=1e-6)


@given(
    values=st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=8),
    data=st.data(),
)
def test_lists_of_some_owners_are_their_lists_end_to_end(values: list[list[int]], data: st.DataObject) -> None:
    starts = np.cumsum([0, *map(len, values)]).astype(np.int64)
    lists = Lists(starts=starts, values=np.array([one for owner in values for one in owner], np.int32))
    owners = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12)) if values else []
    found, index = lists.of(np.array(owners, np.int64))
    assert found.tolist() == [one for owner in owners for one in values[owner]]
    assert index.tolist() == [place for place, owner in enumerate(owners) for _ in values[owner]]


def test_an_entity_is_embedded_by_its_label_description_and_first_facts_without_bare_dates(
    make_kb: Callable[..., Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    facts = [("Q1", "date of birth", "", "1881-10-25")] + [
        ("Q1", "work", "", f"painting {number}") for number in range(9)
    ]
    kb = open_kb(make_kb([new_entity("Q1", "Picasso", description="painter"), new_entity("Q2", "Nobody")], facts))
    works = "; ".join(f"work painting {number}" for number in range(8))
    assert list(entity_texts(kb)) == [f"Picasso: painter. {works}", "Nobody"]
    assert list(entity_texts(kb, with_triples=False)) == ["Picasso: painter", "Nobody"]


def test_what_was_packed_is_loaded_and_packing_twice_gives_the_same_bytes(
    packed_people: tuple[KnowledgeBase, PackedKb],
) -> None:
    kb, packed = packed_people
    assert load_packed(kb).fingerprint == packed.fingerprint == kb.fingerprint
    files = {path.name: path.read_bytes() for path in (kb.folder / "packed").iterdir()}
    pack(kb)
    assert {path.name: path.read_bytes() for path in (kb.folder / "packed").iterdir()} == files


def test_arrays_of_another_state_of_the_kb_are_not_served(packed_people: tuple[KnowledgeBase, PackedKb]) -> None:
    kb, packed = packed_people
    add_to_kb(kb.folder, MemorySource([new_entity("Q500", "Somebody")]), Problems())
    with pytest.raises(FileNotFoundError, match="another state"):
        load_packed(kb)
    for rows in ([kb.row("Q500")], [kb.row("Q90"), kb.row("Q500")], [0]):
        with pytest.raises(BadInput, match="changed since its index was read"):
            packed.positions(np.array(rows))
    assert len(packed.positions(np.array([], np.int64))) == 0
    assert pack(kb).positions(np.array([kb.row("Q500")])).tolist() == [21]


def test_a_phrase_that_is_gone_is_said_to_be(packed_people: tuple[KnowledgeBase, PackedKb]) -> None:
    kb, packed = packed_people
    phrases = of_one(packed.phrases, int(packed.positions(np.array([kb.row("Q90")]))[0]))
    remove_from_kb(kb.folder, ["Q90"])
    with pytest.raises(BadInput, match="changed since"):
        packed.phrase_triples(kb, phrases, "Paris")
    assert packed.phrase_triples(kb, [], "Paris") == []


def test_a_kb_that_was_never_packed_has_no_arrays(
    make_kb: Callable[[], Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    with pytest.raises(FileNotFoundError):
        load_packed(open_kb(make_kb()))


@pytest.mark.parametrize("how", ["truncated", "absent", "manifest", "other kind"])
def test_damaged_arrays_are_a_corrupt_artifact(packed_people: tuple[KnowledgeBase, PackedKb], how: str) -> None:
    kb, _ = packed_people
    folder = kb.folder / "packed"
    (file,) = (path for path in folder.iterdir() if path.name != MANIFEST)
    manifest = (folder / MANIFEST).read_text()
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-8])
    elif how == "absent":
        file.unlink()
    elif how == "manifest":
        (folder / MANIFEST).write_text(manifest[:40])
    else:
        (folder / MANIFEST).write_text(manifest.replace("packed KB", "KB vectors"))
    with pytest.raises(CorruptArtifact):
        load_packed(kb)


def test_a_kb_without_any_triple_or_any_popularity_packs(
    make_kb: Callable[..., Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    packed = pack(open_kb(make_kb([new_entity("Q1", "!!!")], [])))
    assert (len(packed.rows), len(packed.phrase_triple), len(packed.stems)) == (1, 0, 0)
    assert packed.weights(np.array([7], np.uint32)).tolist() == [1.0]
    assert np.isnan(packed.popularity).all()


def test_progress_adds_up_to_what_was_done_in_thousands(
    make_kb: Callable[..., Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    told: list[int] = []
    pack(open_kb(make_kb([new_entity(f"Q{number}", "name") for number in range(2500)], [])), told.append)
    assert told == [1000, 1000]
