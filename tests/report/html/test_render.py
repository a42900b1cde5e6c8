"""Texts on a page: what cannot be seen is shown, what people write stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from localmel.report.html.render import shown


def test_control_characters_and_turns_of_direction_are_named() -> None:
    assert shown("a\x1b[31mb\x00") == "a[U+001B][31mb[U+0000]"
    assert shown("\u202egnp.exe\u202c") == "[U+202E]gnp.exe[U+202C]"
    assert shown("line\nbreak\tand tab") == "line break and tab"
    assert shown("half \ud800 a character") == "half [U+D800] a character"


def test_what_people_write_stays() -> None:
    for text in ("Ünïcödé 日本", "\u200fالقاهرة\u200f", "क\u200dष", "👩\u200d🚀", "<b>&amp;"):
        assert shown(text) == text


@given(some.text())
def test_nothing_unseen_is_left(text: str) -> None:
    kept = set("\u200c\u200d\u200e\u200f\u061c\u00ad")
    assert all(char.isprintable() or char in kept for char in shown(text))
    assert shown(shown(text)) == shown(text)
    shown(text).encode("utf-8")
