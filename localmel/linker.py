"""Run the whole pipeline in memory: captioned pictures in, links with their evidence out.

    text + picture -> mentions -> triples -> vectors -> candidates -> evidence -> link or NIL

Each stage is a function of the package with its name; this page only passes results from one to the next.  If a
profile names a model for the triples or for the choice, that model is in memory during its own stage only, and many
captions go through a stage together."""

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
from localmel.encode.space import WordEncoder
from localmel.engines.protocol import Engine
from localmel.errors import UsageError
from localmel.generate.embedded import described
from localmel.generate.question import asked_of
from localmel.generate.statements import Statements, stated_by
from localmel.generate.visible_text import VisibleLine
from localmel.generate.vlm import Generated, describe
from localmel.kb.mentions import check_text, detected_mentions, listed_mentions, marked_mentions
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.mention_vectors import mention_texts
from localmel.matchers.trained import TrainedMatcher
from localmel.records import Description, Entity, Link, Mention, MentionId, Unparsed
from localmel.rerank.calibration import check_fits, load_calibration
from localmel.rerank.choice import NO_CANDIDATE, link_of
from localmel.rerank.llm import choose
from localmel.rerank.questions import QuestionWriter, Retrieved
from localmel.rerank.scorer import EvidenceScorer
from localmel.rerank.weighing import DescribedMention, Weighed, Weigher, retrieved
from localmel.retrieve.candidates import CandidateFinder, Finder
from localmel.retrieve.profile_models import ProfileModels, open_models, ready_for
from localmel.settings import EngineSettings, Profile, go_offline, load_profile
from localmel.settings.shipped import weights_folder

go_offline()

_CAPTIONS_AT_ONCE, _MENTIONS_AT_ONCE = 64, 128
_WITH_MODELS_AT_ONCE = 1024
"How many captions go through a stage each time its model is loaded."
EVIDENCE_SCORER = "evidence scorer"


