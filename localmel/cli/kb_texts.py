"""`localmel kb abstracts`, `kb describe` and `kb texts`: texts about entities beside their descriptions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.model_arguments import AtOnce, Device, EngineName, Quantization, Url, Weights
from localmel.cli.output import print_json, print_note, print_problem, print_table, progress_bar
from localmel.errors import UnknownChoice, UsageError

if TYPE_CHECKING:
    from localmel.kb.store import KnowledgeBase
    from localmel.kb.texts import EntityText
    from localmel.runs.describe import Described
    from localmel.settings import EngineSettings

Name = Annotated[str, typer.Argument(help="Name or path of a KB.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
_SHOWN = 10
_WORDS = {
    "abstracts": "abstracts",
    "kept": "kept",
    "unknown": "about no entity of the KB",
    "ambiguous": "titles that several entities bear",
    "empty": "empty once cleaned",
    "twice": "of an entity that had one already",
    "cut": "kept, cut at the limit",
    "problems": "lines left out",
}


def abstracts_command(
    name: Name,
    files: Annotated[list[Path], typer.Argument(help="JSON lines, or .ttl/.nt of DBpedia (.gz, .bz2, .zst).")],
    titles: Annotated[
        Path | None, typer.Option("--titles", help="Table of page titles and ids, a tab between them.")
    ] = None,
    by_label: Annotated[
        bool, typer.Option("--by-label", help="A title that no table maps means the only entity with this label.")
    ] = False,
    language: Annotated[str, typer.Option("--language", help="Of a text that names its language.")] = "en",
    most: Annotated[int, typer.Option("--most", help="Characters of an abstract, cut behind a sentence.")] = 1000,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Report lines that do not fit, read the rest.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring abstracts of Wikipedia or DBpedia into a KB, beside its descriptions."""
    from localmel.kb.abstracts import import_abstracts
    from localmel.kb.importers import Problems
    from localmel.kb.locate import changeable_folder

    folder = changeable_folder(name)
    problems = Problems(on_problem=print_problem if skip_bad else None)
    with progress_bar():
        read = import_abstracts(
            folder,
            files,
            problems,
            titles=titles,
            by_label=by_label,
            language=language,
            most=most,
        )
    if as_json:
        print_json(asdict(read))
        return
    rows = [(words, f"{getattr(read, key):,}") for key, words in _WORDS.items() if getattr(read, key)]
    print_table(("", ""), [*rows, *((f"passed over: {why}", f"{n:,}") for why, n in read.passed_over.items())])


def describe_command(
    name: Name,
    profile: Annotated[str, typer.Option("--profile", help="Whose language model (rerank) writes.")] = "paper",
    entity: Annotated[list[str] | None, typer.Option("--id", help="Only the entity with this id (repeatable).")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many entities; 0 takes all.")] = 0,
    only_missing: Annotated[
        bool,
        typer.Option("--only-missing", help="Leave out what this model has described from what the KB knows now."),
    ] = False,
    engine: EngineName = None,
    weights: Weights = None,
    quantization: Quantization = None,
    device: Device = None,
    url: Url = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let texts leave this machine (engine server).")
    ] = False,
    at_once: AtOnce = None,
    as_json: AsJson = False,
) -> None:
    """Let a language model describe entities from what the KB knows; the same command goes on where it stopped."""
    model = {
        "engine": engine,
        "weights": weights,
        "quantization": quantization,
        "device": device,
        "url": url,
        "allow_remote": allow_remote or None,
        "at_once": at_once,
    }
    done = _described(name, _engine_settings(profile, model), entity or [], limit, only_missing)
    print_json(done.as_json()) if as_json else _print_described(done)


def _engine_settings(profile: str, model: dict[str, Any]) -> EngineSettings:
    from localmel.cli.engine_options import check_url, given, with_options
    from localmel.settings import load_profile

    chosen = given(model)
    settings = with_options(load_profile(profile).rerank, {}, chosen, where="--engine")
    if not settings.model.engine:
        fact = f"profile {profile!r} has no language model"
        raise UsageError(fact, hint="--profile paper, or --engine and --engine-weights")
    check_url(settings, chosen)
    return settings.model


def _described(name: str, settings: EngineSettings, ids: list[str], limit: int, only_missing: bool) -> Described:
    from localmel.kb.locate import changeable_folder, open_kb
    from localmel.runs.describe import JOURNAL, describe_kb
    from localmel.weights.open import open_model

    folder = changeable_folder(name)
    with open_kb(name) as kb:
        try:
            with open_model(settings) as engine, progress_bar():
                return describe_kb(
                    kb,
                    engine,
                    settings,
                    ids=ids,
                    limit=limit,
                    only_missing=only_missing,
                )
        except KeyboardInterrupt:
            print_note(f"the same command goes on where this one stopped; its answers: {folder / JOURNAL}")
            raise


def _print_described(done: Described) -> None:
    rows = [
        ("model", done.model),
        ("entities asked about", f"{done.asked:,}"),
        ("left out, described before", f"{done.left_out:,}"),
        ("written", f"{done.written:,}"),
        ("of these not known to the model", f"{done.unknown:,}"),
        ("of these with a text shown", f"{done.with_text:,}"),
        ("with names or years in no source", f"{len(done.doubtful):,}"),
        ("nothing came of", f"{len(done.unwritten):,}"),
        ("answers", f"{done.answers:,}"),
        ("of these given now", f"{done.answers_now:,}"),
    ]
    print_table(("", ""), rows)
    shown = [(one.entity_id, ", ".join((*one.names, *one.years)), one.text) for one in done.doubtful[:_SHOWN]]
    if shown:
        print_table(("entity", "in no source", "written"), shown)
    for one in done.unwritten[:_SHOWN]:
        print_note(f"{one['entity_id']}: {one['problem']}")
    if max(len(done.doubtful), len(done.unwritten)) > _SHOWN:
        print_note(f"{_SHOWN} of each are shown; --json lists all")


def texts_command(
    name: Name,
    encode: Annotated[
        list[str] | None, typer.Option("--encode", help="Make vectors of these: abstract or written (repeatable).")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Whose written texts, where several models wrote.")] = "",
    profile: Annotated[str, typer.Option("--profile", help="Whose text encoder makes the vectors.")] = "embedded",
    as_json: AsJson = False,
) -> None:
    """Count the texts beside the descriptions of a KB, and make vectors of them where that is asked for."""
    from localmel.kb.locate import open_kb
    from localmel.kb.texts import text_counts

    with open_kb(name) as kb:
        encoded = {source: _encoded(kb, source, model, profile) for source in dict.fromkeys(encode or ())}
        counts = text_counts(kb)
    if as_json:
        print_json({"kb": name, "texts": [asdict(one) for one in counts], "encoded": encoded})
        return
    rows = [(one.source, one.model, f"{one.entities:,}", f"{one.doubtful:,}") for one in counts]
    print_table(("texts", "written by", "entities", "with names or years in no source"), rows)
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
    """What stands beside a text: where it is from, and what in it stands in no source."""
    if text.source == "abstract":
        return "abstract"
    doubts = [*text.facts.get("names", []), *text.facts.get("years", [])]
    doubtful = f"; in no source: {', '.join(doubts)}" if doubts else ""
    return f"written by {text.model}{doubtful}"
