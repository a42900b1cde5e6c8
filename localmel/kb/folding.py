"""Names as they are compared: case, accents and punctuation folded away.

In: any text.  Out: words of letters and digits with single blanks.  Knows no KB."""

from __future__ import annotations

import re
import unicodedata

_DROPPED = str.maketrans("", "", ".'’‘`´ʼ")
_NOT_A_WORD = re.compile(r"[\W_]+")
_INITIALS = re.compile(r"\b(?:\w )+\w\b")
_POSSESSIVE = re.compile(r"(?:['’]s|(?<=s)['’])$", re.IGNORECASE)
_LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i"}
"Letters that decomposition leaves whole but that people type without their stroke."
_KANA_VOICING = 8
"The combining class of the marks that make パ of ハ: another letter, no accent."
_LETTER_TABLE = str.maketrans(_LETTERS)


def fold(text: str) -> str:
    """`"J. R. R. Tolkien"` and `"JRR Tolkien"` become `"jrr tolkien"`; `"Beyoncé"` becomes `"beyonce"`.

    A text without a letter or digit folds to the empty string."""
    if text.isascii():
        plain = text.lower()
    else:
        decomposed = unicodedata.normalize("NFKD", text.casefold()).translate(_LETTER_TABLE)
        kept = "".join(char for char in decomposed if unicodedata.combining(char) in (0, _KANA_VOICING))
        plain = unicodedata.normalize("NFC", kept).casefold()
    words = _NOT_A_WORD.sub(" ", plain.translate(_DROPPED)).strip()
    if " " in words and _INITIALS.search(words):
        words = _INITIALS.sub(lambda match: match.group().replace(" ", ""), words)
    return words


def fold_mention(surface: str) -> str:
    """A surface folded, without the possessive at its end."""
    return fold(_POSSESSIVE.sub("", surface.strip())) or fold(surface)