class Linker:
    """Links names to one KB with one profile.

    Embedded models are loaded when first needed and kept; a language model is loaded for one stage at a time."""

    def __init__(
        self,
        kb: KnowledgeBase | Path | str = "starter",
        profile: Profile | str = "embedded",
        *,
        top_k: int = 16,
        encoder: WordEncoder | None = None,
        matcher: TrainedMatcher[Any] | None = None,
        models: ProfileModels | None = None,
        scorer: Path | None = None,
        open_engine: Callable[[EngineSettings], Engine] | None = None,
        among: Callable[[CandidateFinder], Finder] | None = None,
    ) -> None:
        """Open the KB and the models.  Raises UsageError, UnknownKb, BadInput or MissingWeights.

        Every argument that is given replaces what the profile names: `models` the encoders and the matcher together,
        `encoder` and `matcher` one of them, `scorer` (a folder) the evidence scorer, `open_engine` the language
        models.  `among` wraps the profile's own finder of candidates in another."""
        if top_k < 1:
            raise UsageError(f"top-k must be at least 1, not {top_k}")
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self._top_k = top_k
        self._open_engine = open_engine or _open_model
        if models is None and encoder and matcher:
            models = ProfileModels(encoders=Encoders(text=encoder, image=None), matcher=matcher)
        models = models or open_models(self.profile)
        if encoder:
            models = replace(models, encoders=replace(models.encoders, text=encoder))
        if matcher:
            models = replace(models, matcher=matcher)
        self._encoder = models.encoders.text
        if not isinstance(kb, KnowledgeBase | Path | str):
            raise UsageError(f"kb must be a name, a path or a KnowledgeBase, not {type(kb).__name__}")
        if isinstance(kb, Path):
            kb = KnowledgeBase(kb)
        self.kb = ready_for(kb, models, self.profile) if isinstance(kb, str) else kb
        self.kb.hold()  # one state for all answers: rows, arrays and vectors belong together
        self._packed, self._vectors = load_vectors(self.kb, self._encoder.space)
        retrieve = self.profile.retrieve
        finder = CandidateFinder(self.kb, self._packed, models.search(self.kb, retrieve.index), retrieve)
        self._finder: Finder = among(finder) if among else finder
        judge = EvidenceScorer(scorer or weights_folder(self.profile.rerank.weights))
        self._weigher = Weigher(self.kb, self._packed, self._vectors, judge, self.profile)

    def link(self, image: Path | str | None, text: str, mentions: Sequence[str] | None = None) -> LinkedCaption:
        """Link the names in one captioned picture.

        Names are those in `mentions` and those marked [[ ]] in the text; if there are none, the KB's names are looked
        for.  Raises BadPicture, BadMention or BadInput, and EngineStopped if the profile names a model.

            linker.link("photo.jpg", "Messi has scored over 700 goals").mentions[0].entity"""
        if isinstance(mentions, str):
            raise UsageError(f"mentions must be a list, not the string {mentions!r}", hint=f"mentions=[{mentions!r}]")
        if not isinstance(text, str):
            raise UsageError(f"the text must be a string, not {type(text).__name__}")
        check_text(text)
        plain, spans = marked_mentions(text)
        if mentions:
            spans = listed_mentions(plain, mentions, marked=spans)
        check_text(plain)
        caption = Caption(text=plain, image=Path(image) if image is not None else None, spans=tuple(spans) or None)
        return next(iter(self.link_many([caption])))

    def link_many(self, captions: Iterable[Caption], *, without_bad_pictures: bool = False) -> Iterator[LinkedCaption]:
        """Link many captions in order, in batches, so that vectors are made and compared together.

        A picture that cannot be read raises BadPicture, or, with `without_bad_pictures`, its caption is linked without
        it and a note says so."""
        remaining = iter(captions)
        at_once = _WITH_MODELS_AT_ONCE if self._uses_models else _CAPTIONS_AT_ONCE
        while batch := list(islice(remaining, at_once)):
            yield from self._link_batch(batch, without_bad_pictures)

    def weigh_many(self, captions: Iterable[tuple[Caption, Sequence[VisibleLine]]]) -> Iterator[Weighed]:
        """Return everything known about each mention before a decision is made; a scorer is fitted on this.

        Each caption comes with the lines read in its picture; the picture itself is not opened."""
        spoken = (
            DescribedMention(mention=mention, description=stated_by(mention, lines))
            for number, (caption, lines) in enumerate(captions)
            for mention in self._mentions(number, caption)
        )
        yield from self._weigh(spoken, {})

    def retrieve(self, spoken: Iterable[DescribedMention]) -> Iterator[Retrieved]:
        """Rank the candidates of mentions that are described already, in order, with the evidence scorer."""
        for weighed in self._weigh(spoken, {}):
            yield retrieved(weighed.described, self._weigher.rank(weighed, self._top_k))

    @property
    def _uses_models(self) -> bool:
        return self.profile.generate.backend == "vlm" or self.profile.rerank.backend == "llm"

    def _link_batch(self, captions: Sequence[Caption], without_bad_pictures: bool) -> list[LinkedCaption]:
        seconds: dict[str, float] = {}
        notes: list[list[str]] = [[] for _ in captions]
        statements = Statements(self.profile.generate)
        with _timed(seconds, "read"):
            images = [
                self._readable(one.image, statements, without_bad_pictures, notes[n]) for n, one in enumerate(captions)
            ]
        with _timed(seconds, "generate"):
            mentions = [
                mention
                for number, (caption, image) in enumerate(zip(captions, images, strict=True))
                for mention in self._mentions(number, replace(caption, image=image))
            ]
            asks = self.profile.generate.backend == "vlm" and mentions
            said = self._asked_about(mentions, notes) if asks else {}
            spoken = [
                DescribedMention(mention=mention, description=statements.describe(mention, said.get(mention.id)))
                for mention in mentions
            ]
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

    def _readable(self, image: Path | None, statements: Statements, without_bad: bool, notes: list[str]) -> Path | None:
        """Return the picture if it can be read; otherwise raise BadPicture, or note why and return None."""
        if image is None:
            return None
        found = statements.read(Path(image))
        if found.problem is None:
            notes.extend(found.notes)
            return Path(image)
        if not without_bad:
            raise found.problem
        notes.append(f"linked without its picture: {found.problem.fact}")
        return None

    def _mentions(self, number: int, caption: Caption) -> Iterator[Mention]:
        spans = caption.spans if caption.spans is not None else detected_mentions(caption.text, self.kb)
        for place, span in enumerate(spans):
            surface = caption.text[span.start : span.end]
            yield Mention(id=f"{number}-{place}", surface=surface, context=caption.text, span=span, image=caption.image)

    def _asked_about(
        self, mentions: Sequence[Mention], notes: list[list[str]]
    ) -> dict[MentionId, Description | Unparsed]:
        """Ask the vision-language model about each mention."""
        settings = self.profile.generate
        answers = {}
        with self._open_engine(settings.model) as engine:
            for one in describe(asked_of(mentions), engine, settings):
                answers[one.mention.id] = one
        for mention in mentions:
            notes[_number_of(mention)] += _notes_on(answers[mention.id])
        return {key: one.result for key, one in answers.items()}

    def _weigh(self, spoken: Iterable[DescribedMention], seconds: dict[str, float]) -> Iterator[Weighed]:
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

    def _vectors_of(self, spoken: Sequence[DescribedMention]) -> tuple[list[NDArray[Any]], Any]:
        """Encode each different text once.

        Returns for each mention a (1 + n_triples, width) array, its own text first, and what the finder takes."""
        mentions = [one.mention for one in spoken]
        stated = [one.description.triples for one in spoken]
        texts = mention_texts(mentions, stated)
        place = {text: number for number, text in enumerate(texts)}
        vectors = self._encoder.encode(list(texts))

        def encoded(wanted: Sequence[str]) -> NDArray[Any]:
            found: NDArray[Any] = vectors[[place[text] for text in wanted]]
            return found

        shown = self._finder.shown(mentions, stated, encoded)
        return [encoded(one.texts) for one in spoken], shown

    def _scored(self, weighed: Iterable[Weighed], seconds: dict[str, float]) -> Iterator[LinkedMention]:
        """Link each mention as the evidence scorer decides."""
        for one in weighed:
            with _timed(seconds, "rerank"):
                ranked = self._weigher.rank(one, self._top_k)
                best = ranked.ranking.candidates[0].score if ranked.entities else 0.0
                said = bool(ranked.entities) and (ranked.nil < self.profile.rerank.nil_from or ranked.nil < best)
                link = Link(
                    mention_id=one.described.mention.id,
                    entity_id=ranked.entities[0].id if said else None,
                    probability=best if said else ranked.nil,
                    decided_by=EVIDENCE_SCORER if ranked.entities else NO_CANDIDATE,
                    evidence=self._weigher.evidence(one, ranked) if said else (),
                    ranking=ranked.ranking,
                )
                linked = self._linked(one, link, ranked.entities, ranked.nil)
            yield linked

    def _chosen(self, weighed: Iterable[Weighed], seconds: dict[str, float]) -> Iterator[LinkedMention]:
        """Let a language model choose among the scorer's best candidates."""
        settings = self.profile.rerank
        writer = QuestionWriter(self.kb, self._packed, self._vectors, self._encoder, settings)
        calibration = load_calibration(Path(settings.calibration)) if settings.calibration else None
        kept = [(one, self._weigher.rank(one, max(self._top_k, settings.most_candidates))) for one in weighed]
        if not kept:
            return
        with _timed(seconds, "rerank"):
            questions = list(writer.questions(retrieved(one.described, ranked) for one, ranked in kept))
            with self._open_engine(settings.model) as engine:
                if calibration:
                    check_fits(calibration, engine.facts(), settings)
                choices = list(choose(questions, engine, settings, calibration=calibration))
        for (one, ranked), question, choice in zip(kept, questions, choices, strict=True):
            link = link_of(question, choice, most_evidence=settings.most_evidence)
            shown = replace(link.ranking, candidates=link.ranking.candidates[: self._top_k])
            yield self._linked(one, replace(link, ranking=shown), ranked.entities, choice.nil)

    def _linked(self, weighed: Weighed, link: Link, entities: Sequence[Entity], nil: float) -> LinkedMention:
        known = {entity.id: entity for entity in entities}
        spoken = weighed.described
        triples = described(spoken.mention, spoken.description.triples, self._weigher.induced(weighed)).triples
        return LinkedMention(
            mention=spoken.mention,
            link=link,
            entity=known[link.entity_id] if link.entity_id else None,
            candidates=tuple(known[candidate.entity_id] for candidate in link.ranking.candidates),
            description=replace(spoken.description, triples=triples),
            nil_probability=min(max(nil, 0.0), 1.0),
            n_stated=len(dict.fromkeys(spoken.description.triples)),
            alike=weighed.alike,
        )


def _notes_on(generated: Generated) -> list[str]:
    """Return what a user should know about how the model's answer came about."""
    surface, result = generated.mention.surface, generated.result
    unread = [f"the model's answer cannot be used: {result.problem}"] if isinstance(result, Unparsed) else []
    return [f"{surface}: {note}" for note in (*generated.notes, *unread)]


def _open_model(settings: EngineSettings) -> Engine:
    from localmel.engines.open import open_model

    return open_model(settings)


def _number_of(mention: Mention) -> int:
    """Return the place of a mention's caption in its batch."""
    return int(mention.id.partition("-")[0])


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
