"""`localmel kb abstracts`, `kb describe` and `kb texts`: longer texts about entities, next to their descriptions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.options import (
    AllowRemote,
    AsJson,
    AtOnce,
    Device,
    EngineName,
    KbArgument,
    Quantization,
    SkipBad,
    Url,
    Weights,
    model_options,
    with_options,
)
from localmel.cli.output import print_json, print_note, print_problem, print_table, progress_bar
from localmel.errors import UnknownChoice, UsageError

if TYPE_CHECKING:
    from localmel.kb.store import KnowledgeBase
    from localmel.kb.texts import EntityText
    from localmel.runs.describe import Described
    from localmel.settings import EngineSettings

_SHOWN = 10
_WORDS = {
    "abstracts": "abstracts",
    "kept": "kept",
    "unknown": "about no entity of the KB",
    "ambiguous": "titles shared by several entities",
    "empty": "empty after cleaning",
    "twice": "about an entity that already had one",
    "cut": "kept, shortened to the limit",
    "problems": "lines left out",
}


def abstracts_command(
    name: KbArgument,
    files: Annotated[list[Path], typer.Argument(help="JSON lines, or .ttl/.nt of DBpedia (.gz, .bz2, .zst).")],
    titles: Annotated[
        Path | None, typer.Option("--titles", help="Table of page titles and ids, separated by a tab.")
    ] = None,
    by_label: Annotated[
        bool, typer.Option("--by-label", help="Match a title that is in no table to the only entity with this label.")
    ] = False,
    language: Annotated[str, typer.Option("--language", help="Keep texts in this language, if they name one.")] = "en",
    most: Annotated[int, typer.Option("--most", help="Longest abstract in characters; cut at a sentence.")] = 1000,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Import abstracts of Wikipedia or DBpedia into a KB, next to its descriptions."""
    from localmel.kb.abstracts import import_abstracts
    from localmel.kb.importers import Problems
    from localmel.kb.locate import changeable_folder

    folder = changeable_folder(name)
    problems = Problems(on_problem=print_problem if skip_bad else None)
    with progress_bar():
        read = import_abstracts(folder, files, problems, titles=titles, by_label=by_label, language=language, most=most)
    if as_json:
        print_json(asdict(read))
        return
    rows = [(words, f"{getattr(read, key):,}") for key, words in _WORDS.items() if getattr(read, key)]
    print_table(("", ""), [*rows, *((f"passed over: {why}", f"{n:,}") for why, n in read.passed_over.items())])


def describe_command(
    name: KbArgument,
    profile: Annotated[str, typer.Option("--profile", help="Profile whose language model writes.")] = "paper",
    entity: Annotated[list[str] | None, typer.Option("--id", help="Only the entity with this id (repeatable).")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Describe at most this many entities; 0 takes all.")] = 0,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Skip entities that this model has described from the present facts.")
    ] = False,
    engine: EngineName = None,
    weights: Weights = None,
    quantization: Quantization = None,
    device: Device = None,
    url: Url = None,
    allow_remote: AllowRemote = False,
    at_once: AtOnce = None,
    as_json: AsJson = False,
) -> None:
    """Let a language model describe entities from the facts of the KB; run it again to resume."""
    model = model_options(engine, weights, quantization, device, url, allow_remote, at_once)
    done = _described(name, _engine_settings(profile, model), entity or [], limit, only_missing)
    print_json(done.as_json()) if as_json else _print_described(done)


def _engine_settings(profile: str, model: dict[str, Any]) -> EngineSettings:
    from localmel.settings import load_profile

    settings = with_options(load_profile(profile).rerank, {}, model, where="--engine")
    if not settings.model.engine:
        fact = f"profile {profile!r} has no language model"
        raise UsageError(fact, hint="--profile paper, or --engine and --engine-weights")
    return settings.model


def _described(name: str, settings: EngineSettings, ids: list[str], limit: int, only_missing: bool) -> Described:
    from localmel.engines.open import open_model
    from localmel.kb.locate import changeable_folder, open_kb
    from localmel.runs.describe import JOURNAL, describe_kb

    folder = changeable_folder(name)
    with open_kb(name) as kb:
        try:
            with open_model(settings) as engine, progress_bar():
                return describe_kb(kb, engine, settings, ids=ids, limit=limit, only_missing=only_missing)
        except KeyboardInterrupt:
            print_note(f"run the same command to resume; the answers so far: {folder / JOURNAL}")
            raise


def _print_described(done: Described) -> None:
    rows = [
        ("model", done.model),
        ("entities asked about", f"{done.asked:,}"),
        ("skipped, already described", f"{done.left_out:,}"),
        ("written", f"{done.written:,}"),
        ("of these, unknown to the model", f"{done.unknown:,}"),
        ("of these, with a text in the prompt", f"{done.with_text:,}"),
        ("with unsupported names or years", f"{len(done.doubtful):,}"),
        ("failed", f"{len(done.unwritten):,}"),
        ("answers", f"{done.answers:,}"),
        ("of these, given now", f"{done.answers_now:,}"),
    ]
    print_table(("", ""), rows)
    shown = [(one.entity_id, ", ".join((*one.names, *one.years)), one.text) for one in done.doubtful[:_SHOWN]]
    if shown:
        print_table(("entity", "unsupported", "text"), shown)
    for one in done.unwritten[:_SHOWN]:
        print_note(f"{one['entity_id']}: {one['problem']}")
    if max(len(done.doubtful), len(done.unwritten)) > _SHOWN:
        print_note(f"{_SHOWN} of each are shown; --json lists all")


def texts_command(
    name: KbArgument,
    encode: Annotated[
        list[str] | None, typer.Option("--encode", help="Encode these texts: abstract or written (repeatable).")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Which model's texts, if several models wrote some.")] = "",
    profile: Annotated[str, typer.Option("--profile", help="Profile whose text encoder is used.")] = "embedded",
    as_json: AsJson = False,
) -> None:
    """Count the texts that a KB holds next to its descriptions, and encode them on request."""
    from localmel.kb.locate import open_kb
    from localmel.kb.texts import text_counts

    with open_kb(name) as kb:
        encoded = {source: _encoded(kb, source, model, profile) for source in dict.fromkeys(encode or ())}
        counts = text_counts(kb)
    if as_json:
        print_json({"kb": name, "texts": [asdict(one) for one in counts], "encoded": encoded})
        return
    rows = [(one.source, one.model, f"{one.entities:,}", f"{one.doubtful:,}") for one in counts]
    print_table(("texts", "written by", "entities", "with unsupported names or years"), rows)
    for source, n in encoded.items():
        print(f"{source}: {n:,} texts encoded, their vectors are up to date")


def _encoded(kb: KnowledgeBase, source: str, model: str, profile: str) -> int:
    from localmel.encode.kb_vectors import FOLDERS, index_texts
    from localmel.encode.registry import open_encoder
    from localmel.settings import load_profile

    if source not in FOLDERS:
        raise UnknownChoice("source of texts", source, FOLDERS, option="--encode")
    encoder = open_encoder(load_profile(profile).encode).text
    with progress_bar():
        return index_texts(kb, encoder, source, model=model)


def heading_of(text: EntityText) -> str:
    """Return the heading of a text: its origin, and the names and years in it that no source supports."""
    if text.source == "abstract":
        return "abstract"
    doubts = [*text.facts.get("names", []), *text.facts.get("years", [])]
    doubtful = f"; unsupported: {', '.join(doubts)}" if doubts else ""
    return f"written by {text.model}{doubtful}"
