"""Ask a model about many mentions, on disk: what `localmel generate` runs.

In: mentions, settings, an engine, the folder of a run.  Out: `generate/` in it:

    descriptions.jsonl   the model's description of each mention, in the order of the mentions
    unparsed.jsonl       mentions for which no answer could be read, with the last answer and what is wrong with it

A run that was killed resumes where it stopped, because its journal has every answer.  Knows neither gold nor KB."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from localmel.engines.memory import device_of, free_memory
from localmel.engines.protocol import Engine, EngineFacts, Response
from localmel.errors import BadInput
from localmel.generate.question import asked_of
from localmel.generate.vlm import Generated, describe
from localmel.records import Description, Mention, MentionId, Triple, Unparsed
from localmel.runs.folder import Stage, again_of, finished_stage, make_stage, open_journal, read_lines
from localmel.settings import EngineSettings, GenerateSettings
from localmel.store import progress
from localmel.store.artifacts import failed_writes_are_reported, sha256_of

GENERATE = "generate"
DESCRIPTIONS, UNPARSED = "descriptions.jsonl", "unparsed.jsonl"
_MODEL_SETTINGS = ("engine", "quantization", "dtype", "device", "context", "longest_side")
_QUESTION_SETTINGS = ("format", "most_triples", "max_tokens", "temperature", "retries", "seed")
Json = dict[str, Any]


def generate_stage(
    mentions: Sequence[Mention],
    settings: GenerateSettings,
    engine: Engine,
    run: Path,
    *,
    again: bool = False,
    command: str = "",
) -> Stage:
    """Describe every mention, or return the stage that this run has for the same mentions, settings and model.

    `again` asks once more about mentions that a finished run had no answer for.  Raises EngineStopped, JournalBusy,
    BadInput or CorruptArtifact; earlier answers stay in the journal."""
    if not mentions:
        raise BadInput("there are no mentions to describe", hint="localmel data check FOLDER")
    if len({mention.id for mention in mentions}) < len(mentions):
        raise BadInput("cannot describe these mentions: an id is not unique", hint="localmel data check FOLDER")
    facts = engine.facts()

    def make(folder: Path) -> Json:
        with open_journal(run, GENERATE) as journal:
            tally = _Tally(kept_before=len(journal))
            progress.begin("describing mentions", len(mentions))
            asked = asked_of(mentions)
            described = describe(asked, engine, settings, journal, on_response=tally.add_response)
            with failed_writes_are_reported(folder):
                _write(folder, mentions, tally.counted(described))
            figures = tally.figures(len(mentions), len(asked), len(journal), engine.facts())
            return figures | {"device": device_in_words(settings.model)}

    return make_stage(
        run,
        GENERATE,
        make,
        settings={
            **{name: getattr(settings, name) for name in _QUESTION_SETTINGS},
            "model": {name: getattr(settings.model, name) for name in _MODEL_SETTINGS},
        },
        inputs={"mentions": mentions_sha256(mentions), "model": model_of(facts)},
        command=command,
        is_enough=lambda manifest: not (again and manifest["figures"]["unanswered"]),
    )


def read_descriptions(run: Path, mentions: Iterable[Mention]) -> dict[MentionId, Description]:
    """Return the descriptions of these mentions, without those that could not be read.

    Raises BadInput if the run has no such stage, or one made from other mentions."""
    said = read_said(run, mentions)
    return {mention_id: one.description for mention_id, one in said.items() if one.description is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The outcome for one mention."""

    description: Description | None
    "None if no answer could be read."
    attempts: int
    "How many questions were asked."


def read_said(run: Path, mentions: Iterable[Mention]) -> dict[MentionId, Said]:
    """Return the outcome for each of these mentions, even if it could not be read.  Raises as `read_descriptions`."""
    stage = finished_stage(run, GENERATE)
    surfaces = {mention.id: mention.surface for mention in mentions}
    found = {}
    for name in (DESCRIPTIONS, UNPARSED):
        again = again_of(stage.folder, GENERATE)
        for key, row in read_lines(stage.folder / name, lambda row: (row["mention_id"], row), again=again):
            if (head := surfaces.pop(key, None)) is not None:
                description = _description(row, head) if name == DESCRIPTIONS else None
                found[key] = Said(description=description, attempts=row["attempts"])
    if surfaces:
        raise BadInput(
            f"{stage.folder} has nothing about {len(surfaces):,} mentions, for example {next(iter(surfaces))!r}: "
            "it was made from others",
            hint="localmel generate DATA --run ANOTHER",
        )
    return found


