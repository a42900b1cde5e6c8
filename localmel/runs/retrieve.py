"""Rank the candidates of many mentions, on disk: what `localmel retrieve` runs.

In: mentions, a linker, the folder of a run, with its `generate` stage if the profile names a model for that.
Out: `retrieve/` in it:

    rankings.jsonl   one line per mention, in order: its text and description, candidates best first, P(NIL)

The file holds everything that a language model will be shown, so that the next stage needs neither the data nor the
models of retrieval.  Knows no gold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, shell_line
from localmel.generate.statements import Statements
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.matchers.registry import kind_of
from localmel.records import Candidate, Description, Mention, MentionId, Ranking, Span, Triple
from localmel.rerank.questions import Retrieved
from localmel.rerank.scorer import scorer_sha256
from localmel.rerank.weighing import DescribedMention
from localmel.retrieve.profile_models import ProfileModels, open_models
from localmel.runs.folder import Stage, finished_stage, make_stage, read_lines, typed
from localmel.runs.generate import GENERATE, mentions_sha256, read_descriptions
from localmel.settings import GenerateSettings, Profile
from localmel.settings.shipped import weights_folder
from localmel.store import progress
from localmel.store.artifacts import failed_writes_are_reported

RETRIEVE, RANKINGS = "retrieve", "rankings.jsonl"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The mentions of a run, as its command chose them."""

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
    """Rank all candidates found for every mention, or return the stage that the run has.

    If the profile asks a model about mentions, its answers come from the run's `generate` stage.  `without_triples`
    removes the triples about mentions, here and for every later stage; those of the KB stay.  Raises BadInput if the
    `generate` stage is missing or about other mentions, and as `make_stage`."""
    models = models or open_models(profile)
    kb.hold()
    said, said_sha256 = _generated(run, mentions, profile.generate)

    def make(folder: Path) -> Json:
        every = max(1, profile.retrieve.by_name + profile.retrieve.by_vector)
        linker = Linker(kb, profile, top_k=every, models=models)
        statements = Statements(profile.generate)
        descriptions = statements.describe_all(mentions, said)
        if without_triples:
            descriptions = [replace(one, triples=()) for one in descriptions]
        spoken = [DescribedMention(mention=one, description=of) for one, of in zip(mentions, descriptions, strict=True)]
        progress.begin("retrieving", len(mentions))
        counts = {"mentions": len(mentions), "candidates": 0, "without_candidates": 0, "with_triples": 0}
        with failed_writes_are_reported(folder), (folder / RANKINGS).open("w", encoding="utf-8") as file:
            for one in linker.retrieve(spoken):
                file.write(json.dumps(_to_json(one), allow_nan=False) + "\n")
                counts["candidates"] += len(one.ranking.candidates)
                counts["without_candidates"] += not one.ranking.candidates
                counts["with_triples"] += bool(one.description.triples)
                progress.advance(1)
        return {**counts, "pictures_not_read": statements.n_unreadable}

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
            "network": models.matcher.sha256,
            **kind_of(models.matcher).texts_state(kb),
            "scorer": scorer_sha256(weights_folder(profile.rerank.weights)),
        },
        command=command,
    )


def read_rankings(run: Path) -> Iterator[Retrieved]:
    """Read what the retrieve stage of a run found, mention by mention.  Raises BadInput or CorruptArtifact."""
    path = finished_stage(run, RETRIEVE).folder / RANKINGS
    again = shell_line("rm -r", path.parent, note="then run localmel retrieve again")
    return read_lines(path, _from_json, again=again)


def retrieved_over(run: Path, kb: KnowledgeBase) -> Stage:
    """Return the finished retrieve stage of a run.  Raises BadInput if it was made over another KB or state of it."""
    stage = finished_stage(run, RETRIEVE)
    before = stage.manifest["made_from"]["inputs"]["kb_fingerprint"]
    if before != kb.fingerprint:
        again = shell_line("rm -r", stage.folder, note="if the KB has changed; then run localmel retrieve again")
        raise BadInput(
            f"{stage.folder} was made over another KB, or another state of it: {before[:12]}, not "
            f"{kb.fingerprint[:12]} of {kb.name!r}",
            hint=f"--kb KB as localmel retrieve was given, or {again}",
        )
    return stage


def _generated(
    run: Path, mentions: Sequence[Mention], settings: GenerateSettings
) -> tuple[Mapping[MentionId, Description], str | None]:
    """Return what the run's model said and a hash of it; nothing if the profile asks no model."""
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
    """Return the settings that decide the triples here; those of the model are in the manifest of its stage."""
    names = ("backend", "read_writing", "least_confidence", "most_lines")
    return {name: getattr(settings, name) for name in names}
