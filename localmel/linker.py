"""The pipeline on one page, in memory: a captioned picture in, links with their evidence out.

    text + picture -> mentions -> triples -> vectors -> candidates -> evidence -> link or NIL

Every stage is a function of the layer that bears its name; this page only hands results on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from localmel.captions import Caption, LinkedCaption, LinkedMention
from localmel.encode.kb_vectors import load_vectors
from localmel.encode.mention_texts import mention_text
from localmel.encode.minilm import MiniLM
from localmel.encode.space import TextEncoder
from localmel.engines.pictures import open_picture
from localmel.errors import BadPicture, UsageError
from localmel.generate.embedded import described, stated_triples
from localmel.generate.visible_text import VisibleLine, visible_lines
from localmel.kb.folding import fold
from localmel.kb.mentions import check_text, detected_mentions, listed_mentions, marked_mentions
from localmel.kb.store import KnowledgeBase
from localmel.records import Candidate, Evidence, Link, Mention, Ranking, Triple
from localmel.rerank.evidence import evidence_for, induced_triples
from localmel.rerank.features import Support, context_of, features_of, support_of
from localmel.rerank.scorer import EvidenceScorer
from localmel.retrieve.candidates import CandidateFinder, Candidates
from localmel.retrieve.fused import Network, load_fused, load_network
from localmel.retrieve.indexing import ready_kb
from localmel.retrieve.mention_vectors import mention_arrays, mention_texts
from localmel.settings import Profile, go_offline, load_profile
from localmel.shipped import weights_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

go_offline()

_CAPTIONS_AT_ONCE = 64


class Linker:
    """Links names to one KB with one profile.  Models are loaded when they are first needed, and kept."""

    def __init__(
        self,
        kb: KnowledgeBase | Path | str = "starter",
        profile: Profile | str = "embedded",
        *,
        top_k: int = 16,
        encoder: TextEncoder | None = None,
        network: Network | None = None,
        scorer: Path | None = None,
    ) -> None:
        """`network` and `scorer` (a folder) stand in for those that the profile names."""
        if top_k < 1:
            raise UsageError(f"top-k is {top_k}; at least one candidate is needed")
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self._top_k = top_k
        self._encoder = encoder or MiniLM()
        if not isinstance(kb, KnowledgeBase | Path | str):
            raise UsageError(f"kb is {type(kb).__name__}; it is a name, a path or a KnowledgeBase")
        if isinstance(kb, Path):
            kb = KnowledgeBase(kb)
        self._network = network or load_network(weights_folder(self.profile.retrieve.network))
        self.kb = ready_kb(kb, self._encoder, self._network) if isinstance(kb, str) else kb
        self.kb.hold()  # one state for all answers: rows, arrays and vectors belong together
        self._packed, self._vectors = load_vectors(self.kb, self._encoder.space)
        self._network.check_space(self._encoder.space)
        fused = load_fused(self.kb, self._packed, self._network)
        self._finder = CandidateFinder(self.kb, self._packed, fused, self.profile.retrieve)
        self._scorer = EvidenceScorer(scorer or weights_folder(self.profile.rerank.weights))

    def link(self, image: Path | str | None, text: str, mentions: Sequence[str] | None = None) -> LinkedCaption:
        """Link the names in one captioned picture.

        Names are those in `mentions` and in [[ ]] in the text; where there are none, those that the KB finds.
        Raises BadPicture, BadMention or BadInput."""
        if isinstance(mentions, str):
            raise UsageError(f"mentions is one text, {mentions!r}; it is to be a list", hint=f"mentions=[{mentions!r}]")
        if not isinstance(text, str):
            raise UsageError(f"the text is {type(text).__name__}, not a string")
        check_text(text)
        plain, spans = marked_mentions(text)
        if mentions:
            spans = listed_mentions(plain, mentions, marked=spans)
        check_text(plain)
        caption = Caption(text=plain, image=Path(image) if image is not None else None, spans=tuple(spans) or None)
        return next(iter(self.link_many([caption])))

    def link_many(self, captions: Iterable[Caption], *, without_bad_pictures: bool = False) -> Iterator[LinkedCaption]:
        """Link many captions in order, some at a time, so that vectors are made and compared in batches.

        A picture that cannot be read raises BadPicture; with `without_bad_pictures` its caption is linked without
        it, and `notes` says so."""
        remaining = iter(captions)
        while batch := list(islice(remaining, _CAPTIONS_AT_ONCE)):
            yield from self._link_batch(batch, without_bad_pictures)

    def weigh_many(self, captions: Iterable[tuple[Caption, Sequence[VisibleLine]]]) -> Iterator[Weighed]:
        """Everything known about each mention before a decision; what a scorer is fitted on.

        Each caption comes with the lines that are read in its picture; the picture itself is not opened."""
        remaining = iter(captions)
        while batch := list(islice(remaining, _CAPTIONS_AT_ONCE)):
            yield from self._weigh([caption for caption, _ in batch], [lines for _, lines in batch], {})

    def _link_batch(self, captions: Sequence[Caption], without_bad_pictures: bool) -> list[LinkedCaption]:
        seconds: dict[str, float] = {}
        with _timed(seconds, "read"):
            seen = [self._read(caption.image, without_bad_pictures) for caption in captions]
        answers: list[list[LinkedMention]] = [[] for _ in captions]
        for weighed in self._weigh(captions, [lines for lines, _ in seen], seconds):
            with _timed(seconds, "rerank"):
                answers[weighed.caption].append(self._decide(weighed))
        share = {stage: spent / len(captions) for stage, spent in seconds.items()}
        return [
            LinkedCaption(
                profile=self.profile.name,
                kb=self.kb.name,
                caption=caption,
                mentions=tuple(answer),
                notes=notes,
                seconds=share,
            )
            for caption, answer, (_, notes) in zip(captions, answers, seen, strict=True)
        ]

    def _weigh(
        self, captions: Sequence[Caption], lines: Sequence[Sequence[VisibleLine]], seconds: dict[str, float]
    ) -> Iterator[Weighed]:
        with _timed(seconds, "generate"):
            asked = [
                _Asked(caption=number, mention=mention, stated=stated_triples(mention, lines[number]))
                for number, caption in enumerate(captions)
                for mention in self._mentions(number, caption)
            ]
        if not asked:
            return
        with _timed(seconds, "encode"):
            contexts, fused = self._vectors_of(asked)
        with _timed(seconds, "retrieve"):
            found = self._finder.find([question.mention.surface for question in asked], fused)
        for question, candidates, context in zip(asked, found, contexts, strict=True):
            with _timed(seconds, "rerank"):
                weighed = self._weigh_one(question, candidates, context)
            yield weighed

    def _read(self, image: Path | None, without_bad: bool) -> tuple[tuple[VisibleLine, ...], tuple[str, ...]]:
        """The lines in a picture, and notes on how it was read."""
        if image is None:
            return (), ()
        try:
            picture = open_picture(Path(image))
        except BadPicture as error:
            if not without_bad:
                raise
            return (), (f"linked without its picture: {error.fact}",)
        return visible_lines(picture, self.profile.generate), picture.notes

    def _mentions(self, number: int, caption: Caption) -> Iterator[Mention]:
        spans = caption.spans if caption.spans is not None else detected_mentions(caption.text, self.kb)
        for place, span in enumerate(spans):
            surface = caption.text[span.start : span.end]
            yield Mention(id=f"{number}-{place}", surface=surface, context=caption.text, span=span, image=caption.image)

    def _vectors_of(self, asked: Sequence[_Asked]) -> tuple[list[NDArray[Any]], NDArray[Any]]:
        """For each mention (1 + stated, width): its context, then its stated triples; and (m, width) fused vectors.

        Each different text is encoded once."""
        mentions = [question.mention for question in asked]
        stated = [question.stated for question in asked]
        texts = dict.fromkeys([*mention_texts(mentions, stated), *(text for one in asked for text in one.said)])
        place = {text: number for number, text in enumerate(texts)}
        vectors = self._encoder.encode(list(texts))

        def encoded(wanted: Sequence[str]) -> NDArray[Any]:
            known: NDArray[Any] = vectors[[place[text] for text in wanted]]
            return known

        text, triples = mention_arrays(mentions, stated, encoded)
        return [encoded(question.said) for question in asked], self._network.encoder.fuse(text=text, triples=triples)

    def _weigh_one(self, question: _Asked, candidates: Candidates, vectors: NDArray[Any]) -> Weighed:
        words = [word for text in question.said for word in fold(text).split()]
        context = context_of(question.mention.surface, words, vectors, self._packed)
        positions = candidates.positions
        support = support_of(context, positions, self._packed, self._vectors)
        features = features_of(context, candidates, support, self._packed, self._vectors)
        return Weighed(
            caption=question.caption,
            mention=question.mention,
            stated=question.stated,
            rows=self._packed.rows[positions],
            by_name=sum(match is not None for match in candidates.matches),
            support=support,
            features=features,
        )

    def _decide(self, weighed: Weighed) -> LinkedMention:
        mention, settings = weighed.mention, self.profile.rerank
        judgement = self._scorer.judge(weighed.features)
        order = np.argsort(-judgement.probabilities, kind="stable")[: self._top_k]
        entities = tuple(self.kb.entities_at([int(row) for row in weighed.rows[order]]))
        scores = [float(judgement.probabilities[place]) for place in order]
        chosen = entities[0] if entities and (judgement.nil < settings.nil_from or judgement.nil < scores[0]) else None
        link = Link(
            mention_id=mention.id,
            entity_id=chosen.id if chosen else None,
            probability=scores[0] if chosen else judgement.nil,
            decided_by="evidence scorer" if entities else "no candidate",
            evidence=self._evidence(weighed, int(order[0]), chosen.label) if chosen else (),
            ranking=Ranking(
                mention_id=mention.id,
                candidates=tuple(
                    Candidate(entity_id=entity.id, score=score) for entity, score in zip(entities, scores, strict=True)
                ),
            ),
        )
        description = described(mention, weighed.stated, self._induced(weighed))
        return LinkedMention(mention=mention, link=link, entity=chosen, candidates=entities, description=description)

    def _evidence(self, weighed: Weighed, candidate: int, label: str) -> tuple[Evidence, ...]:
        return evidence_for(
            candidate,
            label,
            weighed.mention.surface,
            weighed.mention.context,
            weighed.stated,
            weighed.support,
            self._packed,
            self.kb,
            most=self.profile.rerank.most_evidence,
            least_similarity=self.profile.generate.least_similarity,
        )

    def _induced(self, weighed: Weighed) -> tuple[Triple, ...]:
        settings = self.profile.generate
        return induced_triples(
            weighed.mention.surface,
            weighed.by_name,
            weighed.support,
            self._packed,
            self.kb,
            most=settings.most_induced,
            least_similarity=settings.least_similarity,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighed:
    """One mention with its candidates and what speaks for each."""

    caption: int
    "Which caption of the batch it stands in."
    mention: Mention
    stated: tuple[Triple, ...]
    rows: NDArray[Any]  # (n,) the candidates' rows in the KB
    by_name: int
    "How many of them, the first ones, bear the name."
    support: Support
    features: NDArray[Any]  # (n, len(FEATURES))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A mention of a batch with what is stated about it."""

    caption: int
    mention: Mention
    stated: tuple[Triple, ...]

    @property
    def said(self) -> list[str]:
        """The texts that are compared with the KB: the mention in its context, then the stated triples."""
        return [mention_text(self.mention), *(triple.tail for triple in self.stated)]


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
