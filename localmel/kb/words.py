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
