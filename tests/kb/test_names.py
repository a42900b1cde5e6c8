"""A name, part of one, or one with a typing error finds its entities, the prominent ones first."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.kb.importers import Problems
from localmel.kb.names import NameIndex
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import add_to_kb, remove_from_kb
from tests.kb.conftest import MemorySource, new_entity


def found(kb: KnowledgeBase, surface: str, *, limit: int = 64, use_counts: bool = True) -> list[tuple[str, str]]:
    matches = NameIndex(kb, use_counts=use_counts).find(surface, limit=limit)
    entities = kb.entities_at([match.row for match in matches])
    return [(entity.id, match.kind) for entity, match in zip(entities, matches, strict=True)]


@pytest.mark.parametrize(
    ("surface", "entity_id"),
    [
        ("beyonce", "Q36153"),
        ("BEYONCÉ", "Q36153"),
        ("Beyonce\u0301", "Q36153"),
        ("Beyoncé's", "Q36153"),
        ("beyonce knowles carter", "Q36153"),
        ("J.R.R. Tolkien", "Q892"),
        ("JRR Tolkien", "Q892"),
        ("j. r. r. tolkien’s", "Q892"),
        ("AT&T", "Q11"),
        ("at & t", "Q11"),
        ("U.S.", "Q30"),
        ('the "near" society', "Q7"),
        ("not and or", "Q8"),
        ("パリ", "Q90"),
        ("ﾊﾟﾘ", "Q90"),
        ("巴黎", "Q90"),
        ("北京", "Q956"),
        ("محمد صلاح", "Q219"),
        ("1984", "Q9"),
    ],
)
def test_a_whole_name_is_found_whatever_its_case_accents_and_punctuation(
    people: KnowledgeBase, surface: str, entity_id: str
) -> None:
    assert found(people, surface)[0] == (entity_id, "exact")


def test_bearers_of_one_name_come_by_popularity_then_by_what_the_kb_knows(
    people: KnowledgeBase,
    make_kb: Callable[..., Path],
    open_kb: Callable[[Path], KnowledgeBase],
) -> None:
    assert found(people, "Jordan")[:3] == [("Q41421", "exact"), ("Q810", "exact"), ("Q1", "exact")]
    same = [new_entity(f"Q{number}", "Springfield") for number in range(1, 5)]
    kb = open_kb(make_kb(same, [("Q3", "r", "", "a"), ("Q3", "r", "", "b"), ("Q2", "r", "", "a")]))
    assert [entity_id for entity_id, _ in found(kb, "Springfield")][:2] == ["Q3", "Q2"]


def test_without_counts_neither_popularity_nor_triples_speak(
    make_kb: Callable[..., Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    plain = [new_entity(f"Q{number}", "Springfield") for number in range(1, 40)]
    known = [new_entity(f"Q{number}", "Springfield", popularity=number / 40) for number in range(1, 40)]
    facts = [(f"Q{number}", "r", "", str(fact)) for number in range(1, 40) for fact in range(number)]
    orders = [
        found(open_kb(make_kb(entities, triples, name=name)), "Springfield", use_counts=False)
        for name, entities, triples in (("plain", plain, []), ("known", known, facts))
    ]
    assert orders[0] == orders[1]
    ids = [int(entity_id[1:]) for entity_id, _ in orders[0]]
    assert ids != sorted(ids)
    assert ids != sorted(ids, reverse=True)


@pytest.mark.parametrize(
    ("surface", "entity_id", "kind"),
    [
        ("Tolkien", "Q892", "exact"),
        ("Picasso", "Q5593", "part"),
        ("Knowles", "Q36153", "part"),
        ("Society", "Q7", "part"),
        ("Ronald Tolkien", "Q892", "part"),
        ("Croatian", "Q224", "demonym"),
        ("Croatias", "Q224", "fuzzy"),
        ("Parisian", "Q90", "demonym"),
        ("Pablo Ruiz Picasso", "Q5593", "some words"),
        ("President Washington", "Q23", "some words"),
    ],
)
def test_part_of_a_name_a_nearly_equal_one_and_some_words_of_it_are_found(
    people: KnowledgeBase, surface: str, entity_id: str, kind: str
) -> None:
    assert (entity_id, kind) in found(people, surface)


def test_a_whole_name_comes_before_one_that_only_contains_it(people: KnowledgeBase) -> None:
    assert found(people, "Washington") == [("Q1223", "exact"), ("Q23", "part")]


@pytest.mark.parametrize(
    "surface",
    [
        "Picaso",
        "Picasco",
        "Piccasso",
        "Pciasso",
        "Picassi",
        "Ppicasso",
        "Bicasso",
        "Pablo Picaso",
        "pabol picasso",
        "PICAASO",
    ],
)
def test_a_typing_error_at_the_beginning_middle_or_end_of_a_word_is_forgiven(
    people: KnowledgeBase, surface: str
) -> None:
    assert found(people, surface)[0][0] == "Q5593"


@pytest.mark.parametrize("surface", ["Xyzzy", "Picxxxxo", "Zzpicasso Qqq", "ox"])
def test_a_name_of_nobody_is_not_found(people: KnowledgeBase, surface: str) -> None:
    assert found(people, surface) == []


@pytest.mark.parametrize("surface", ["", " ", "!!!", "🌍", "'", '"', "*", "\u200f\u202e", "\0", "\udcff", "[[", "（）"])
def test_a_surface_without_letters_finds_nothing(people: KnowledgeBase, surface: str) -> None:
    assert found(people, surface) == []


@pytest.mark.parametrize(
    "surface",
    [
        "AND", "OR", "NOT", "NEAR", "Jordan AND Paris", "Jordan OR", "NEAR(Jordan Paris, 2)", "folded:jordan", "jor*",
        "^jordan",
        'Jordan"', '"Jordan', "Jordan' OR 1=1 --", "{folded} : jordan", "-Jordan", "+Jordan", "%", "_____", "a" * 300,
        "'; DROP TABLE names; --",
    ],
)  # fmt: skip
def test_words_that_mean_something_to_the_database_are_words(people: KnowledgeBase, surface: str) -> None:
    plain = " ".join("".join(char if char.isalnum() else " " for char in surface).split())
    assert found(people, surface) == found(people, plain)
    assert len(people) == 21


def test_a_star_or_a_column_name_widens_nothing(people: KnowledgeBase) -> None:
    assert found(people, "Jor*") == found(people, "jor") == []
    assert ("Q8", "part") in found(people, "NOT")


@pytest.mark.parametrize("surface", ["x" * 10_000, "ab " * 3_333, "a " * 5_000, "パ" * 10_000, "Jordan " * 1_500])
def test_a_surface_of_ten_thousand_characters_is_answered_at_once(
    people: KnowledgeBase, surface: str, in_proportion: Callable[[float], float]
) -> None:
    start = time.monotonic()
    assert found(people, surface) == []
    assert time.monotonic() - start < in_proportion(1)


def test_a_very_long_name_is_found_when_it_is_exactly_this_one(
    make_kb: Callable[..., Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    title = "The Private Memoirs " * 100
    kb = open_kb(make_kb([new_entity("Q1", title)], []))
    assert found(kb, title.upper()) == [("Q1", "exact")]


def test_at_most_limit_entities_come_back_the_best_ones_each_once(people: KnowledgeBase) -> None:
    everything = found(people, "Jordan")
    assert len({entity_id for entity_id, _ in everything}) == len(everything) > 2
    for limit in range(len(everything) + 2):
        assert found(people, "Jordan", limit=limit) == everything[:limit]
    assert found(people, "Jordan", limit=-1) == []


def test_answers_remembered_are_forgotten_when_the_kb_changes(
    make_kb: Callable[..., Path],
    open_kb: Callable[[Path], KnowledgeBase],
) -> None:
    folder = make_kb()
    kb = open_kb(folder)
    names = NameIndex(kb)
    before = names.find("Jordan")
    assert names.find("Jordan") is before
    add_to_kb(folder, MemorySource([new_entity("Q500", "Jordan", popularity=1.0)]), Problems())  # type: ignore[arg-type]
    assert kb.entities_at([names.find("Jordan")[0].row])[0].id == "Q500"
    remove_from_kb(folder, ["Q500"])
    assert [match.row for match in names.find("Jordan")] == [match.row for match in before]


@settings(max_examples=100, deadline=None)
@given(
    surface=st.text(max_size=40)
    | st.lists(st.sampled_from("Jordan Paris Tolkein of the J. 北京 Not".split())).map(" ".join)
)
def test_any_surface_is_answered_the_same_way_twice_with_similarities_between_0_and_1(
    people: KnowledgeBase, surface: str
) -> None:
    first = NameIndex(people).find(surface)
    assert first == NameIndex(people).find(surface)
    assert all(0 <= match.similarity <= 1 for match in first)
    assert len({match.row for match in first}) == len(first) <= 64
    assert all(match.similarity == 1 for match in first if match.kind == "exact")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_name_with_one_typing_error_inside_a_long_word_is_still_found(
    people: KnowledgeBase, data: st.DataObject
) -> None:
    names = people.select(
        "SELECT e.id, n.folded FROM names n JOIN entities e ON e.row = n.entity WHERE length(folded) > 6"
    )
    entity_id, name = data.draw(
        st.sampled_from([(one, name) for one, name in names if name.isascii() and " " not in name])
    )
    place = data.draw(st.integers(2, len(name) - 2))
    letter = data.draw(st.sampled_from("aeiouxz"))
    typed = data.draw(st.sampled_from([name[:place] + name[place + 1 :], name[:place] + letter + name[place:]]))
    assert entity_id in [one for one, _ in found(people, typed)]
