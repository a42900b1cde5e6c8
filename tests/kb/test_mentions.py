"""Mentions are spans that slice back to what was marked, listed or detected, whatever the text."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from localmel.errors import BadInput, BadMention
from localmel.kb.mentions import MOST_CHARACTERS, check_text, detected_mentions, listed_mentions, marked_mentions
from localmel.kb.store import KnowledgeBase
from localmel.records import Mention, Span
from tests.kb.conftest import new_entity

NAMES = (
    "Jordan Michael Paris Washington Tolkien J. R. U.S. The Who Not And apple 1984 AT&T 北京 パリ巴黎 محمد صلاح Beyoncé"
).split()
texts = st.text(max_size=120) | st.lists(
    st.sampled_from([*NAMES, "'s", "’", ".", ",", "[[", "]]", "\n", "\n\n", "the", "in", "-", "\u200f", "🌍"])
    | st.text(max_size=3),
    max_size=25,
).map(" ".join)


def surfaces(text: str, spans: list[Span]) -> list[str]:
    """What the spans hold; fails where they overlap, stand out of order or leave the text."""
    end = 0
    for span in spans:
        assert end <= span.start
        end = span.end
        Mention(id="m", surface=text[span.start : span.end], context=text, span=span)
    return [text[span.start : span.end] for span in spans]


# --- marked ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain", "names"),
    [
        ("[[Jordan]] dunks on [[Barkley]]", "Jordan dunks on Barkley", ["Jordan", "Barkley"]),
        ("no mark", "no mark", []),
        ("[[Jordan dunks", "[[Jordan dunks", []),
        ("Jordan]] dunks [[", "Jordan]] dunks [[", []),
        ("[[a [[Jordan]] b]]", "[[a Jordan b]]", ["Jordan"]),
        ("[[[Jordan]]]", "[Jordan]", ["Jordan"]),
        ("[[Jordan]]]]", "Jordan]]", ["Jordan"]),
        ("[[ Jordan ]]!", " Jordan !", ["Jordan"]),
        ("[[New\nYork]]", "New\nYork", ["New\nYork"]),
        ("[[a]b]]", "a]b", ["a]b"]),
        ("[[🌍]][[محمد صلاح]]", "🌍محمد صلاح", ["🌍", "محمد صلاح"]),
        ("[[J]][[J]]", "JJ", ["J", "J"]),
    ],
)
def test_double_brackets_mark_a_name_and_leave_the_text(text: str, plain: str, names: list[str]) -> None:
    found, spans = marked_mentions(text)
    assert found == plain
    assert surfaces(found, spans) == names


@pytest.mark.parametrize("text", ["[[]]", "a [[ ]] b", "[[Jordan]] [[\n]]"])
def test_a_mark_around_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadMention, match="empty"):
        marked_mentions(text)


@given(pieces=st.lists(st.tuples(st.text().filter(lambda text: not set(text) & set("[]")), st.booleans())))
def test_what_was_marked_is_what_the_spans_hold(pieces: list[tuple[str, bool]]) -> None:
    pieces = [(text, marked and bool(text.strip())) for text, marked in pieces]
    plain, spans = marked_mentions("".join(f"[[{text}]]" if marked else text for text, marked in pieces))
    assert plain == "".join(text for text, _ in pieces)
    assert surfaces(plain, spans) == [text.strip() for text, marked in pieces if marked]


@given(text=texts)
@example("[[" * 500)
@example("[[a" * 300 + "]]" * 300)
def test_any_text_is_read_for_marks_or_refused_for_an_empty_one(text: str) -> None:
    try:
        plain, spans = marked_mentions(text)
    except BadMention:
        return
    assert all(surface.strip() == surface != "" for surface in surfaces(plain, spans))
    assert len(plain) == len(text) - 4 * len(spans)


@pytest.mark.parametrize("text", ["[[" * 10_000, "]]" * 10_000, "[[a" * 6_666, "[" * 20_000])
def test_unbalanced_brackets_cost_no_time(text: str, in_proportion: Callable[[float], float]) -> None:
    start = time.monotonic()
    assert marked_mentions(text) == (text, [])
    assert time.monotonic() - start < in_proportion(1)


# --- listed ------------------------------------------------------------------------------------------------------


def test_a_listed_mention_is_its_first_whole_word_then_the_next_free_one() -> None:
    text = "Jordans and Jordan met jordan in Jordan."
    assert listed_mentions(text, ["Jordan"]) == [Span(start=12, end=18)]
    assert listed_mentions(text, ["Jordan"] * 2) == [Span(start=12, end=18), Span(start=33, end=39)]
    assert listed_mentions(text, ["Jordan"] * 4)[0] == Span(start=0, end=6)
    assert listed_mentions(text, ["JORDAN"]) == [Span(start=12, end=18)]
    with pytest.raises(BadMention, match="only where another mention is"):
        listed_mentions(text, ["Jordan"] * 5)


def test_listed_mentions_do_not_share_characters_and_come_in_the_order_of_the_text() -> None:
    text = "New York, York"
    assert surfaces(text, listed_mentions(text, ["New York", "York"])) == ["New York", "York"]


@pytest.mark.parametrize(
    "surface", ["Barkley", "Jordan Jordan", "Jor dan", "J.rdan", "Jordan|x", "\\w+", "(", "[a-z]+"]
)
def test_a_mention_that_is_not_in_the_text_is_refused(surface: str) -> None:
    with pytest.raises(BadMention, match="is not in the text") as caught:
        listed_mentions("Jordan dunks", [surface])
    assert caught.value.exit_code == 3
    assert repr(surface) in caught.value.fact


@pytest.mark.parametrize("surface", ["", " ", "\n"])
def test_an_empty_mention_is_refused(surface: str) -> None:
    with pytest.raises(BadMention, match="empty"):
        listed_mentions("Jordan", [surface])


@pytest.mark.parametrize(
    "surface", ["C++", "A.B", "(sic)", "$5", "^x", "a|b", "[x", "\\d", "!!!", "🌍", "محمد", "北京", "St. ", " St"]
)
def test_characters_of_regular_expressions_and_of_any_script_are_themselves(surface: str) -> None:
    text = f"x{surface}x or {surface} and AxB 55"
    assert surfaces(text, listed_mentions(text, [surface])) == [surface]


@given(text=texts, data=st.data())
def test_any_piece_of_a_text_is_found_in_it(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    surface = text[start : data.draw(st.integers(start, len(text)))]
    if not surface.strip():
        return
    (found,) = surfaces(text, listed_mentions(text, [surface]))
    assert found.lower() == surface.lower()


# --- detected ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Michael Jordan was born in Paris", ["Michael Jordan", "Paris"]),
        ("Jordan's dunk, Paris’ lights", ["Jordan", "Paris"]),
        ("We met in Paris.", ["Paris"]),
        ("Paris, Jordan; (Croatia)", ["Paris", "Jordan", "Croatia"]),
        ("they saw J.R.R. Tolkien and George Washington there", ["J.R.R. Tolkien", "George Washington"]),
        ("He left the U.S. in May", ["U.S."]),
        ("the painter Picasso", ["Picasso"]),
        ("so says the pablo of jordan", []),
        ("he ate an apple", []),
        ("SEEN FROM PARIS", ["PARIS"]),
        ("a song by The Who", ["The Who"]),
        ("the who", []),
        ("in 1984 and 1,984 or 3.5", []),
        ("the and of in who us", []),
        ("who told us that", []),
        ("I work for AT&T", ["AT&T"]),
        ("昨日は東京と北京へ", ["東京", "北京"]),
        ("لعب محمد صلاح أمس", ["محمد صلاح"]),
        ("🌍 Paris 🌍", ["Paris"]),
        ("I saw Michael\n\nJordan", ["Michael", "Jordan"]),
        ("the US and us", ["US"]),
        ("TELL US NOW", []),
        ("tell US.", ["US"]),
        ("", []),
    ],
)
def test_names_of_the_kb_are_detected_the_longest_first(people: KnowledgeBase, text: str, names: list[str]) -> None:
    assert surfaces(text, detected_mentions(text, people)) == names


def test_a_word_in_lower_case_is_a_name_where_the_kb_knows_a_proper_name_beside_it(
    make_kb: Callable[..., Path], open_kb: Callable[[Path], KnowledgeBase]
) -> None:
    kb = open_kb(make_kb([new_entity("Q1", "jaguar"), new_entity("Q2", "Jaguar"), new_entity("Q3", "apple")], []))
    text = "a jaguar ate an apple. Jaguars"
    assert surfaces(text, detected_mentions(text, kb)) == ["jaguar"]


@pytest.mark.parametrize("text", ["Not now. The sky is blue", "Apple trees bloom", "And the society met"])
def test_a_capital_at_the_start_of_a_sentence_alone_makes_no_name(people: KnowledgeBase, text: str) -> None:
    assert detected_mentions(text, people) == []


@settings(max_examples=200, deadline=None)
@given(text=texts)
@example("Jordan." * 30)
@example("ǅ İİ ß ﬃ Jordan\u0301")
def test_in_any_text_spans_slice_back_and_never_overlap(people: KnowledgeBase, text: str) -> None:
    for surface in surfaces(text, detected_mentions(text, people)):
        assert surface.strip() == surface != ""
        assert not surface.isdigit()


@pytest.mark.parametrize(
    "text",
    [
        "Aa Bb Cc " * 2_222,
        "in May " * 2_857,
        "Jordan " * 2_857,
        "Michael Not " * 1_666,
        "北京" * 10_000,
        "x" * 20_000,
        "J." * 10_000,
        "ABC\n" * 5_000,
        "'s-" * 6_666,
    ],
    ids=lambda text: text[:8],
)
def test_the_longest_text_that_is_read_takes_seconds_at_most(
    people: KnowledgeBase, text: str, in_proportion: Callable[[float], float]
) -> None:
    check_text(text)
    start = time.monotonic()
    surfaces(text, detected_mentions(text, people))
    assert time.monotonic() - start < in_proportion(10)


# --- the text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000"])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="empty") as caught:
        check_text(text)
    assert caught.value.hint


def test_a_text_longer_than_any_caption_is_refused_with_its_length() -> None:
    check_text("x" * MOST_CHARACTERS)
    with pytest.raises(BadInput, match="1,000,000 characters"):
        check_text("x" * 1_000_000)
