"""What is stated about a mention, and how stated and induced triples become one description."""

from __future__ import annotations

from localmel.generate.embedded import VISIBLE, described, stated_triples
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