def mentions_sha256(mentions: Iterable[Mention]) -> str:
    """Hash ids, sentences, spans and the bytes of the pictures, whatever the layout on disk."""
    digest = hashlib.sha256()
    pictures: dict[Path, str | None] = {}
    for mention in mentions:
        if mention.image and mention.image not in pictures:
            pictures[mention.image] = _picture_sha256(mention.image)
        picture = pictures[mention.image] if mention.image else None
        parts = (mention.id, mention.context, mention.span.start, mention.span.end, picture)
        digest.update(repr(parts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def model_of(facts: EngineFacts) -> Json:
    """Return what identifies a model, for a manifest."""
    return {"name": facts.model, "revision": facts.revision, "versions": dict(facts.versions)}


def device_in_words(settings: EngineSettings) -> str:
    """Name the device a model runs on; empty if localmel does not run the model itself."""
    if settings.engine in ("scripted", "server"):
        return ""
    device = device_of(settings)
    return free_memory(device).device if device == "cuda" else "CPU"


def _picture_sha256(path: Path) -> str | None:
    try:
        return sha256_of(path) if path.is_file() else None
    except (OSError, ValueError):  # ValueError: the file system rejects the name
        return None


# --- what it cost ------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Tally:
    """Counts answers as they come; tokens include those of answers from the journal."""

    kept_before: int
    begun: float = field(default_factory=time.perf_counter)
    answers: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    image_tokens: int = 0
    output_tokens: int = 0
    described: int = 0
    unparsed: int = 0
    unanswered: int = 0
    triples: int = 0
    sentences_cut: int = 0
    first_tokens: list[float] = field(default_factory=list)
    "Seconds until the first token, of each answer whose engine measures it."
    without_picture: int = 0
    answers_cut_off: int = 0

    def add_response(self, response: Response) -> None:
        self.answers += 1
        self.failed += response.finish == "failed"
        if response.finish != "failed":
            self.prompt_tokens += response.prompt_tokens
            self.image_tokens += response.image_tokens
            self.output_tokens += response.output_tokens
        if response.first_token_seconds is not None:
            self.first_tokens.append(response.first_token_seconds)

    def counted(self, generated: Iterable[Generated]) -> Iterator[Generated]:
        for one in generated:
            if isinstance(one.result, Description):
                self.described += 1
                self.triples += len(one.result.triples)
            else:
                self.unparsed += 1
                self.unanswered += not one.answered
            self.sentences_cut += any(note.startswith("sentence cut") for note in one.notes)
            self.without_picture += any(note.startswith("asked without") for note in one.notes)
            self.answers_cut_off += any(note.startswith("answer cut") for note in one.notes)
            yield one

    def figures(self, n_mentions: int, n_sentences: int, kept: int, facts: EngineFacts) -> Json:
        """Return the figures of the manifest; rates are those of this process, without answers from the journal."""
        seconds = time.perf_counter() - self.begun
        asked_now = kept - self.kept_before
        inner = ("kept_before", "begun", "first_tokens")
        counts = {name: value for name, value in asdict(self).items() if name not in inner}
        return {
            "mentions": n_mentions,
            "sentences": n_sentences,
            **counts,
            "prompt_tokens_per_mention": round(self.prompt_tokens / n_mentions, 1),
            "image_tokens_per_mention": round(self.image_tokens / n_mentions, 1),
            "answers_kept": kept,
            "answers_now": asked_now,
            "answers_per_second": round(asked_now / seconds, 3),
            "first_token_seconds": statistics.median(self.first_tokens) if self.first_tokens else None,
            "load_seconds": round(facts.load_seconds, 2),
            "peak_memory_bytes": facts.peak_memory_bytes,
        }


# --- lines -------------------------------------------------------------------------------------------------------


def _write(folder: Path, mentions: Sequence[Mention], generated: Iterable[Generated]) -> None:
    """Write both files in the order of the mentions, whatever the order of the answers.

    Answers wait on the disk; memory holds an offset for each mention."""
    places: dict[MentionId, tuple[int, bool]] = {}
    with TemporaryFile(dir=folder) as waiting:
        for one in generated:
            places[one.mention.id] = waiting.tell(), isinstance(one.result, Description)
            waiting.write(_line(one))
        with (folder / DESCRIPTIONS).open("wb") as descriptions, (folder / UNPARSED).open("wb") as unparsed:
            for mention in mentions:
                place, is_described = places[mention.id]
                _copy_line(waiting, place, descriptions if is_described else unparsed)


def _copy_line(source: IO[bytes], place: int, target: IO[bytes]) -> None:
    source.seek(place)
    target.write(source.readline())


def _line(one: Generated) -> bytes:
    result = one.result
    more = {"attempts": one.attempts, **({"notes": list(one.notes)} if one.notes else {})}
    if isinstance(result, Unparsed):
        row: Json = {"mention_id": result.mention_id, "problem": result.problem, "raw": result.raw, **more}
    else:
        row = {
            "mention_id": result.mention_id,
            "entity_type": result.entity_type,
            "summary": result.summary,
            "triples": [[triple.relation, triple.tail, triple.source] for triple in result.triples],
            "raw": result.raw,
            **more,
        }
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair can only be written escaped
        return json.dumps(row).encode() + b"\n"


def _description(row: Mapping[str, Any], head: str) -> Description:
    triples = [
        Triple(head=head, relation=relation, tail=tail, source=source) for relation, tail, source in row["triples"]
    ]
    return Description(
        mention_id=row["mention_id"],
        entity_type=row["entity_type"],
        summary=row["summary"],
        triples=tuple(triples),
        raw=row["raw"],
    )
