"""Candidates of many mentions, on disk: what `localmel retrieve` runs.

In: mentions, a linker, the folder of a run, with what `generate` said where the profile names a model for it.
Out: `retrieve/` in it:

    rankings.jsonl   a line for each mention, in order: its text, what is said of it, candidates best first, P(NIL)

Everything that a language model is to be told stands in that file, so that the next stage needs neither data nor
retriever.  Knows no gold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from localmel.engines.pictures import open_picture
from localmel.errors import BadInput, BadPicture, CorruptArtifact, shell_line
from localmel.generate.embedded import stated_triples
from localmel.generate.visible_text import VisibleLine, visible_lines
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.matchers.kb_search import texts_read
from localmel.records import Candidate, Description, Mention, MentionId, Ranking, Span, Triple
from localmel.rerank.questions import Retrieved
from localmel.rerank.weighing import Spoken, with_model
from localmel.retrieve.profile_models import ProfileModels, open_models
from localmel.runs.folder import Stage, finished_stage, make_stage, typed
from localmel.runs.generate import GENERATE, mentions_sha256, read_descriptions
from localmel.settings import GenerateSettings, Profile
from localmel.settings.shipped import weights_folder
from localmel.store import progress
from localmel.store.artifacts import failed_writes_are_reported, sha256_of

RETRIEVE, RANKINGS = "retrieve", "rankings.jsonl"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which mentions a run is about, as the command was told."""

    splits: tuple[str, ...] = ()
    dataset: str | None = None
    limit: int = 0


def retrieve_stage(
    mentions: Sequence[Mention],
    asked: Asked,
    kb: KnowledgeBase,
    profile: Profile,
    run: Path,
    *,
    models: ProfileModels | None = None,
    without_triples: bool = False,
    command: str = "",
) -> Stage:
    """Rank the candidates of every mention, all that are found, or take what the run holds.

    Where the profile asks a model about mentions, its answers are those of the run's `generate` stage.
    `without_triples` withholds the triples about mentions, here and from every later stage; those of the KB stay.
    Raises BadInput where that is missing or about others, and as `make_stage`."""
    models = models or open_models(profile)
    kb.hold()
    said, said_sha256 = _generated(run, mentions, profile.generate)

    def make(folder: Path) -> Json:
        every = max(1, profile.retrieve.by_name + profile.retrieve.by_vector)
        linker = Linker(kb, profile, top_k=every, models=models)
        progress.begin("reading mentions", len(mentions))
        spoken, unreadable = _spoken(mentions, said, profile.generate)
        if without_triples:
            spoken = [replace(one, description=replace(one.description, triples=())) for one in spoken]
        progress.begin("retrieving", len(mentions))
        counts = {"mentions": 0, "candidates": 0, "without_candidates": 0, "with_triples": 0}
        with failed_writes_are_reported(folder), (folder / RANKINGS).open("w", encoding="utf-8") as file:
            for one in linker.retrieve(spoken):
                file.write(json.dumps(_to_json(one), allow_nan=False) + "\n")
                n = len(one.ranking.candidates)
                counts["mentions"] += 1
                counts["candidates"] += n
                counts["without_candidates"] += n == 0
                counts["with_triples"] += bool(one.description.triples)
                progress.advance(1)
        return {**counts, "pictures_not_read": unreadable}

    return make_stage(
        run,
        RETRIEVE,
        make,
        settings={
            "generate": _without_model(profile.generate),
            "retrieve": asdict(profile.retrieve),
            "asked": asdict(asked),
            **({"without": ["triples"]} if without_triples else {}),
        },
        inputs={
            "mentions": mentions_sha256(mentions),
            "said": said_sha256,
            "kb_fingerprint": kb.fingerprint,
            "space": models.encoders.text.space.weights_sha256,
            "network": models.sha256,
            **texts_read(kb, models.matcher),
            "scorer": _scorer_sha256(weights_folder(profile.rerank.weights)),
        },
        command=command,
    )


