"""`localmel kb build|add|remove|info|search|show|export` and `localmel index`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli import kb_texts
from localmel.cli.options import AsJson, Kb, KbArgument, SkipBad, source_from
from localmel.cli.output import print_json, print_note, print_problem, print_table, progress_bar
from localmel.errors import LocalmelError, shell_line
from localmel.store.progress import begin

if TYPE_CHECKING:
    from localmel.kb.importers import KbSource, Problems
    from localmel.kb.write import Changed
    from localmel.matchers.kind import Indexed

app = typer.Typer(help="Build a knowledge base, change it, look into it.", no_args_is_help=True, rich_markup_mode=None)
app.command("abstracts")(kb_texts.abstracts_command)
app.command("describe")(kb_texts.describe_command)
app.command("texts")(kb_texts.texts_command)

Entities = Annotated[Path | None, typer.Option("--entities", help="Entities as JSON lines (.gz, .bz2, .zst).")]
Triples = Annotated[Path | None, typer.Option("--triples", help="Triples as TSV with a header line.")]
Wikidata = Annotated[Path | None, typer.Option("--wikidata", help="A Wikidata JSON dump.")]
Ontology = Annotated[Path | None, typer.Option("--ontology", help="Your own CSV or JSON lines, one entity per row.")]
Benchmark = Annotated[Path | None, typer.Option("--benchmark", help="The KB of a benchmark folder (MIMIC, KGMEL).")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="Benchmark: which dataset, if the folder has several.")]
Language = Annotated[
    list[str] | None, typer.Option("--language", help="Wikidata: labels in this language (repeatable).")
]
OfClass = Annotated[list[str] | None, typer.Option("--class", help="Wikidata: only instances of this (repeatable).")]
Vectors = Annotated[bool, typer.Option("--vectors/--no-vectors", help="Encode new entities afterwards.")]


@app.command()
def build(
    name: KbArgument,
    entities: Entities = None,
    triples: Triples = None,
    wikidata: Wikidata = None,
    ontology: Ontology = None,
    benchmark: Benchmark = None,
    dataset: Dataset = None,
    language: Language = None,
    of_class: OfClass = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a KB of that name once the new one is complete.")
    ] = False,
    skip_bad: SkipBad = False,
    vectors: Vectors = True,
    as_json: AsJson = False,
) -> None:
    """Build a KB from files."""
    from localmel.kb.locate import changeable_folder
    from localmel.kb.write import build_kb

    folder = changeable_folder(name)

    def change(source: KbSource, problems: Problems) -> Changed:
        return build_kb(folder, source, problems, replace=replace)

    files = (entities, triples, wikidata, ontology, benchmark)
    _import(name, files, dataset, language, of_class, skip_bad, vectors, as_json, change)


@app.command()
def add(
    name: KbArgument,
    entities: Entities = None,
    triples: Triples = None,
    wikidata: Wikidata = None,
    ontology: Ontology = None,
    language: Language = None,
    of_class: OfClass = None,
    update: Annotated[bool, typer.Option("--update", help="Replace entities that are already in the KB.")] = False,
    skip_bad: SkipBad = False,
    vectors: Vectors = True,
    as_json: AsJson = False,
) -> None:
    """Add entities and triples to a KB; only new ones are encoded."""
    from localmel.kb.locate import changeable_folder
    from localmel.kb.write import add_to_kb

    folder = changeable_folder(name)

    def change(source: KbSource, problems: Problems) -> Changed:
        return add_to_kb(folder, source, problems, update=update)

    files = (entities, triples, wikidata, ontology, None)
    _import(name, files, None, language, of_class, skip_bad, vectors, as_json, change)


@app.command()
def remove(
    name: KbArgument,
    ids: Annotated[list[str], typer.Argument(help="Ids of the entities to remove.")],
    vectors: Vectors = True,
    as_json: AsJson = False,
) -> None:
    """Remove entities from a KB."""
    from localmel.kb.locate import changeable_folder
    from localmel.kb.write import remove_from_kb

    changed = remove_from_kb(changeable_folder(name), ids)
    _tell(changed, "removed", as_json, _index(name).encoded if vectors else None)


@app.command()
def info(
    name: Annotated[str | None, typer.Argument(help="Name or path of a KB; default: all KBs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count the entities, names and triples of a KB."""
    from localmel.kb.locate import list_kbs, open_kb

    ensure_starter(name)
    if name:
        facts = asdict(open_kb(name).facts())
        rows = [(key.replace("_", " "), _cell(value)) for key, value in facts.items()]
        print_json(facts) if as_json else print_table(("", ""), rows)
        return
    found = [_facts_or_error(one) for one in list_kbs()]
    if as_json:
        print_json(found)
        return
    columns = ("name", "entities", "names", "triples", "path")
    print_table(columns, [[_cell(facts.get(column, facts.get("error", ""))) for column in columns] for facts in found])


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="A name, a part of one, or a misspelt one.")],
    kb: Kb = "starter",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many to list.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Find entities by name."""
    from localmel.kb.locate import open_kb
    from localmel.kb.names import NameIndex

    ensure_starter(kb)
    base = open_kb(kb)
    matches = NameIndex(base).find(text, limit=limit)
    entities = base.entities_at([match.row for match in matches])
    found = [
        {
            "id": entity.id,
            "label": entity.label,
            "description": entity.description,
            "name": match.name,
            "match": match.kind,
        }
        for match, entity in zip(matches, entities, strict=True)
    ]
    if as_json:
        print_json(found)
    else:
        print_table(("id", "label", "description", "by name", "match"), [tuple(row.values()) for row in found])


@app.command()
def show(
    entity_id: Annotated[str, typer.Argument(help="The id of an entity.")], kb: Kb = "starter", as_json: AsJson = False
) -> None:
    """Print one entity with its texts and triples."""
    from localmel.kb.locate import open_kb
    from localmel.kb.texts import texts_of

    ensure_starter(kb)
    base = open_kb(kb)
    entity, triples = base.entity(entity_id), base.kb_triples(entity_id)
    texts = texts_of(base, entity_id)
    if as_json:
        facts = [{key: value for key, value in asdict(triple).items() if key != "row"} for triple in triples]
        print_json({**asdict(entity), "texts": [asdict(text) for text in texts], "triples": facts})
        return
    rows = [
        ("id", entity.id),
        ("label", entity.label),
        ("description", entity.description),
        ("aliases", " | ".join(entity.aliases)),
        *((kb_texts.heading_of(text), text.text) for text in texts),
    ]
    print_table(
        ("", ""), [*rows, *((triple.relation, f"{triple.tail} {triple.tail_id}".strip()) for triple in triples)]
    )


@app.command()
def export(
    name: KbArgument,
    folder: Annotated[Path, typer.Argument(help="Where entities.jsonl and triples.tsv are written.")],
    as_json: AsJson = False,
) -> None:
    """Write a KB as entities.jsonl and triples.tsv, the form that `build` reads."""
    from localmel.kb.export import export_kb
    from localmel.kb.locate import open_kb

    ensure_starter(name)
    with progress_bar():
        written = export_kb(open_kb(name), folder)
    _tell(written, f"written to {folder}:", as_json, None)


def index_command(
    name: KbArgument,
    profile: Annotated[
        str, typer.Option("--profile", help="Profile whose encoder and matcher the vectors are for.")
    ] = "embedded",
    index: Annotated[str, typer.Option("--index", help="Kind of index: scan, int8, hnsw-axes, ...")] = "",
    matcher: Annotated[
        str, typer.Option("--matcher", help="Prepare for a matcher: its kind (m3el) or the folder of a trained one.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Encode the new entities of a KB, and build their vectors and the index over them."""
    done = _index(name, profile, index, matcher)
    if as_json:
        found = asdict(done.recall) if done.recall else None
        print_json({"kb": name, "encoded": done.encoded, "index": found, "matcher": matcher or None})
        return
    made = f"ready for {matcher}" if matcher else "the index is up to date"
    print(f"kb {name}: {done.encoded:,} texts{' and pictures' if matcher else ''} encoded, {made}")
    if done.recall:
        print(f"built the index of kind {index or 'auto'}, {done.recall} of the KB's own vectors")


