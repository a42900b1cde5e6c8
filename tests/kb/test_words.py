"""Names fold to the same words, words count as evidence by their stems, and demonyms lead to their places."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from localmel.kb.names import NameIndex
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import FUNCTION_WORDS, _table, fold, fold_mention, places_of, stem, stems, stems_of


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("J. R. R. Tolkien", "jrr tolkien"),
        ("J.R.R. Tolkien", "jrr tolkien"),
        ("JRR Tolkien", "jrr tolkien"),
        ("Beyoncé Knowles-Carter", "beyonce knowles carter"),
        ("BEYONCE\u0301", "beyonce"),
        ("Łódź", "lodz"),
        ("Straße", "strasse"),
        ("STRASSE", "strasse"),
        ("Ærøskøbing", "aeroskobing"),
        ("İstanbul", "istanbul"),
        ("O'Neill", "oneill"),
        ("O’Neill", "oneill"),
        ("AT&T", "at t"),
        ("  New\tYork\n", "new york"),
        ("ＴＯＫＹＯ", "tokyo"),
        ("北京", "北京"),
        ("パリ", "パリ"),
        ("ﾊﾟﾘ", "パリ"),
        ("서울", "서울"),
        ("محمد صلاح", "محمد صلاح"),
        ("Москва", "москва"),
        ("Ελλάς", "ελλασ"),
        ("snake_case", "snake case"),
        ("🌍", ""),
        ("!!!", ""),
        ("", ""),
        ("\udcff", ""),
    ],
)
def test_case_accents_and_punctuation_are_folded_away(text: str, folded: str) -> None:
    assert fold(text) == folded


@pytest.mark.parametrize(
    ("surface", "folded"),
    [
        ("Jordan's", "jordan"),
        ("Jordan’s", "jordan"),
        ("JORDAN'S", "jordan"),
        ("the Lakers'", "the lakers"),
        ("O'Neill's ", "oneill"),
        ("McDonald's", "mcdonald"),
        ("'s", "s"),
    ],
)
def test_a_mention_loses_the_possessive_at_its_end(surface: str, folded: str) -> None:
    assert fold_mention(surface) == folded


@given(st.text())
@example("a b c")
@example("ᾼ")
@example("ﬃ İ ǆ")
def test_any_text_folds_to_words_with_single_blanks(text: str) -> None:
    folded = fold(text)
    assert folded == " ".join(folded.split())
    assert not re.search(r"[^\w ]|_", folded)
    assert folded == fold(f"  {text}!  ")


@given(st.text())
def test_upper_and_lower_case_of_ascii_fold_alike(text: str) -> None:
    ascii_text = text.encode("ascii", "ignore").decode()
    assert fold(ascii_text.upper()) == fold(ascii_text.lower()) == fold(ascii_text)


def test_forms_of_one_word_share_their_stem_and_others_do_not() -> None:
    assert stem("football") == stem("footballer") == stem("footba")
    assert len({stem("football"), stem("foot"), stem("basketball")}) == 3


def test_function_words_and_single_letters_are_no_evidence() -> None:
    assert list(stems("The striker of a club, who was born in B.").values()) == ["striker", "club", "born"]
    assert stems("of the and") == stems("") == {}


def test_a_stem_comes_with_a_word_that_gave_it() -> None:
    assert stems("Painters painted") == {stem("painte"): "painted"}


def test_function_words_are_as_folding_leaves_them() -> None:
    assert {fold(word) for word in FUNCTION_WORDS} == FUNCTION_WORDS


@given(st.text())
def test_stems_of_a_text_are_those_of_its_folded_words(text: str) -> None:
    found = stems(text)
    assert found == stems_of(fold(text).split())
    assert all(0 <= number < 2**32 and stem(word) == number for number, word in found.items())


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
