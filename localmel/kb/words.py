"""Names and words as they are compared: folded, without function words, as stems; and the places of a people.

In: any text.  Out: words of letters and digits with single blanks, or numbers for word stems.  Knows no KB."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_DROPPED = str.maketrans("", "", ".'’‘`´ʼ")
_NOT_A_WORD = re.compile(r"[\W_]+")
_INITIALS = re.compile(r"\b(?:\w )+\w\b")
_POSSESSIVE = re.compile(r"(?:['’]s|(?<=s)['’])$", re.IGNORECASE)
_LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i"}
"Letters that decomposition leaves whole but people type without their stroke."
_KANA_VOICING = 8
"Combining class of the marks that turn ハ into パ: another letter, not an accent."
_LETTER_TABLE = str.maketrans(_LETTERS)


def fold(text: str) -> str:
    """Fold case, accents and punctuation away; a text without a letter or digit becomes "".

    Examples: "J. R. R. Tolkien" and "JRR Tolkien" become "jrr tolkien"; "Beyoncé" becomes "beyonce"."""
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
    """Fold a surface without the possessive at its end."""
    return fold(_POSSESSIVE.sub("", surface.strip())) or fold(surface)


FUNCTION_WORDS = frozenset(
    "a about above after again against all also am among an and any are as at be because been before being below "
    "between both but by can could did do does doing down during each either few first for former from further had "
    "has have having he her here hers him his how i if in into is it its itself just last later left like made many "
    "me more most mr mrs ms my near new next no nor not now of off old on once one only or other our out over own "
    "per photo photographed picture pictured right same several she should since so some still such than that the "
    "their them then there these they this those through to today together too two under until up upon us very via "
    "was we were what when where which while who whom whose why will with within without would you your "
    "la le les el los las de del della der die das den dem des du di da do dos van von und et y e ou en im zu al "
    "three four five six seven eight nine ten".split()
)
"Words that say nothing about which entity is meant, and are not names on their own."
TITLES = frozenset(
    "mr mrs ms miss dr sir dame lord lady saint st president vice prime minister chancellor governor mayor senator "
    "congressman congresswoman representative secretary ambassador king queen prince princess emperor empress pope "
    "bishop archbishop cardinal reverend rabbi imam general colonel major captain lieutenant sergeant admiral "
    "commander professor judge justice coach manager director actor actress singer author writer painter chairman "
    "chairwoman ceo former deputy staff mp".split()
)
"Words before or after a name that do not belong to it unless the KB says so."
CAPTION_WORDS = frozenset(
    "map location locations image logo view sign members member students student people residents fans police "
    "officers soldiers troops workers women men woman man children protesters demonstrators supporters players player "
    "team flag photo photograph picture portrait poster video screenshot graph chart diagram file aerial inside "
    "outside front back detail close left right top bottom damage aftermath scene".split()
)
"Words that captions begin with."
MONTHS = frozenset("january february march april may june july august september october november december".split())
WEEKDAYS = frozenset("monday tuesday wednesday thursday friday saturday sunday".split())
_STEM_LETTERS = 6


def stem(word: str) -> int:
    """Return a number for a folded word, shared by all words with the same first six letters (football, footballer)."""
    return zlib.crc32(word[:_STEM_LETTERS].encode("utf-8", "replace"))


def stems(text: str) -> dict[int, str]:
    """Map the stems of a text, without function words and single letters, to a word that has each."""
    return stems_of(fold(text).split())


def stems_of(words: Iterable[str]) -> dict[int, str]:
    """Do the same as `stems` for words that are already folded."""
    return {stem(word): word for word in words if len(word) > 1 and word not in FUNCTION_WORDS}


# Countries, continents, and the regions and cities whose adjective is not just an ending.
_TABLE = Path(__file__).parent / "demonyms.tsv"


def places_of(folded: str) -> tuple[str, ...]:
    """Return the folded names of the places a demonym belongs to, empty if it is none; plurals count as singulars.

    Example: "dutch" and "dutchmen" lead to "netherlands" and "kingdom of the netherlands"."""
    table = _table()
    return table.get(folded) or table.get(folded.removesuffix("s"), ())


@cache
def _table() -> dict[str, tuple[str, ...]]:
    lines = _TABLE.read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return {demonym: tuple(map(fold, places.split(";"))) for demonym, places in rows}
