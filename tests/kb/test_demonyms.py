"""Demonyms: what the people of a place are called leads to the place, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.kb.names import NameIndex
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import _table, fold, places_of


@pytest.mark.parametrize(
    ("surface", "place"),
    [("dutch", "netherlands"), ("dutchmen", "netherlands"), ("germans", "germany"), ("new zealanders", "new zealand")],
)
def test_a_demonym_in_singular_or_plural_gives_its_place(surface: str, place: str) -> None:
    assert place in places_of(surface)


@pytest.mark.parametrize("surface", ["", "s", "netherlands", "jordan", "washington", "turkey"])
def test_other_words_give_no_place(surface: str) -> None:
    assert places_of(surface) == ()


def test_every_row_is_folded_sorted_and_names_a_place() -> None:
    demonyms = list(_table())
    assert demonyms == sorted(demonyms)
    assert [demonym for demonym in demonyms if demonym != fold(demonym)] == []
    assert all(places and all(places) for places in _table().values())


def test_the_place_stands_behind_whole_names_and_before_parts(change_kb: Callable[..., Path]) -> None:
    entities = [
        {"id": "Q1", "label": "Kingdom of the Netherlands", "aliases": ["Netherlands"]},
        {"id": "Q2", "label": "Dutch"},
        {"id": "Q3", "label": "Dutch Guiana"},
    ]
    with KnowledgeBase(change_kb(entities)) as kb:
        found = [(kb.entities_at([match.row])[0].id, match.kind) for match in NameIndex(kb).find("Dutch")]
    assert found == [("Q2", "exact"), ("Q1", "demonym"), ("Q3", "part")]


def test_a_place_that_the_kb_lacks_adds_nothing(change_kb: Callable[..., Path]) -> None:
    with KnowledgeBase(change_kb([{"id": "Q2", "label": "Dutch"}])) as kb:
        assert [match.kind for match in NameIndex(kb).find("Dutch")] == ["exact"]
