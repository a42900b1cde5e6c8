"""Words as evidence: which of them count, and how two forms of one word become equal.

In: any text.  Out: numbers that stand for word stems.  Knows no KB."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from localmel.kb.folding import fold

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
"Words that say nothing about which entity is meant, and are no names when they stand alone."
TITLES = frozenset(
    "mr mrs ms miss dr sir dame lord lady saint st president vice prime minister chancellor governor mayor senator "
    "congressman congresswoman representative secretary ambassador king queen prince princess emperor empress pope "
    "bishop archbishop cardinal reverend rabbi imam general colonel major captain lieutenant sergeant admiral "
    "commander professor judge justice coach manager director actor actress singer author writer painter chairman "
    "chairwoman ceo former deputy staff mp".split()
)
"Words that stand before or behind a name and are no part of it, unless the KB says so."
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
    """A number for a folded word; words that share their first six letters share it (football, footballer)."""
    return zlib.crc32(word[:_STEM_LETTERS].encode("utf-8", "replace"))


def stems(text: str) -> dict[int, str]:
    """The stems of a text's words without function words and single letters, each with a word that gave it."""
    return stems_of(fold(text).split())


def stems_of(words: Iterable[str]) -> dict[int, str]:
    """As `stems`, from words already folded."""
    return {stem(word): word for word in words if len(word) > 1 and word not in FUNCTION_WORDS}
