"""Five ways to answer: the whole linker, fused vectors alone, a matcher alone, text vectors alone, names alone.

In: questions and what a system needs.  Out: one Answer for each question, in order.  `linker` and `names` rank their
own candidates, `matcher` its best, `fused` and `zero-shot` the whole KB.  Each is asked with the span given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.registry import Encoders
from localmel.engines.pictures import open_picture
from localmel.errors import BadPicture
from localmel.evaluate.protocol import rank_in
from localmel.generate.embedded import stated_triples
from localmel.generate.visible_text import VisibleLine, visible_lines
from localmel.kb.names import NameIndex
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.fused import load_fused
from localmel.matchers.kgmel.mention_vectors import mention_arrays
from localmel.matchers.kind import SCAN
from localmel.records import Candidate, EntityId, MentionId, Ranking, Triple
from localmel.retrieve.profile_models import ProfileModels
from localmel.runs.questions import Question
from localmel.runs.whole_kb import rank_in_kb
from localmel.settings import Profile
from localmel.store import progress

if TYPE_CHECKING:
    from localmel.encode.kb_vectors import KbVectors
    from localmel.kb.packed import PackedKb

BY_NAME = 64
"How many entities the system `names` ranks."
CALIBRATED = ("linker",)
"Systems whose probability is meant as one."
_MENTIONS_AT_ONCE = 1024
_SEARCHED_AT_ONCE = 256
_MATCHED = 64
"How many entities a matcher ranks for a mention, at least."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one system says to one question, and where it has put the gold."""

    mention_id: MentionId
    rank: float
    "Of the gold; equal scores share the mean of their places.  Infinity where it was not ranked."
    place: float
    "Of the gold, where equal scores keep the order of the system: the published way of counting."
    predicted: EntityId | None
    probability: float
    nil_probability: float
    candidates: tuple[Candidate, ...]
    "The K best."


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """All that the systems of one evaluation are made of; None where none of them needs it."""

    kb: KnowledgeBase
    profile: Profile
    encoders: Encoders
    k: int
    pictures: bool
    "Whether pictures are looked at."
    packed: PackedKb | None
    vectors: KbVectors | None
    models: Mapping[str, ProfileModels]
    "The matcher of each system that finds by one (linker, fused, matcher), with its encoders."
    scorer: Path | None
    "Folder of the evidence scorer."


def stated_of(bench: Bench, asked: Sequence[Question]) -> tuple[list[tuple[Triple, ...]], int]:
    """What is stated about each mention, and how many pictures could not be read.  Each picture is read once."""
    known: dict[Path | None, tuple[VisibleLine, ...]] = {None: ()}
    unreadable = 0
    progress.begin("reading mentions", len(asked))
    stated = []
    for question in asked:
        image = question.mention.image if bench.pictures else None
        if image not in known:
            try:
                known[image] = visible_lines(open_picture(image), bench.profile.generate) if image else ()
            except BadPicture:
                known[image], unreadable = (), unreadable + 1
        stated.append(stated_triples(question.mention, known[image]))
        progress.advance(1)
    return stated, unreadable


def answers_of(
    system: str, bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]
) -> list[Answer]:
    """One answer for each question."""
    if system == "linker":
        return _by_linker(bench, asked)
    if system == "names":
        return _by_names(bench, asked)
    if system == "matcher":
        return _by_matcher(bench, asked, stated)
    return _by_cosine(bench, system, asked, *cosine_sides(system, bench, asked, stated))


