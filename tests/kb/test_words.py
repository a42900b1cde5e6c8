"""Words count as evidence by their stems; function words do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from localmel.kb.words import FUNCTION_WORDS, fold, stem, stems, stems_of


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
