"""Rank a hundred candidates by fuzzy name with every system: what `localmel eval --protocol fuzzy100` adds.

In: the bench of an evaluation and its questions.  Out: recall@100 and T@k of every system, as JSON and as Markdown.
Every system orders the same candidates: the linker with all its evidence, a matcher by its scores, the others by cosine
or by name.  Mentions that are NIL, or whose gold the KB lacks, are not counted; the report says how many there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.evaluate.fuzzy import CANDIDATES, FuzzyCandidates, FuzzyCounts, FuzzyOutcome, NamePool, fuzzy_counts
from localmel.kb.names import NameIndex, NameMatch
from localmel.kb.words import fold, fold_mention
from localmel.linker import Linker
from localmel.records import Mention, Triple
from localmel.report.evaluation import fuzzy_json, fuzzy_markdown
from localmel.retrieve.candidates import CandidateFinder, Candidates
from localmel.runs.questions import Question
from localmel.runs.systems import Bench, cosine_sides
from localmel.store import progress

BY_SCORE = "fuzzy score"
"The baseline: the order in which the candidates are found."
_SCORED_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class FuzzyQuestions:
    """The questions that count, with their candidates; entities are given by their position in row order."""

    asked: tuple[Question, ...]
    candidates: tuple[FuzzyCandidates, ...]
    gold: tuple[int, ...]
    "Position of each gold."
    rows: tuple[int, ...]
    "Position -> row of the KB."
    left_out: int
    "How many questions are NIL or have a gold that the KB lacks."


def fuzzy_questions(bench: Bench, asked: Sequence[Question]) -> FuzzyQuestions:
    """Find the candidates of every question whose gold is in the KB; the gold itself does not influence them."""
    rows, labels = [], []
    for row, label in bench.kb.stream("SELECT row, label FROM entities ORDER BY row"):
        rows.append(int(row))
        labels.append(fold(label))
    position = {row: place for place, row in enumerate(rows)}
    kept = tuple(one for one in asked if one.gold_row is not None)
    progress.begin("finding candidates by fuzzy name", len(kept))
    surfaces = [fold_mention(one.mention.surface) for one in kept]
    return FuzzyQuestions(
        asked=kept,
        candidates=tuple(NamePool(labels).candidates(surfaces)),
        gold=tuple(position[one.gold_row] for one in kept if one.gold_row is not None),
        rows=tuple(rows),
        left_out=len(asked) - len(kept),
    )


def fuzzy_part(
    systems: Sequence[str], bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]
) -> tuple[dict[str, Any], str]:
    """Return the section of the report, as JSON and as Markdown.  stated: the triples of each mention asked about."""
    questions = fuzzy_questions(bench, asked)
    of_mention = {one.mention.id: triples for one, triples in zip(asked, stated, strict=True)}
    kept = [of_mention[one.mention.id] for one in questions.asked]
    counts = {BY_SCORE: _counted(questions, [one.scores.tolist() for one in questions.candidates])}
    counts |= {system: _counted(questions, _scores(system, bench, questions, kept)) for system in systems}
    left_out = questions.left_out
    return fuzzy_json(counts, left_out=left_out), fuzzy_markdown(counts, left_out=left_out)


def _scores(
    system: str, bench: Bench, questions: FuzzyQuestions, stated: Sequence[Sequence[Triple]]
) -> list[list[float]]:
    """Score every candidate of every question, in the order of the candidates."""
    if not questions.asked:
        return []
    if system == "linker":
        return list(_by_linker(bench, questions))
    if system == "matcher":
        return list(_by_matcher(bench, questions, stated))
    if system == "names":
        return list(_by_names(bench, questions))
    return _by_cosine(questions, *cosine_sides(system, bench, questions.asked, stated))


def _counted(questions: FuzzyQuestions, scores: Sequence[Sequence[float]]) -> FuzzyCounts:
    outcomes = []
    for one, found, gold, given in zip(questions.asked, questions.candidates, questions.gold, scores, strict=True):
        own = next((score for place, score in zip(found.places, given, strict=True) if place == gold), None)
        rank = math.inf
        if own is not None:
            equal = sum(score == own for score in given) - 1
            rank = 1.0 + sum(score > own for score in given) + equal / 2
        outcomes.append(FuzzyOutcome(mention_id=one.mention.id, cluster=one.cluster, rank=rank))
    return fuzzy_counts(outcomes)


def _by_cosine(questions: FuzzyQuestions, mentions: NDArray[Any], entities: NDArray[Any]) -> list[list[float]]:
    """Score by cosine.  mentions: (m, width), entities: (n, width) in row order."""
    scores = []
    for found, vector in zip(questions.candidates, mentions, strict=True):
        products = np.asarray(entities[found.places], np.float64) * vector.astype(np.float64)
        scores.append([float(score) for score in products.sum(axis=1)])
    return scores


def _by_matcher(bench: Bench, questions: FuzzyQuestions, stated: Sequence[Sequence[Triple]]) -> Iterator[list[float]]:
    """Yield a matcher's own scores."""
    models = bench.models["matcher"]
    search = models.search(bench.kb, bench.profile.retrieve.index)
    progress.begin(f"scoring the candidates by {models.matcher.kind}", len(questions.asked))
    for start in range(0, len(questions.asked), _SCORED_AT_ONCE):
        some = slice(start, start + _SCORED_AT_ONCE)
        shown = search.shown([one.mention for one in questions.asked[some]], stated[some], bench.encoders.text.encode)
        for scores in search.scores_of(shown, [one.places for one in questions.candidates[some]]):
            progress.advance(1)
            yield scores.tolist()


