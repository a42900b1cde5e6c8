"""Texts of users on a page: what cannot be seen is made to be seen.  Escaping is the template's.

In: any text.  Out: a text without control characters and without those that turn the direction of what follows."""

from __future__ import annotations

_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"Embeddings, overrides and isolates: they reach beyond the word they stand in.  Direction marks (RLM, LRM) do not."


def shown(text: str) -> str:
    """Control characters and turns of direction become `[U+202E]`; line breaks and tabs become blanks."""
    return "".join(
        char
        if char.isprintable() and char not in _TURNS
        else " "
        if char in "\n\r\t\u2028\u2029\u00a0"
        else _named(char)
        for char in text
    )


def _named(char: str) -> str:
    if char in "\u200e\u200f\u200c\u200d\u00ad\u061c" or (char.isspace()):
        return char if not char.isspace() else " "
    return f"[U+{ord(char):04X}]"
