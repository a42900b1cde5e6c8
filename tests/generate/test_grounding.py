"""Names and years of a written text are looked for in the sources; what stands in none is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.generate.grounding import Ungrounded, ungrounded
from localmel.kb.words import fold

SOURCES = (
    "Michael Jordan",
    "MJ",
    "American basketball player, born on 17 February 1963",
    "member of sports team: Chicago Bulls",
    "date of birth: 1963-02-17",
    "place of birth: Brooklyn",
    "country of citizenship: United States of America",
    "educated at: University of North Carolina",
    "work period: 1984-2003",
    "born: 63 BC",
)


@pytest.mark.parametrize(
    "text",
    [
        "Michael Jordan is an American basketball player, born in 1963 in Brooklyn.",
        "Born in Brooklyn, he studied at the University of North Carolina and in the United States.",
        "MICHAEL JORDAN (MJ) played for the Chicago Bulls’ team. Known widely, he retired in February 2003.",
        "President Michael Jordan; the Americans in the United States admired Jordan.",
        "He played in the 1980s. During Monday games, the player scored 1,963 points, or 2.0.",
        "Founded by Jordan's friends in 63 BC, the Chicago Bulls.",
        "lower case says nothing, 12 and 300 are no years",
        "",
    ],
)
def test_what_the_sources_say_is_not_told(text: str) -> None:
    assert ungrounded(text, SOURCES) == Ungrounded()


@pytest.mark.parametrize(
    ("text", "names", "years"),
    [
        ("He played for the Washington Wizards in 1998.", ("Washington Wizards",), ("1998",)),
        ("Michael Washington is a player.", ("Michael Washington",), ()),
        ("Chicago and Iowa and Brooklyn", ("Iowa",), ()),
        ("Einstein was his friend. Einstein again.", ("Einstein",), ()),
        ("Sir J. R. R. Tolkien met St. Louis.", ("Sir J. R. R. Tolkien", "St. Louis"), ()),
        ("A French player of the 1990s, born 1963s, in 44 BC.", ("French",), ("1990s", "44 BC")),
        ("He is the Duke of Chicago.", ("Duke of Chicago",), ()),
        ("He joined Real Madrid, Bayern München and Łódź", ("Real Madrid", "Bayern München", "Łódź"), ()),
        ("The University of Paris and the University of North Carolina", ("University of Paris",), ()),
    ],
)
def test_what_no_source_says_is_told_in_the_order_of_the_text(
    text: str, names: tuple[str, ...], years: tuple[str, ...]
) -> None:
    found = ungrounded(text, SOURCES)
    assert (found.names, found.years) == (names, years)
    assert bool(found)


def test_names_are_compared_as_the_kb_folds_them() -> None:
    assert not ungrounded("J. R. R. Tolkien and Beyoncé met Straßer", ["jrr tolkien", "BEYONCE", "Strasser"])
    assert not ungrounded("A Dutch painter", ["born in: Netherlands"])
    assert ungrounded("A Dutch painter", ["born in: Belgium"]).names == ("Dutch",)


def test_a_decade_stands_where_a_year_of_it_does() -> None:
    assert ungrounded("the 1960s and the 1970s", ["1963-02-17"]).years == ("1970s",)


TEXTS = st.text(max_size=80) | st.lists(
    st.sampled_from(
        ["Ada", "of", "the", "and", "Byron", "1815", "44 BC", ".", " ", "St", "'s", "ǅ", "パリ", "(", "\n"]
    ),
    max_size=20,
).map(" ".join)


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_what_is_told_stands_in_the_text_and_in_no_source(text: str, sources: list[str]) -> None:
    found = ungrounded(text, sources)
    for each in (*found.names, *found.years):
        assert each in text
    for name in found.names:
        assert not any(f" {fold(name)} " in f" {fold(source)} " for source in sources)
    for year in found.years:
        assert not any(year == word for source in sources for word in source.split())


@given(TEXTS)
def test_a_text_that_is_its_own_source_says_nothing_new(text: str) -> None:
    assert ungrounded(text, [text]).years == ()