def _import(
    name: str,
    files: tuple[Path | None, Path | None, Path | None, Path | None, Path | None],
    dataset: str | None,
    language: list[str] | None,
    of_class: list[str] | None,
    skip_bad: bool,
    vectors: bool,
    as_json: bool,
    change: Callable[[Any, Any], Changed],
) -> None:
    from localmel.kb.importers import Problems

    problems = Problems(on_problem=print_problem if skip_bad else None)
    with progress_bar():
        source = source_from(*files, dataset=dataset, languages=language, classes=of_class, problems=problems)
        begin("reading", source.total_bytes)
        try:
            changed = change(source, problems)
        finally:  # also when nothing was left to import: the reasons say why
            for reason, times in getattr(source, "left_out", {}).items():
                print_note(f"left out, {reason}: {times:,}")
    try:
        encoded = _index(name).encoded if vectors else None
    except KeyboardInterrupt:
        print_note(f"the KB is complete but not indexed yet; continue with: {shell_line('localmel index', name)}")
        raise
    _tell(changed, "imported", as_json, encoded)


def _index(name: str, profile: str = "embedded", index: str = "", matcher: str = "") -> Indexed:
    from localmel.kb.locate import open_kb
    from localmel.retrieve.profile_models import index_for
    from localmel.settings import load_profile

    chosen = load_profile(profile)
    wanted = matcher or chosen.retrieve.matcher
    with open_kb(name) as kb, progress_bar():
        return index_for(kb, chosen, wanted, index or chosen.retrieve.index)


def ensure_starter(name: str | None) -> None:
    """Build and index the starter KB if it is named and does not exist yet."""
    if name in (None, "starter"):
        from localmel.retrieve.profile_models import open_models, ready_for
        from localmel.settings import load_profile

        profile = load_profile("embedded")
        models = open_models(profile)
        with progress_bar():
            ready_for("starter", models, profile).close()


def _facts_or_error(name: str) -> dict[str, Any]:
    """Return the facts of a KB, or its error, so that one damaged KB does not hide the others."""
    from localmel.kb.locate import open_kb

    try:
        return asdict(open_kb(name).facts())
    except LocalmelError as error:
        return {"name": name, "error": error.fact}


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _tell(changed: Changed, verb: str, as_json: bool, encoded: int | None) -> None:
    if as_json:
        print_json({**asdict(changed), "encoded": encoded})
        return
    print(f"{verb} {changed.entities:,} entities and {changed.triples:,} triples")
    if changed.problems:
        print(f"{changed.problems:,} lines were left out (see above)")
    if encoded is not None:
        print(f"{encoded:,} texts encoded, the index is up to date")
