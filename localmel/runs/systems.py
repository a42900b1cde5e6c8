"""Ask five systems: the whole linker, fused vectors, a trained matcher, text vectors, and names.

In: questions, and everything the systems are made of.  Out: one Answer per question, in order.  `linker` and `names`
rank their own candidates, `matcher` the best it finds, `fused` and `zero-shot` the whole KB.  Every system is given the
span of the mention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.captions import Caption, LinkedMention
from localmel.encode.kb_vectors import KbVectors, load_vectors
from localmel.encode.registry import Encoders
from localmel.generate.statements import Statements
from localmel.kb.names import NameIndex
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.matchers.kgmel.fused import load_fused
from localmel.matchers.kgmel.mention_vectors import mention_arrays
from localmel.matchers.kind import SCAN
from localmel.records import Candidate, EntityId, Mention, Triple
from localmel.retrieve.profile_models import ProfileModels
from localmel.runs.evaluate import Answer, answer_to
from localmel.runs.questions import Question
from localmel.runs.whole_kb import rank_in_kb
from localmel.settings import Profile
from localmel.store import progress

BY_NAME = 64
"How many entities the system `names` ranks."
_MENTIONS_AT_ONCE = 1024
_SEARCHED_AT_ONCE = 256
_MATCHED = 64
"How many entities a matcher ranks for a mention, at least."


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Everything that the systems of one evaluation are made of."""

    kb: KnowledgeBase
    profile: Profile
    encoders: Encoders
    k: int
    pictures: bool
    "Whether pictures are used."
    models: Mapping[str, ProfileModels]
    "The matcher of each system that has one (linker, fused, matcher), with its encoders."
    scorer: Path | None
    "Folder of the evidence scorer."

    @cached_property
    def indexed(self) -> tuple[PackedKb, KbVectors]:
        """The arrays of the KB and its text vectors.  Raises BadInput if the KB is not indexed."""
        return load_vectors(self.kb, self.encoders.text.space)

    def shown(self, mention: Mention) -> Mention:
        """Return the mention as the systems see it, without its picture if pictures are not used."""
        return mention if self.pictures else replace(mention, image=None)

    def link(self, questions: Sequence[Question], linker: Linker) -> Iterator[LinkedMention]:
        """Link the mention of each question in its caption; a picture that cannot be read is left out."""
        captions = (
            Caption(text=one.mention.context, image=self.shown(one.mention).image, spans=(one.mention.span,))
            for one in questions
        )
        for linked in linker.link_many(captions, without_bad_pictures=True):
            yield linked.mentions[0]
            progress.advance(1)


def stated_of(bench: Bench, asked: Sequence[Question]) -> tuple[list[tuple[Triple, ...]], int]:
    """Return the triples that sentence and picture state of each mention, and the number of unreadable pictures."""
    statements = Statements(bench.profile.generate)
    descriptions = statements.describe_all([bench.shown(one.mention) for one in asked])
    return [one.triples for one in descriptions], statements.n_unreadable


def answers_of(
    system: str, bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]
) -> list[Answer]:
    """Ask one system every question.  stated: what sentence and picture state of each mention."""
    if system == "linker":
        return _by_linker(bench, asked)
    if system == "names":
        return _by_names(bench, asked, stated)
    if system == "matcher":
        return _by_matcher(bench, asked, stated)
    return _by_cosine(system, bench, asked, stated)


def cosine_sides(
    system: str, bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what `fused` and `zero-shot` compare: (m, width) of mentions and (n, width) of entities, unit rows."""
    packed, vectors = bench.indexed
    if system != "fused":
        text, _ = mention_arrays([one.mention for one in asked], [()] * len(asked), bench.encoders.text.encode)
        return text, vectors.entities
    models = bench.models["fused"]
    entities = load_fused(bench.kb, packed, models.matcher)
    search = models.search(bench.kb, SCAN)
    parts = [np.zeros((0, entities.shape[1]), np.float32)]
    progress.begin("fusing mentions", len(asked))
    for start in range(0, len(asked), _MENTIONS_AT_ONCE):
        here = slice(start, start + _MENTIONS_AT_ONCE)
        mentions = [one.mention for one in asked[here]]
        parts.append(search.shown(mentions, stated[here], bench.encoders.text.encode))
        progress.advance(len(mentions))
    return np.concatenate(parts), entities


def _by_linker(bench: Bench, asked: Sequence[Question]) -> list[Answer]:
    """Link every mention; the candidates are in the order of their probabilities, a model's choice first."""
    settings = bench.profile.retrieve
    every = max(1, settings.by_name + settings.by_vector)
    linker = Linker(bench.kb, bench.profile, top_k=every, models=bench.models["linker"], scorer=bench.scorer)
    progress.begin("linking", len(asked))
    return [
        answer_to(
            question,
            linked.link.ranking.candidates,
            bench.k,
            predicted=linked.link.entity_id,
            probability=linked.link.probability,
            nil=linked.nil_probability,
            has_triples=linked.n_stated > 0,
        )
        for question, linked in zip(asked, bench.link(asked, linker), strict=True)
    ]


def _by_names(bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]) -> list[Answer]:
    """Answer in the order of the name index, and NIL if no name fits.

    The score of the n-th is 1 / n, so that no two are equal."""
    names = NameIndex(bench.kb, use_counts=bench.profile.retrieve.use_counts)
    progress.begin("looking names up", len(asked))
    found = []
    for question in asked:
        found.append(names.find(question.mention.surface, limit=BY_NAME))
        progress.advance(1)
    ids = _ids(bench.kb, {match.row for matches in found for match in matches})
    answers = []
    for question, matches, triples in zip(asked, found, stated, strict=True):
        ranked = [Candidate(entity_id=ids[match.row], score=1.0 / nth) for nth, match in enumerate(matches, 1)]
        sure = matches[0].similarity if matches else 0.0
        answers.append(_answer(question, ranked, bench.k, triples, sure=sure))
    return answers