def _by_names(bench: Bench, questions: FuzzyQuestions) -> Iterator[list[float]]:
    """Score by the order of the KB's name index; entities it does not find share the last place."""
    names = NameIndex(bench.kb, use_counts=bench.profile.retrieve.use_counts)
    for one, found in zip(questions.asked, questions.candidates, strict=True):
        matches = names.find(one.mention.surface, limit=CANDIDATES)
        score = {match.row: 1.0 / nth for nth, match in enumerate(matches, 1)}
        yield [score.get(questions.rows[place], 0.0) for place in found.places.tolist()]


# --- the linker over given candidates ------------------------------------------------------------------------------


def _by_linker(bench: Bench, questions: FuzzyQuestions) -> Iterator[list[float]]:
    """Score by the probability of each candidate, among these and NIL."""
    places = {
        one.mention.surface: found.places for one, found in zip(questions.asked, questions.candidates, strict=True)
    }
    linker = Linker(
        bench.kb, bench.profile, top_k=CANDIDATES, models=bench.models["linker"], scorer=bench.scorer,
        among=lambda finder: _GivenCandidates(finder, bench, places),
    )  # fmt: skip
    progress.begin("linking to the candidates by fuzzy name", len(questions.asked))
    ids = dict(bench.kb.stream("SELECT row, id FROM entities"))
    for found, linked in zip(questions.candidates, bench.link(questions.asked, linker), strict=True):
        score = {one.entity_id: one.score for one in linked.link.ranking.candidates}
        yield [score[ids[questions.rows[place]]] for place in found.places.tolist()]


class _GivenCandidates:
    """A finder of given candidates; the scorer still learns how the name index found them."""

    def __init__(self, finder: CandidateFinder, bench: Bench, places: Mapping[str, NDArray[Any]]) -> None:
        """finder: scores them; places: the candidates of each surface, by position."""
        self._finder, self._places, self._packed = finder, places, bench.indexed[0]
        self._most = bench.profile.retrieve.by_name
        self._names = NameIndex(bench.kb, use_counts=bench.profile.retrieve.use_counts)

    def shown(
        self,
        mentions: Sequence[Mention],
        stated: Sequence[Sequence[Triple]],
        encode: Callable[[Sequence[str]], NDArray[Any]],
    ) -> Any:
        """Return what the matcher sees of mentions."""
        return self._finder.shown(mentions, stated, encode)

    def find(self, surfaces: Sequence[str], shown: Any) -> list[Candidates]:
        """Return the given candidates of each surface."""
        return self._finder.weighed([self._named(surface) for surface in surfaces], shown)

    def _named(self, surface: str) -> tuple[NDArray[Any], tuple[NameMatch | None, ...]]:
        places = self._places[surface]
        by_row = {match.row: match for match in self._names.find(surface, limit=self._most)}
        matches = [by_row.get(int(row)) for row in self._packed.rows[places]]
        order = sorted(
            range(len(places)), key=lambda one: matches[one] is None
        )  # entities that have the name come first
        return np.asarray(places[order], np.int64), tuple(matches[one] for one in order)