def read_rankings(run: Path) -> Iterator[Retrieved]:
    """What the retrieve stage of a run found, mention by mention.  Raises BadInput or CorruptArtifact."""
    path = finished_stage(run, RETRIEVE).folder / RANKINGS
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                hint = shell_line("rm -r", path.parent, note="then run localmel retrieve again")
                raise CorruptArtifact(f"{path}:{number}: no ranking ({error})", hint=hint) from None


# --- what is said of mentions -------------------------------------------------------------------------------------


def _generated(
    run: Path, mentions: Sequence[Mention], settings: GenerateSettings
) -> tuple[Mapping[MentionId, Description], str | None]:
    """What the run's model said, and the hash of that; nothing where the profile asks none."""
    if settings.backend != "vlm":
        return {}, None
    if not (run / GENERATE).is_dir():
        raise BadInput(
            f"the profile asks a model about each mention, and {run} has no stage {GENERATE!r}",
            hint=f"localmel generate DATA --run {typed(run)}   # or --profile embedded",
        )
    files = finished_stage(run, GENERATE).manifest["files"]
    digest = "".join(files[name]["sha256"] for name in sorted(files))
    return read_descriptions(run, mentions), digest


def _spoken(
    mentions: Sequence[Mention],
    said: Mapping[MentionId, Description],
    settings: GenerateSettings,
) -> tuple[list[Spoken], int]:
    """What is said of each mention, and how many pictures could not be read.  Each picture is read once."""
    reads = settings.backend == "embedded" or settings.read_writing
    lines: dict[Path | None, tuple[VisibleLine, ...]] = {None: ()}
    unreadable, spoken = 0, []
    for mention in mentions:
        image = mention.image if reads else None
        if image not in lines:
            try:
                lines[image] = visible_lines(open_picture(image), settings) if image else ()
            except BadPicture:
                lines[image], unreadable = (), unreadable + 1
        stated = stated_triples(mention, lines[image])
        one = Spoken(mention=mention, description=Description(mention_id=mention.id, triples=stated))
        if mention.id in said:
            one = with_model(one, said[mention.id], keep_stated=settings.read_writing)
        spoken.append(one)
        progress.advance(1)
    return spoken, unreadable


# --- lines --------------------------------------------------------------------------------------------------------


def _to_json(one: Retrieved) -> Json:
    mention, description = one.mention, one.description
    return {
        "mention_id": mention.id,
        "surface": mention.surface,
        "sentence": mention.context,
        "start": mention.span.start,
        "entity_type": description.entity_type,
        "summary": description.summary,
        "triples": [[triple.relation, triple.tail, triple.source] for triple in description.triples],
        "nil": one.nil,
        "candidates": [{"id": candidate.entity_id, "score": candidate.score} for candidate in one.ranking.candidates],
    }


def _from_json(row: Json) -> Retrieved:
    mention_id, surface, start = row["mention_id"], row["surface"], row["start"]
    span = Span(start=start, end=start + len(surface))
    triples = (
        Triple(head=surface, relation=relation, tail=tail, source=source) for relation, tail, source in row["triples"]
    )
    candidates = (Candidate(entity_id=one["id"], score=one["score"]) for one in row["candidates"])
    return Retrieved(
        mention=Mention(id=mention_id, surface=surface, context=row["sentence"], span=span),
        description=Description(
            mention_id=mention_id, entity_type=row["entity_type"], summary=row["summary"], triples=tuple(triples)
        ),
        ranking=Ranking(mention_id=mention_id, candidates=tuple(candidates)),
        nil=row["nil"],
    )


def _without_model(settings: GenerateSettings) -> Json:
    """What decides the triples here; what decided the model's answers is in the manifest of its stage."""
    names = ("backend", "read_writing", "least_confidence", "most_lines")
    return {name: getattr(settings, name) for name in names}


def _scorer_sha256(folder: Path) -> list[str]:
    try:
        return [sha256_of(folder / name) for name in ("scorer.json", "weights.safetensors")]
    except OSError as error:
        raise CorruptArtifact(f"{folder} holds no evidence scorer ({error})", hint=shell_line("ls", folder)) from None
