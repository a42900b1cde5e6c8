"""The pipeline on one page, in memory: a captioned picture in, links with their evidence out.

    text + picture -> mentions -> triples -> vectors -> candidates -> evidence -> link or NIL

Every stage is a function of the layer that bears its name; this page only hands results on.  Where a profile names a
model for the triples or for the choice, each is in memory for its own stage only, and many captions go through a stage
together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from localmel.captions import Caption, LinkedCaption, LinkedMention
from localmel.encode.kb_vectors import load_vectors
from localmel.encode.registry import Encoders
from localmel.encode.space import TextEncoder
from localmel.engines.pictures import open_picture
from localmel.engines.protocol import Engine
from localmel.errors import BadPicture, UsageError
from localmel.generate.embedded import described, stated_triples
from localmel.generate.question import asked_of
from localmel.generate.visible_text import VisibleLine, visible_lines
from localmel.generate.vlm import Generated, describe
from localmel.kb.mentions import check_text, detected_mentions, listed_mentions, marked_mentions
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.fused import Network
from localmel.matchers.kgmel.mention_vectors import mention_texts
from localmel.records import Description, Entity, Link, Mention, Unparsed
from localmel.rerank.calibration import check_fits, load_calibration
from localmel.rerank.choice import NO_CANDIDATE, link_of
from localmel.rerank.llm import choose
from localmel.rerank.questions import QuestionWriter, Retrieved
from localmel.rerank.scorer import EvidenceScorer
from localmel.rerank.weighing import Spoken, Weighed, Weigher, retrieved, with_model
from localmel.retrieve.candidates import Finder
from localmel.retrieve.finder import open_finder, shown_to
from localmel.retrieve.profile_models import ProfileModels, open_models, ready_for
from localmel.settings import EngineSettings, Profile, go_offline, load_profile
from localmel.settings.shipped import weights_folder

go_offline()

_CAPTIONS_AT_ONCE, _MENTIONS_AT_ONCE = 64, 128
_WITH_MODELS_AT_ONCE = 1024
"Each stage's model is loaded once for so many captions."
EVIDENCE_SCORER = "evidence scorer"


class Linker:
    """Links names to one KB with one profile.  Models are loaded when they are first needed.

    The embedded ones are kept; a model that a profile names lives for one stage."""

    def __init__(
        self,
        kb: KnowledgeBase | Path | str = "starter",
        profile: Profile | str = "embedded",
        *,
        top_k: int = 16,
        encoder: TextEncoder | None = None,
        network: Network | None = None,
        models: ProfileModels | None = None,
        scorer: Path | None = None,
        open_engine: Callable[[EngineSettings], Engine] | None = None,
        among: Callable[[Finder], Finder] | None = None,
    ) -> None:
        """What is given stands in for what the profile names: `models` for encoders and network together, each alone
        for itself, `scorer` (a folder) for the evidence scorer, `open_engine` for its language models.  `among` makes
        a finder of candidates of the profile's own."""
        if top_k < 1:
            raise UsageError(f"top-k is {top_k}; at least one candidate is needed")
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self._top_k = top_k
        self._open_engine = open_engine or _open_model
        if models is None and encoder and network:
            models = ProfileModels(encoders=Encoders(text=encoder, image=None), network=network)
        models = models or open_models(self.profile)
        if encoder:
            models = replace(models, encoders=replace(models.encoders, text=encoder))
        if network:
            models = replace(models, network=network, matcher=None, tokens=None)
        self._models, self._encoder = models, models.encoders.text
        if not isinstance(kb, KnowledgeBase | Path | str):
            raise UsageError(f"kb is {type(kb).__name__}; it is a name, a path or a KnowledgeBase")
        if isinstance(kb, Path):
            kb = KnowledgeBase(kb)
        self.kb = ready_for(kb, models, self.profile) if isinstance(kb, str) else kb
        self.kb.hold()  # one state for all answers: rows, arrays and vectors belong together
        self._packed, self._vectors = load_vectors(self.kb, self._encoder.space)
        self._shown_to = open_finder(self.kb, self._packed, models, self.profile.retrieve)
        self._finder = among(self._shown_to) if among else self._shown_to
        judge = EvidenceScorer(scorer or weights_folder(self.profile.rerank.weights))
        self._weigher = Weigher(self.kb, self._packed, self._vectors, judge, self.profile)

    def link(self, image: Path | str | None, text: str, mentions: Sequence[str] | None = None) -> LinkedCaption:
        """Link the names in one captioned picture.

        Names are those in `mentions` and in [[ ]] in the text; where there are none, those that the KB finds.
        Raises BadPicture, BadMention or BadInput; with a profile that names models, EngineStopped."""
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
        at_once = _WITH_MODELS_AT_ONCE if self._uses_models else _CAPTIONS_AT_ONCE
        while batch := list(islice(remaining, at_once)):
            yield from self._link_batch(batch, without_bad_pictures)

    def weigh_many(self, captions: Iterable[tuple[Caption, Sequence[VisibleLine]]]) -> Iterator[Weighed]:
        """Everything known about each mention before a decision; what a scorer is fitted on.

        Each caption comes with the lines that are read in its picture; the picture itself is not opened."""
        spoken = (
            _stated(mention, lines)
            for number, (caption, lines) in enumerate(captions)
            for mention in self._mentions(number, caption)
        )
        yield from self._weigh(spoken, {})

    def retrieve(self, spoken: Iterable[Spoken]) -> Iterator[Retrieved]:
        """The ranking of each mention by the scorer, in order, from what is said of it already."""
        for weighed in self._weigh(spoken, {}):
            yield retrieved(weighed.spoken, self._weigher.rank(weighed, self._top_k))

    @property
    def _uses_models(self) -> bool:
        return self.profile.generate.backend == "vlm" or self.profile.rerank.backend == "llm"

    def _link_batch(self, captions: Sequence[Caption], without_bad_pictures: bool) -> list[LinkedCaption]:
        seconds: dict[str, float] = {}
        notes: list[list[str]] = [[] for _ in captions]
        with _timed(seconds, "read"):
            pictures = [self._read(caption.image, without_bad_pictures, notes[n]) for n, caption in enumerate(captions)]
        with _timed(seconds, "generate"):
            spoken = [
                _stated(mention, lines)
                for number, (caption, (image, lines)) in enumerate(zip(captions, pictures, strict=True))
                for mention in self._mentions(number, replace(caption, image=image))
            ]
            if self.profile.generate.backend == "vlm" and spoken:
                spoken = self._asked_about(spoken, notes)
        answers: list[list[LinkedMention]] = [[] for _ in captions]
        decide = self._chosen if self.profile.rerank.backend == "llm" else self._scored
        for linked in decide(self._weigh(spoken, seconds), seconds):
            answers[_number_of(linked.mention)].append(linked)
        share = {stage: spent / len(captions) for stage, spent in seconds.items()}
        return [
            LinkedCaption(
                profile=self.profile.name,
                kb=self.kb.name,
                caption=caption,
                mentions=tuple(answer),
                notes=tuple(dict.fromkeys(said)),
                seconds=share,
            )
            for caption, answer, said in zip(captions, answers, notes, strict=True)
        ]

    def _read(
        self, image: Path | None, without_bad: bool, notes: list[str]
    ) -> tuple[Path | None, tuple[VisibleLine, ...]]:
        """The picture, where it can be used, and the lines in it."""
        if image is None:
            return None, ()
        try:
            picture = open_picture(Path(image))
        except BadPicture as error:
            if not without_bad:
                raise
            notes.append(f"linked without its picture: {error.fact}")
            return None, ()
        notes.extend(picture.notes)
        settings = self.profile.generate
        wanted = settings.backend == "embedded" or settings.read_writing
        return image, visible_lines(picture, settings) if wanted else ()

    def _mentions(self, number: int, caption: Caption) -> Iterator[Mention]:
        spans = caption.spans if caption.spans is not None else detected_mentions(caption.text, self.kb)
        for place, span in enumerate(spans):
            surface = caption.text[span.start : span.end]
            yield Mention(id=f"{number}-{place}", surface=surface, context=caption.text, span=span, image=caption.image)

    def _asked_about(self, spoken: Sequence[Spoken], notes: list[list[str]]) -> list[Spoken]:
        """What the vision-language model says of each mention, beside what is stated already."""
        settings = self.profile.generate
        with self._open_engine(settings.model) as engine:
            asked = asked_of(one.mention for one in spoken)
            generated = {one.mention.id: one for one in describe(asked, engine, settings)}
        both = []
        for one in spoken:
            answer = generated[one.mention.id]
            notes[_number_of(one.mention)] += _notes_on(answer)
            both.append(with_model(one, answer.result, keep_stated=settings.read_writing))
        return both

    def _weigh(self, spoken: Iterable[Spoken], seconds: dict[str, float]) -> Iterator[Weighed]:
        remaining = iter(spoken)
        while batch := list(islice(remaining, _MENTIONS_AT_ONCE)):
            with _timed(seconds, "encode"):
                contexts, shown = self._vectors_of(batch)
            with _timed(seconds, "retrieve"):
                found = self._finder.find([one.mention.surface for one in batch], shown)
            for one, candidates, context in zip(batch, found, contexts, strict=True):
                with _timed(seconds, "rerank"):
                    weighed = self._weigher.weigh(one, candidates, context)
                yield weighed

    def _vectors_of(self, spoken: Sequence[Spoken]) -> tuple[list[NDArray[Any]], Any]:
        """For each mention (1 + triples, width): its own text, then its triples; and what the finder looks at.

        Each different text is encoded once."""
        mentions = [one.mention for one in spoken]
        stated = [one.description.triples for one in spoken]
        texts = mention_texts(mentions, stated)
        place = {text: number for number, text in enumerate(texts)}
        vectors = self._encoder.encode(list(texts))

        def encoded(wanted: Sequence[str]) -> NDArray[Any]:
            known: NDArray[Any] = vectors[[place[text] for text in wanted]]
            return known

        shown = shown_to(self._shown_to, self._models, mentions, stated, encoded)
        return [encoded(one.said) for one in spoken], shown

    def _scored(self, weighed: Iterable[Weighed], seconds: dict[str, float]) -> Iterator[LinkedMention]:
        """Decided by the evidence scorer."""
        for one in weighed:
            with _timed(seconds, "rerank"):
                ranked = self._weigher.rank(one, self._top_k)
                best = ranked.ranking.candidates[0].score if ranked.entities else 0.0
                said = bool(ranked.entities) and (ranked.nil < self.profile.rerank.nil_from or ranked.nil < best)
                link = Link(
                    mention_id=one.spoken.mention.id,
                    entity_id=ranked.entities[0].id if said else None,
                    probability=best if said else ranked.nil,
                    decided_by=EVIDENCE_SCORER if ranked.entities else NO_CANDIDATE,
                    evidence=self._weigher.evidence(one, ranked) if said else (),
                    ranking=ranked.ranking,
                )
                linked = self._linked(one, link, ranked.entities)
            yield linked

    def _chosen(self, weighed: Iterable[Weighed], seconds: dict[str, float]) -> Iterator[LinkedMention]:
        """Decided by a language model among the scorer's best."""
        settings = self.profile.rerank
        writer = QuestionWriter(self.kb, self._packed, self._vectors, self._encoder, settings)
        calibration = load_calibration(Path(settings.calibration)) if settings.calibration else None
        kept = [(one, self._weigher.rank(one, max(self._top_k, settings.most_candidates))) for one in weighed]
        if not kept:
            return
        with _timed(seconds, "rerank"):
            questions = list(writer.questions(retrieved(one.spoken, ranked) for one, ranked in kept))
            with self._open_engine(settings.model) as engine:
                if calibration:
                    check_fits(calibration, engine.facts(), settings)
                choices = list(choose(questions, engine, settings, calibration=calibration))
        for (one, ranked), question, choice in zip(kept, questions, choices, strict=True):
            link = link_of(question, choice, most_evidence=settings.most_evidence)
            shown = replace(link.ranking, candidates=link.ranking.candidates[: self._top_k])
            yield self._linked(one, replace(link, ranking=shown), ranked.entities)

    def _linked(self, weighed: Weighed, link: Link, entities: Sequence[Entity]) -> LinkedMention:
        known = {entity.id: entity for entity in entities}
        spoken = weighed.spoken
        triples = described(spoken.mention, spoken.description.triples, self._weigher.induced(weighed)).triples
        return LinkedMention(
            mention=spoken.mention,
            link=link,
            entity=known[link.entity_id] if link.entity_id else None,
            candidates=tuple(known[candidate.entity_id] for candidate in link.ranking.candidates),
            description=replace(spoken.description, triples=triples),
            alike=weighed.alike,
        )


def _stated(mention: Mention, lines: Sequence[VisibleLine]) -> Spoken:
    stated = stated_triples(mention, lines)
    return Spoken(mention=mention, description=Description(mention_id=mention.id, triples=stated))


def _notes_on(generated: Generated) -> list[str]:
    """What a user should know of how the model's answer came about."""
    surface, result = generated.mention.surface, generated.result
    unread = [f"nothing of the model's answer: {result.problem}"] if isinstance(result, Unparsed) else []
    return [f"{surface}: {note}" for note in (*generated.notes, *unread)]


def _open_model(settings: EngineSettings) -> Engine:
    from localmel.weights.open import open_model

    return open_model(settings)


def _number_of(mention: Mention) -> int:
    """Which caption of its batch a mention stands in."""
    return int(mention.id.partition("-")[0])


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
