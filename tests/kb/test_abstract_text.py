"""Abstracts become plain prose: markup and pronunciations go, sentences stay whole, and every input is survived."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.kb.importers.abstracts import plain_abstract
from localmel.kb.importers.reading import clean

MARKS = """{{ }} [[ ]] ( ) <ref> </ref> <ref/> <!-- --> <b > | ; ''' == a Berlin. &amp; &lt;ref&gt; ˈ 。 [1] http://x"""
PIECES = [*MARKS.split(), " ", "\n", "\x00", "\u2028", "\ud800"]
RAW = st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=200)


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("'''Berlin''' is the [[capital city|capital]] of [[Germany]].", "Berlin is the capital of Germany."),
        ("Berlin (/bɜːrˈlɪn/ bur-LIN; German: [bɛʁˈliːn] (listen)) is a city.", "Berlin is a city."),
        ("Jordan (/ˈdʒɔːrdən/; born 1963) played.", "Jordan (born 1963) played."),
        ("Paris (French pronunciation: [paʁi]) is a city.", "Paris is a city."),
        ("The Who ( ; ; ) are a band.", "The Who are a band."),
        ("A {{cite|{{nested}} web}}b<ref name=x>no</ref>c<ref name='y'/>d.", "A b c d."),
        ("It has 3 streets.[1][citation needed] It [note 2] ends.", "It has 3 streets. It ends."),
        ("<p>Tom &amp; Jerry</p><!-- not\nthis -->", "Tom & Jerry"),
        ("[[File:A.jpg|thumb|a picture]]See [http://example.org the site].", "See the site."),
        ("A\x00B\x1b[31m\u2028C", "A B [31m C"),
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        ("f(x) of (Smith, John)", "f(x) of (Smith, John)"),
        ("{{only markup}} () ; .", ""),
        ("", ""),
    ],
)
def test_what_is_no_prose_goes(raw: str, plain: str) -> None:
    assert plain_abstract(raw).text == plain


@pytest.mark.parametrize(
    ("raw", "most", "kept"),
    [
        ("One two three four. Five six seven.", 25, "One two three four."),
        ("He met Dr. Smith and J. R. Tolkien. Then he left.", 40, "He met Dr. Smith and J. R. Tolkien."),
        ("It is in the U.S. and has 1.5 million people today", 30, "It is in the U.S. and has 1.5…"),
        ("これは文です。これは次の文です。", 10, "これは文です。"),
        ("wordwordwordwordwordword", 10, "wordwordw…"),
        ("Short.", 6, "Short."),
        ("Was it? Yes! It was so.", 13, "Was it? Yes!"),
    ],
)
def test_a_long_one_is_cut_behind_a_sentence_or_else_a_word(raw: str, most: int, kept: str) -> None:
    found = plain_abstract(raw, most=most)
    assert found.text == kept
    assert found.was_cut == (len(raw) > most)


@given(RAW, st.integers(20, 80))
def test_whatever_comes_is_one_line_within_the_limit(raw: str, most: int) -> None:
    text = plain_abstract(raw, most=most).text
    assert len(text) <= most
    assert text == clean(text) == " ".join(text.split())
    assert not text or any(char.isalnum() for char in text)


@pytest.mark.parametrize("piece", ["<ref>", "{{", "[[", "(", "<a", "<!--", "[http://a ", "== ", "/a", ";", "[ˈ"])
def test_markup_that_never_ends_costs_no_more_than_its_length(piece: str) -> None:
    started = time.perf_counter()
    plain_abstract(piece * 20_000)
    assert time.perf_counter() - started < 5
