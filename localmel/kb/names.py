"""A name in a text -> the entities that may bear it.

In: a surface.  Out: name matches, best first: the whole name, the place whose people it names ("Dutch" -> Netherlands),
part of a name ("Washington" -> George Washington), and, if none of these is found, a misspelt name.  Equal matches are
ordered by prominence: popularity in the KB, then the number of triples.  Knows nothing of the context."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, zip_longest
from typing import Any, Literal

from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA

from localmel.kb.store import KnowledgeBase
from localmel.kb.words import FUNCTION_WORDS, fold_mention, places_of

Kind = Literal["exact", "demonym", "part", "some words", "fuzzy"]
_FIELDS = "n.entity, n.text, n.folded, n.is_label, e.popularity, e.n_triples"
_JOINED = "JOIN names n ON n.name = w.rowid JOIN entities e ON e.row = n.entity"
_TYPING_FLOOR = 0.7
"Share of a word's letters that must be right (optimal string alignment) for it to be a misspelling of another."
_CORRECTIONS = 5
_END = 3
"A misspelt word has its first two letters right, or its last three."
_LAST = "\U0010ffff"
_PART_LIMIT = 160
_PLACES = 4
"Most entities that a demonym may lead to."
_SHARING_LIMIT = 32
_STEM = 4
"Fewest letters that two nearly equal names share at their start."
_LONGEST, _MOST_WORDS = 200, 24
"Characters and words of a surface; a longer one is not a name, unless the KB has exactly this one."
_SCATTERED = "(n.entity * 2654435761) & 4294967295, n.name"
"Breaks ties by a fixed shuffle, so that the order of the import never favours an entity."


@dataclass(frozen=True, slots=True)
class NameMatch:
    """One entity by its best matching name."""

    row: int
    name: str
    folded: str
    is_label: bool
    popularity: float | None
    n_triples: int
    kind: Kind
    similarity: float
    "Between 0 and 1: 1 for the whole name, else the share of its letters that the surface has."


class NameIndex:
    """Looks surfaces up in one KB and caches recent answers."""

    def __init__(self, kb: KnowledgeBase, *, use_counts: bool = True, remembered: int = 8192) -> None:
        self._kb = kb
        self._use_counts = use_counts
        self._prominence = "e.popularity DESC, e.n_triples DESC, " if use_counts else ""
        self._find = lru_cache(maxsize=remembered)(self._look_up)
        self._state = kb.state

    def find(self, surface: str, *, limit: int = 64) -> tuple[NameMatch, ...]:
        """Return at most `limit` entities, best first, each once."""
        if (state := self._kb.state) != self._state:  # another process has changed the KB
            self._find.cache_clear()
            self._state = state
        folded = fold_mention(surface)
        return self._find(folded, limit) if folded else ()

    def _look_up(self, folded: str, limit: int) -> tuple[NameMatch, ...]:
        words = folded.split()
        found: dict[int, NameMatch] = {}
        if len(folded) > _LONGEST or len(words) > _MOST_WORDS:
            _keep(found, self._exact(folded, words), limit)
            return tuple(found.values())
        for search in (self._exact, self._peopled, self._containing, self._nearly, self._sharing_words):
            if len(found) < limit:
                _keep(found, search(folded, words), limit)
        if not any(match.kind in ("exact", "demonym", "part") for match in found.values()):
            _keep(found, self._misspelt(folded, words), limit)
        return tuple(found.values())

    def _exact(self, folded: str, words: list[str]) -> list[NameMatch]:
        order = self._prominence + _SCATTERED
        sql = f"SELECT {_FIELDS} FROM names n JOIN entities e ON e.row = n.entity WHERE n.folded = ? ORDER BY {order}"
        return [_match(values, "exact", 1.0) for values in self._kb.select(sql, (folded,))]

    def _peopled(self, folded: str, words: list[str]) -> list[NameMatch]:
        """Return the places that a demonym belongs to, by each of their names."""
        found = [match for place in places_of(folded) for match in self._exact(place, [])[:_PLACES]]
        return [replace(match, kind="demonym", similarity=0.95) for match in found]

    def _containing(self, folded: str, words: list[str]) -> list[NameMatch]:
        """Return names that hold every word, alternating between the most prominent and the shortest."""
        query = " ".join(map(_quoted, words))
        shortest = self._by_words(query, f"length(n.folded), {self._prominence}{_SCATTERED}", _PART_LIMIT)
        prominent = self._by_words(query, f"{self._prominence}{_SCATTERED}", _PART_LIMIT) if self._use_counts else []
        rows = chain.from_iterable(zip_longest(prominent, shortest))
        return [_match(values, "part", min(len(folded) / max(len(values[2]), 1), 1.0)) for values in rows if values]

    def _nearly(self, folded: str, words: list[str]) -> list[NameMatch]:
        """Return names that begin like the surface and differ in a few last letters: Croatian, Croatia."""
        if len(folded) < _STEM + 1:
            return []
        shorter = [folded[:end] for end in range(max(_STEM, len(folded) - 3), len(folded))]
        marks = ",".join("?" * len(shorter))
        sql = (
            f"SELECT {_FIELDS} FROM names n JOIN entities e ON e.row = n.entity WHERE n.folded IN ({marks}) "
            "OR (n.folded > ? AND n.folded < ? AND length(n.folded) <= ?) "
            f"ORDER BY {self._prominence}{_SCATTERED} LIMIT 8"
        )
        rows = self._kb.select(sql, (*shorter, folded, folded + _LAST, len(folded) + 2))
        return [_match(values, "fuzzy", 0.9 * fuzz.ratio(folded, values[2]) / 100) for values in rows]

    def _sharing_words(self, folded: str, words: list[str]) -> list[NameMatch]:
        """Return names that share some telling words, the most similar first."""
        if len(words) == 1:
            return []
        telling = [word for word in words if len(word) > 1 and word not in FUNCTION_WORDS] or words
        sql = (
            f"SELECT {_FIELDS} FROM (SELECT rowid FROM name_words WHERE name_words MATCH ? ORDER BY rank "
            f"LIMIT {_SHARING_LIMIT}) w {_JOINED}"
        )
        rows = self._kb.select(sql, (" OR ".join(map(_quoted, telling)),))
        scored = [_match(values, "some words", 0.9 * fuzz.token_sort_ratio(folded, values[2]) / 100) for values in rows]
        return sorted(scored, key=lambda match: -match.similarity)

    def _by_words(self, query: str, order: str, limit: int) -> list[tuple[Any, ...]]:
        sql = f"SELECT {_FIELDS} FROM name_words w {_JOINED} WHERE name_words MATCH ? ORDER BY {order} LIMIT {limit}"
        return self._kb.select(sql, (query,))

    def _misspelt(self, folded: str, words: list[str]) -> list[NameMatch]:
        """Return names that hold every word after words in no name have been corrected."""
        corrections = [self._corrections(word) for word in words]
        if not all(corrections):
            return []
        query = " AND ".join("(" + " OR ".join(map(_quoted, choice)) + ")" for choice in corrections)
        rows = self._by_words(query, f"{self._prominence}{_SCATTERED}", _PART_LIMIT)
        scored = [_match(values, "fuzzy", 0.9 * fuzz.partial_ratio(folded, values[2]) / 100) for values in rows]
        return sorted(scored, key=lambda match: -match.similarity)

    def _corrections(self, word: str) -> list[str]:
        """Return the word itself if some name has it, else the words nearest to it in spelling."""
        if self._kb.select("SELECT 1 FROM words WHERE word = ?", (word,)):
            return [word]
        if len(word) < _STEM:
            return []
        start, end = word[:2], word[: -_END - 1 : -1]
        sql = (
            "SELECT word FROM words WHERE word > ? AND word < ? UNION "
            "SELECT word FROM words WHERE backwards > ? AND backwards < ?"
        )
        near = [found for (found,) in self._kb.select(sql, (start, start + _LAST, end, end + _LAST))]
        best = process.extract(
            word, near, scorer=OSA.normalized_similarity, score_cutoff=_TYPING_FLOOR, limit=_CORRECTIONS
        )
        return [found for found, _, _ in best]


def _keep(found: dict[int, NameMatch], matches: Iterable[NameMatch], limit: int) -> None:
    """Add matches in their order up to `limit`; an entity already found keeps its better match."""
    for match in matches:
        if match.row in found:
            continue
        if len(found) >= limit:
            return
        found[match.row] = match


def _match(values: tuple[Any, ...], kind: Kind, similarity: float) -> NameMatch:
    row, name, folded, is_label, popularity, n_triples = values
    return NameMatch(row, name, folded, bool(is_label), popularity, n_triples, kind, similarity)


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'