def _answer(
    question: Question, ranked: Sequence[Candidate], k: int, triples: Sequence[Triple], *, sure: float
) -> Answer:
    """Answer with the first candidate if there is one; whatever speaks against it counts for NIL."""
    return answer_to(
        question,
        ranked,
        k,
        predicted=ranked[0].entity_id if ranked else None,
        probability=sure if ranked else 1.0,
        nil=1.0 - sure,
        has_triples=bool(triples),
    )


def _by_cosine(
    system: str, bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]
) -> list[Answer]:
    mentions, entities = cosine_sides(system, bench, asked, stated)
    packed, _ = bench.indexed
    rows = np.array([-1 if one.gold_row is None else one.gold_row for one in asked], np.int64)
    gold = np.full(len(asked), -1, np.int64)
    gold[rows >= 0] = packed.positions(rows[rows >= 0])
    progress.begin(f"ranking by {system} vectors", len(asked))
    ranked = rank_in_kb(mentions, entities, gold, [one.mention.id for one in asked], k=bench.k)
    progress.advance(len(asked))
    best = np.asarray(packed.rows)[ranked.best]
    ids = _ids(bench.kb, set(best.ravel().tolist()))
    answers = []
    for line, (question, triples) in enumerate(zip(asked, stated, strict=True)):
        candidates = [
            Candidate(entity_id=ids[int(row)], score=float(score))
            for row, score in zip(best[line], ranked.scores[line], strict=True)
        ]
        sure = min(max(candidates[0].score, 0.0), 1.0) if candidates else 0.0
        answer = _answer(question, candidates, bench.k, triples, sure=sure)
        # the gold is ranked in the whole KB, not only among the candidates
        answers.append(replace(answer, rank=float(ranked.rank[line]), place=float(ranked.place[line])))
    return answers


def _by_matcher(bench: Bench, asked: Sequence[Question], stated: Sequence[Sequence[Triple]]) -> list[Answer]:
    """Search the whole KB by a matcher's own scores in two steps; a gold that is not found has no rank."""
    packed, _ = bench.indexed
    models = bench.models["matcher"]
    search = models.search(bench.kb, bench.profile.retrieve.index)
    rows, most = np.asarray(packed.rows), max(bench.k, _MATCHED)
    answers = []
    progress.begin(f"searching by {models.matcher.kind}", len(asked))
    for start in range(0, len(asked), _SEARCHED_AT_ONCE):
        here = slice(start, start + _SEARCHED_AT_ONCE)
        some = asked[here]
        shown = search.shown([question.mention for question in some], stated[here], bench.encoders.text.encode)
        found = search.best(shown, min(most, len(rows)))
        ids = _ids(bench.kb, set(rows[found.entities[found.entities >= 0]].tolist()))
        for question, positions, scores, triples in zip(some, found.entities, found.scores, stated[here], strict=True):
            ranked = [
                Candidate(entity_id=ids[int(rows[position])], score=float(score))
                for position, score in zip(positions, scores, strict=True)
                if position >= 0
            ]
            sure = float(search.as_cosines(scores[:1])[0]) if ranked else 0.0
            answers.append(_answer(question, ranked, bench.k, triples, sure=sure))
        progress.advance(len(some))
    return answers


def _ids(kb: KnowledgeBase, rows: set[int]) -> dict[int, EntityId]:
    return dict(kb.select_in("SELECT row, id FROM entities WHERE row IN ({})", sorted(rows)))