def cosine_sides(
    system: str, bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """What `fused` and `zero-shot` compare: (m, width) of the mentions and (n, width) of the entities, unit rows."""
    assert bench.vectors is not None
    if system == "fused":
        return _fused(bench, asked, stated)
    return _texts(bench, asked), bench.vectors.entities


def _by_linker(bench: Bench, asked: Sequence[Question]) -> list[Answer]:
    """The candidates in the order of their probabilities; what these leave is the probability of NIL."""
    from localmel.captions import Caption
    from localmel.linker import Linker

    settings = bench.profile.retrieve
    every = max(1, settings.by_name + settings.by_vector)
    linker = Linker(bench.kb, bench.profile, top_k=every, models=bench.models["linker"], scorer=bench.scorer)
    captions = (
        Caption(
            text=one.mention.context,
            image=one.mention.image if bench.pictures else None,
            spans=(one.mention.span,),
        )
        for one in asked
    )
    progress.begin("linking", len(asked))
    answers = []
    for question, linked in zip(asked, linker.link_many(captions, without_bad_pictures=True), strict=True):
        link = linked.mentions[0].link
        certain = math.fsum(one.score for one in link.ranking.candidates)
        answers.append(
            _answer(
                question,
                link.ranking.candidates,
                bench.k,
                predicted=link.entity_id,
                probability=link.probability,
                nil=min(max(1.0 - certain, 0.0), 1.0),
            )
        )
        progress.advance(1)
    return answers


def _by_names(bench: Bench, asked: Sequence[Question]) -> list[Answer]:
    """The order of the name index; NIL where no name fits.  The score of the n-th is 1 / n, so none are equal."""
    names = NameIndex(bench.kb, use_counts=bench.profile.retrieve.use_counts)
    progress.begin("looking names up", len(asked))
    found = []
    for question in asked:
        found.append(names.find(question.mention.surface, limit=BY_NAME))
        progress.advance(1)
    ids = _ids(bench.kb, {match.row for matches in found for match in matches})
    answers = []
    for question, matches in zip(asked, found, strict=True):
        ranked = [Candidate(entity_id=ids[match.row], score=1.0 / nth) for nth, match in enumerate(matches, 1)]
        sure = matches[0].similarity if matches else 0.0
        answers.append(
            _answer(
                question,
                ranked,
                bench.k,
                predicted=ranked[0].entity_id if ranked else None,
                probability=sure if ranked else 1.0,
                nil=1.0 - sure,
            )
        )
    return answers


def _answer(
    question: Question,
    ranked: Sequence[Candidate],
    k: int,
    *,
    predicted: EntityId | None,
    probability: float,
    nil: float,
) -> Answer:
    """The gold's rank in all that was ranked."""
    ranking = Ranking(mention_id=question.mention.id, candidates=tuple(ranked))
    places = (place for place, one in enumerate(ranked, 1) if one.entity_id == question.gold)
    return Answer(
        mention_id=question.mention.id,
        rank=rank_in(ranking, question.gold),
        place=next(places, math.inf),
        predicted=predicted,
        probability=min(max(probability, 0.0), 1.0),
        nil_probability=nil,
        candidates=ranking.candidates[:k],
    )


def _by_cosine(
    bench: Bench, system: str, asked: Sequence[Question], mentions: NDArray[Any], entities: NDArray[Any]
) -> list[Answer]:
    assert bench.packed is not None
    rows = np.array([-1 if one.gold_row is None else one.gold_row for one in asked], np.int64)
    gold = np.full(len(asked), -1, np.int64)
    gold[rows >= 0] = bench.packed.positions(rows[rows >= 0])
    progress.begin(f"ranking by {system} vectors", len(asked))
    ranked = rank_in_kb(mentions, entities, gold, [one.mention.id for one in asked], k=bench.k)
    progress.advance(len(asked))
    best = np.asarray(bench.packed.rows)[ranked.best]
    ids = _ids(bench.kb, set(best.ravel().tolist()))
    answers = []
    for line, question in enumerate(asked):
        candidates = tuple(
            Candidate(entity_id=ids[int(row)], score=float(score))
            for row, score in zip(best[line], ranked.scores[line], strict=True)
        )
        sure = min(max(candidates[0].score, 0.0), 1.0) if candidates else 0.0
        answers.append(
            Answer(
                mention_id=question.mention.id,
                rank=float(ranked.rank[line]),
                place=float(ranked.place[line]),
                predicted=candidates[0].entity_id if candidates else None,
                probability=sure,
                nil_probability=1.0 - sure,
                candidates=candidates,
            )
        )
    return answers


def _by_matcher(bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]) -> list[Answer]:
    """The best of the whole KB by a matcher's own scores, found in two steps; behind them a gold has no rank."""
    assert bench.packed is not None
    models = bench.models["matcher"]
    search = models.search(bench.kb, bench.profile.retrieve.index)
    rows, most = np.asarray(bench.packed.rows), max(bench.k, _MATCHED)
    answers = []
    progress.begin(f"searching by {models.matcher.kind}", len(asked))
    for start in range(0, len(asked), _SEARCHED_AT_ONCE):
        here = slice(start, start + _SEARCHED_AT_ONCE)
        some = asked[here]
        shown = search.shown([question.mention for question in some], stated[here], bench.encoders.text.encode)
        found = search.best(shown, min(most, len(rows)))
        ids = _ids(bench.kb, set(rows[found.entities[found.entities >= 0]].tolist()))
        for question, positions, scores in zip(some, found.entities, found.scores, strict=True):
            ranked = [
                Candidate(entity_id=ids[int(rows[position])], score=float(score))
                for position, score in zip(positions, scores, strict=True)
                if position >= 0
            ]
            sure = float(search.as_cosines(scores[:1])[0]) if ranked else 0.0
            answer = _answer(
                question,
                ranked,
                bench.k,
                predicted=ranked[0].entity_id if ranked else None,
                probability=sure,
                nil=min(max(1.0 - sure, 0.0), 1.0),
            )
            answers.append(answer)
        progress.advance(len(some))
    return answers


def _fused(
    bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    assert bench.packed is not None
    models = bench.models["fused"]
    entities = load_fused(bench.kb, bench.packed, models.matcher)
    search = models.search(bench.kb, SCAN)
    parts = [np.zeros((0, entities.shape[1]), np.float32)]
    progress.begin("fusing mentions", len(asked))
    for start in range(0, len(asked), _MENTIONS_AT_ONCE):
        here = slice(start, start + _MENTIONS_AT_ONCE)
        mentions = [one.mention for one in asked[here]]
        parts.append(search.shown(mentions, stated[here], bench.encoders.text.encode))
        progress.advance(len(mentions))
    return np.concatenate(parts), entities


def _texts(bench: Bench, asked: Sequence[Question]) -> NDArray[Any]:
    text, _ = mention_arrays([one.mention for one in asked], [()] * len(asked), bench.encoders.text.encode)
    return text


def _ids(kb: KnowledgeBase, rows: set[int]) -> dict[int, EntityId]:
    ordered = sorted(rows)
    found: dict[int, EntityId] = {}
    for start in range(0, len(ordered), 500):
        batch = ordered[start : start + 500]
        found.update(kb.select(f"SELECT row, id FROM entities WHERE row IN ({','.join('?' * len(batch))})", batch))
    return found
