"""Appositions and visible writing are stated as triples of a mention."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.generate.embedded import RELATION, VISIBLE, appositions, described, stated_triples
from localmel.generate.visible_text import VisibleLine
from localmel.records import Mention, Span, Triple

MENTION = Mention(id="m", surface="Jordan", context="Jordan, the river, flows.", span=Span(start=0, end=6))


def lines(*texts: str) -> list[VisibleLine]:
    return [VisibleLine(text=text, confidence=0.9) for text in texts]


def seen(*texts: str) -> list[str]:
    return [triple.tail for triple in stated_triples(MENTION, lines(*texts)) if triple.source == "ocr"]


def test_text_comes_first_then_each_line_of_the_picture() -> None:
    found = stated_triples(MENTION, lines("ALLENBY BRIDGE"))
    assert [(triple.relation, triple.tail, triple.source) for triple in found] == [
        ("described as", "river", "text"),
        (VISIBLE, "ALLENBY BRIDGE", "ocr"),
    ]
    assert {triple.head for triple in found} == {"Jordan"}


def test_short_lines_stand_once_more_as_one() -> None:
    assert seen("CHICAGO", "BULLS") == ["CHICAGO", "BULLS", "CHICAGO BULLS"]


def test_one_line_and_long_lines_are_not_joined() -> None:
    assert seen("CHICAGO") == ["CHICAGO"]
    assert seen("one two three four five six seven", "eight nine ten eleven twelve thirteen") == [
        "one two three four five six seven",
        "eight nine ten eleven twelve thirteen",
    ]


def test_nothing_seen_and_nothing_said_gives_no_triple() -> None:
    silent = Mention(id="m", surface="Jordan", context="Jordan", span=Span(start=0, end=6))
    assert stated_triples(silent, []) == ()


def test_a_description_holds_each_triple_once_stated_ones_first() -> None:
    stated = stated_triples(MENTION, lines("ALLENBY"))
    induced = [Triple(head="Jordan", relation="instance of", tail="river", source="text"), stated[0]]
    description = described(MENTION, stated, induced)
    assert description.mention_id == "m"
    assert description.triples == (*stated, induced[0])


def mention_in(marked: str) -> Mention:
    """`"[Macron], the president"` -> the mention Macron in the text without brackets."""
    start, end = marked.index("["), marked.index("]") - 1
    context = marked.replace("[", "", 1).replace("]", "", 1)
    return Mention(id="m", surface=context[start:end], context=context, span=Span(start=start, end=end))


def tails(marked: str) -> list[str]:
    return [triple.tail for triple in appositions(mention_in(marked))]


@pytest.mark.parametrize(
    ("marked", "tail"),
    [
        ("[Macron], the French president, spoke.", "French president"),
        ("[Macron], the French president.", "French president"),
        ("[Macron], a French politician", "French politician"),
        ("[Ali], an American boxer who never lost", "American boxer"),
        ("[Golding] is a novelist.", "novelist"),
        ("[Golding] was an English novelist and playwright", "English novelist"),
        ("[The Rangers] were the champions in 2011", "champions in 2011"),
        ("[Lula] became the president of Brazil.", "president of Brazil"),
        ("[Foster] (actress) arrived.", "actress"),
        ("[Mercury] (the planet) is small.", "planet"),
        ("[Ford], as the president, signed.", "president"),
        ("[Ford] as a car maker", "car maker"),
        ("We met the French president [Macron] today.", "French president"),
        ("The singer [Prince] died.", "singer"),
        ("the Brazilian football star [Neymar]", "Brazilian football star"),
        ("[Macron],\n  the\tFrench   president, spoke.", "French president"),
        ("[MACRON], THE FRENCH PRESIDENT, SPOKE.", "FRENCH PRESIDENT"),
        ("“[Curie], a Polish physicist”, it says", "Polish physicist"),
        ("[Łódź], the third-largest city, is old", "third-largest city"),
        ("[Merkel], the Bundeskanzlerin für alle, kam", "Bundeskanzlerin für alle"),
    ],
)
def test_a_description_beside_the_name_is_found(marked: str, tail: str) -> None:
    assert tail in tails(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "[Macron] spoke in Paris.",
        "[Macron], who spoke, left.",
        "[Macron] and the president spoke.",
        "They walked to the house of [Macron].",
        "[Macron], 46, spoke.",
        "[Macron] (1977-) spoke.",
        "[Macron], the .",
        "[Macron] is a",
        "[Macron]",
    ],
)
def test_where_nothing_is_said_nothing_is_found(marked: str) -> None:
    assert tails(marked) == []


def test_a_triple_names_the_mention_and_its_source() -> None:
    (triple,) = appositions(mention_in("[Macron], the French president."))
    assert (triple.head, triple.relation, triple.source) == ("Macron", RELATION, "text")


def test_the_same_description_before_and_after_is_said_once() -> None:
    assert tails("The painter [Turner], the painter, died.") == ["painter"]


def test_what_stands_far_away_is_not_taken() -> None:
    assert tails(f"[Macron]{' ' * 500}, the French president") == []
    assert tails(f"the French president{' ' * 500}[Macron]") == []


def words_of(text: str) -> str:
    return " ".join(text.split())


pieces = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [", the ", " is a ", " (", ")", " as the ", "the ", "president", "“", "\n", " " * 300, "ß", "İ", "\u202e"]
    ),
)


@given(
    before=st.lists(pieces, max_size=6), surface=st.text(min_size=1, max_size=20), after=st.lists(pieces, max_size=6)
)
def test_any_text_gives_triples_whose_tails_stand_in_it(before: list[str], surface: str, after: list[str]) -> None:
    start = len("".join(before))
    context = "".join([*before, surface, *after])
    span = Span(start=start, end=start + len(surface))
    found = appositions(Mention(id="m", surface=surface, context=context, span=span))
    assert len(set(found)) == len(found)
    for triple in found:
        assert triple.head == surface
        assert triple.tail in words_of(context)
        assert re.match(r"[^\W\d_]", triple.tail)
