"""Options that several commands share, and what becomes of them.

In: what was typed.  Out: annotations for Typer; settings with the given options in place of the profile's, checked as a
profile is; the reader of an import; the command line as it is kept in manifests."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from localmel.errors import UsageError
from localmel.settings import EngineSettings, GenerateSettings, RerankSettings
from localmel.settings.checks import check_table

if TYPE_CHECKING:
    from localmel.kb.importers import KbSource, Problems

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value for programs.")]
Kb = Annotated[str, typer.Option("--kb", help="Name or path of a KB.")]
KbArgument = Annotated[str, typer.Argument(help="Name or path of a KB.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Report lines that cannot be used and import the rest.")]
RunName = Annotated[str, typer.Option("--run", help="Name of the run: runs/NAME in this folder, or a path with a /.")]
MentionsArgument = Annotated[Path, typer.Argument(help="A file of JSON lines, or a benchmark folder.")]
Splits = Annotated[
    list[str] | None, typer.Option("--split", help="For a folder: train, val or test (repeatable); default val.")
]
OneDataset = Annotated[str | None, typer.Option("--dataset", help="Which dataset, if there are several.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Take only the first mentions; 0 takes all.")]
Again = Annotated[bool, typer.Option("--again", help="In a finished run, ask again about mentions without an answer.")]
DropLeaked = Annotated[
    bool, typer.Option("--drop-leaked", help="Leave out mentions that are also in train, and report how many.")
]

# The model that a command asks, in place of the profile's.
EngineName = Annotated[
    str | None, typer.Option("--engine", help="vllm, transformers, server or scripted; default: the profile's.")
]
Weights = Annotated[
    str | None, typer.Option("--engine-weights", help="Name or path of the model; default: the profile's.")
]
Quantization = Annotated[
    str | None, typer.Option("--engine-quantization", help="4bit, 8bit, awq, gptq, compressed-tensors or fp8.")
]
Device = Annotated[str | None, typer.Option("--engine-device", help="auto, cuda or cpu.")]
Url = Annotated[str | None, typer.Option("--engine-url", help="Address of the server (engine server).")]
AllowRemote = Annotated[
    bool, typer.Option("--allow-remote", help="Let pictures and texts leave this machine (engine server).")
]
AtOnce = Annotated[int | None, typer.Option("--engine-at-once", help="How many requests run at the same time.")]

_SERVER_OPTIONS = {"url": "--engine-url", "allow_remote": "--allow-remote"}
_Stage = TypeVar("_Stage", GenerateSettings, RerankSettings)


def command_line() -> str:
    """Return the command that was typed as one line that can be pasted into a shell."""
    return shlex.join(["localmel", *sys.argv[1:]])


def model_options(
    engine: str | None,
    weights: str | None,
    quantization: str | None,
    device: str | None,
    url: str | None,
    allow_remote: bool,
    at_once: int | None,
) -> dict[str, Any]:
    """Return the options of the model that were given, by the names of `EngineSettings`."""
    own = {
        "engine": engine,
        "weights": weights,
        "quantization": quantization,
        "device": device,
        "url": url,
        "allow_remote": allow_remote or None,
        "at_once": at_once,
    }
    return given(own)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given; those that were not are None."""
    return {key: value for key, value in options.items() if value is not None}


def with_options(settings: _Stage, own: dict[str, Any], model: dict[str, Any], *, where: str) -> _Stage:
    """Return the settings of a stage with its own options and those of its model in place of the profile's.

    `where` names the options of the stage in errors.  Raises UsageError for a value that makes no sense, and for
    options of a server where no server is asked."""
    check_table(own, type(settings), where)
    check_table(model, EngineSettings, "--engine")
    chosen = replace(settings, **own, model=replace(settings.model, **model))
    wrong = [option for key, option in _SERVER_OPTIONS.items() if key in model]
    if wrong and chosen.model.engine and chosen.model.engine != "server":
        fact = f"{' and '.join(wrong)} applies to a server, but the engine is {chosen.model.engine!r}"
        raise UsageError(fact, hint="--engine server")
    return chosen


def source_from(
    entities: Path | None,
    triples: Path | None,
    wikidata: Path | None,
    ontology: Path | None,
    benchmark: Path | None,
    *,
    dataset: str | None,
    languages: list[str] | None,
    classes: list[str] | None,
    problems: Problems,
) -> KbSource:
    """Return the reader for the files that an import names.  Raises UsageError if they do not go together."""
    from localmel.kb.importers import OntologySource, TablesSource, WikidataSource

    forms = [bool(entities or triples), bool(wikidata), bool(ontology), bool(benchmark)]
    if sum(forms) != 1:
        raise UsageError(
            f"{sum(forms)} sources were given, but exactly one is needed: "
            "--entities with --triples, --wikidata, --ontology, or --benchmark",
            hint="localmel kb build --help",
        )
    if not wikidata and (languages or classes):
        raise UsageError("--language and --class go with --wikidata")
    if dataset and not benchmark:
        raise UsageError("--dataset goes with --benchmark")
    if wikidata:
        chosen = tuple(languages or ("en",))
        return WikidataSource(wikidata, languages=chosen, classes=set(classes) if classes else None, problems=problems)
    if benchmark:
        from localmel.benchmarks import benchmark_kb

        return benchmark_kb(benchmark, dataset, problems=problems)
    if ontology:
        return OntologySource(ontology, problems=problems)
    return TablesSource(entities=entities, triples=triples, problems=problems)
