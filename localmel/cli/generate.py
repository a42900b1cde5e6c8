"""`localmel generate`: benchmark mentions and a vision-language model -> what the model says of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.command_line import command_line
from localmel.cli.model_arguments import AtOnce, Device, EngineName, Quantization, Url, Weights
from localmel.cli.output import counted, print_json, print_note, print_table, printable, progress_bar
from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.records import Mention
    from localmel.runs.folder import Stage
    from localmel.settings import GenerateSettings

_COUNTS = {
    "mentions": "mentions",
    "sentences": "sentences with their pictures",
    "described": "described",
    "unparsed": "nothing could be read of",
    "unanswered": "of these without an answer",
    "triples": "triples",
    "sentences_cut": "sentence cut to fit",
    "without_picture": "asked without their picture",
    "answers_cut_off": "answer cut off",
    "answers": "answers",
    "answers_now": "of these given now",
    "failed": "requests that failed",
    "prompt_tokens_per_mention": "prompt tokens per mention",
    "image_tokens_per_mention": "of these for pictures",
}
"Figures of the manifest, in the order and the words in which they are printed."
_OF_THIS_PROCESS = {
    "answers_per_second": "answers per second",
    "peak_memory_bytes": "peak memory of the model, bytes",
    "seconds": "seconds",
}
"Those that say nothing of a run that was finished before."


def generate_command(
    data: Annotated[Path, typer.Argument(help="A file of JSON lines, or a benchmark folder.")],
    run: Annotated[str, typer.Option("--run", help="Name of the run: runs/NAME here, or a path with a /.")],
    profile: Annotated[str, typer.Option("--profile", help="Whose vision-language model is asked.")] = "paper",
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Of a folder: train, val or test (repeatable); else val.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Which dataset, where there are several.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Of a finished run, ask about the mentions that had no answer once more.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only the first mentions; 0 takes all.")] = 0,
    answer_format: Annotated[
        str | None, typer.Option("--format", help="json: under a schema.  line: the three steps of the paper.")
    ] = None,
    engine: EngineName = None,
    weights: Weights = None,
    quantization: Quantization = None,
    device: Device = None,
    url: Url = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let pictures and texts leave this machine (engine server).")
    ] = False,
    at_once: AtOnce = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False,
) -> None:
    """Let a vision-language model describe every mention; the same command goes on where it was interrupted."""
    from localmel.runs.folder import run_folder
    from localmel.runs.questions import mentions_from

    model = {
        "engine": engine,
        "weights": weights,
        "quantization": quantization,
        "device": device,
        "url": url,
        "allow_remote": allow_remote or None,
        "at_once": at_once,
    }
    settings = _settings(profile, {"format": answer_format}, model)
    folder = run_folder(run)
    mentions = mentions_from(data, split or (), dataset, most=limit)
    stage = _generated(mentions, settings, folder, again=again)
    figures = figures_now(stage)
    if not stage.made:
        print_note(f"nothing to do: {stage.folder} holds the descriptions of these mentions; nothing was sent")
    if unanswered := figures["unanswered"]:
        print_note(unanswered_note(unanswered))
    if as_json:
        print_json({"folder": str(stage.folder), "made": stage.made, **figures})
    else:
        _print_stage(stage, figures)


def _settings(profile: str, own: dict[str, Any], model: dict[str, Any]) -> GenerateSettings:
    """The profile's, with what the options say in its place; checked as a profile is."""
    from localmel.cli.engine_options import check_url, given, with_options
    from localmel.settings import load_profile

    own, model = given(own), given(model)
    settings = with_options(load_profile(profile).generate, own, model, where="--format")
    if model:
        settings = replace(settings, backend="vlm")
    if settings.backend != "vlm" or not settings.model.engine:
        fact = f"profile {profile!r} asks no model for triples"
        raise UsageError(fact, hint="--profile paper, or --engine and --engine-weights")
    check_url(settings, model)
    return settings


def _generated(mentions: tuple[Mention, ...], settings: GenerateSettings, folder: Path, *, again: bool) -> Stage:
    from localmel.runs.folder import journal_of
    from localmel.runs.generate import GENERATE, generate_stage
    from localmel.weights.open import open_model

    try:
        with open_model(settings.model) as engine, progress_bar():
            return generate_stage(mentions, settings, engine, folder, again=again, command=command_line())
    except KeyboardInterrupt:
        print_note(f"the same command goes on where this one stopped; its answers: {journal_of(folder, GENERATE)}")
        raise


def figures_now(stage: Stage) -> dict[str, Any]:
    """The figures of a stage, with its seconds; of one that was finished before, this command gave no answer."""
    figures = {"seconds": stage.manifest["seconds"], **stage.manifest["figures"]}
    return figures if stage.made else {**figures, "answers_now": 0, "answers_per_second": 0.0, "load_seconds": 0.0}


def unanswered_note(number: int) -> str:
    """How to ask about these once more."""
    return f"{counted(number, 'mention')} had no answer; the same command with --again asks about them once more"


def _print_stage(stage: Stage, figures: dict[str, Any]) -> None:
    words = {**_COUNTS, **(_OF_THIS_PROCESS if stage.made else {"seconds": "seconds it took when it was made"})}
    print_table(("", ""), [(said, f"{figures[name]:,}") for name, said in words.items() if name in figures])
    print(printable(f"descriptions and what could not be read are in {stage.folder}"))
