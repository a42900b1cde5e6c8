"""`localmel generate`: ask a vision-language model about every mention of a benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.options import (
    Again,
    AllowRemote,
    AsJson,
    AtOnce,
    Device,
    EngineName,
    Limit,
    MentionsArgument,
    OneDataset,
    Quantization,
    RunName,
    Splits,
    Url,
    Weights,
    command_line,
    given,
    model_options,
    with_options,
)
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
    "unparsed": "answers that could not be read",
    "unanswered": "of these, no answer at all",
    "triples": "triples",
    "sentences_cut": "sentences shortened to fit",
    "without_picture": "asked without the picture",
    "answers_cut_off": "answers cut off",
    "answers": "answers",
    "answers_now": "of these, given now",
    "failed": "failed requests",
    "prompt_tokens_per_mention": "prompt tokens per mention",
    "image_tokens_per_mention": "of these, for pictures",
}
"Figures of the manifest in the order in which they are printed, with their headings."
_OF_THIS_PROCESS = {
    "answers_per_second": "answers per second",
    "peak_memory_bytes": "peak memory of the model, bytes",
    "seconds": "seconds",
}
"Figures that describe this process only, so they mean nothing for a run that was already finished."


def generate_command(
    data: MentionsArgument,
    run: RunName,
    profile: Annotated[str, typer.Option("--profile", help="Profile whose vision-language model is asked.")] = "paper",
    split: Splits = None,
    dataset: OneDataset = None,
    again: Again = False,
    limit: Limit = 0,
    answer_format: Annotated[
        str | None,
        typer.Option("--format", help="json (constrained by a schema) or line (the three steps of the paper)."),
    ] = None,
    engine: EngineName = None,
    weights: Weights = None,
    quantization: Quantization = None,
    device: Device = None,
    url: Url = None,
    allow_remote: AllowRemote = False,
    at_once: AtOnce = None,
    as_json: AsJson = False,
) -> None:
    """Let a vision-language model describe every mention; run it again to resume after an interruption."""
    from localmel.runs.folder import run_folder
    from localmel.runs.questions import mentions_from

    model = model_options(engine, weights, quantization, device, url, allow_remote, at_once)
    settings = _settings(profile, {"format": answer_format}, model)
    folder = run_folder(run)
    mentions = mentions_from(data, split or (), dataset, most=limit)
    stage = _generated(mentions, settings, folder, again=again)
    figures = figures_now(stage)
    if not stage.made:
        print_note(f"nothing to do: {stage.folder} already has descriptions of these mentions; no request was sent")
    if unanswered := figures["unanswered"]:
        print_note(unanswered_note(unanswered))
    if as_json:
        print_json({"folder": str(stage.folder), "made": stage.made, **figures})
    else:
        _print_stage(stage, figures)


def _settings(profile: str, own: dict[str, Any], model: dict[str, Any]) -> GenerateSettings:
    """Return the settings of the profile with the given options in their place."""
    from localmel.settings import load_profile

    settings = with_options(load_profile(profile).generate, given(own), model, where="--format")
    if model:
        settings = replace(settings, backend="vlm")
    if settings.backend != "vlm" or not settings.model.engine:
        fact = f"profile {profile!r} asks no model for triples"
        raise UsageError(fact, hint="--profile paper, or --engine and --engine-weights")
    return settings


def _generated(mentions: tuple[Mention, ...], settings: GenerateSettings, folder: Path, *, again: bool) -> Stage:
    from localmel.engines.open import open_model
    from localmel.runs.folder import journal_of
    from localmel.runs.generate import GENERATE, generate_stage

    try:
        with open_model(settings.model) as engine, progress_bar():
            return generate_stage(mentions, settings, engine, folder, again=again, command=command_line())
    except KeyboardInterrupt:
        print_note(f"run the same command to resume; the answers so far: {journal_of(folder, GENERATE)}")
        raise


def figures_now(stage: Stage) -> dict[str, Any]:
    """Return the figures of a stage with its seconds; a stage that was already finished gave no answers now."""
    figures = {"seconds": stage.manifest["seconds"], **stage.manifest["figures"]}
    return figures if stage.made else {**figures, "answers_now": 0, "answers_per_second": 0.0, "load_seconds": 0.0}


def unanswered_note(number: int) -> str:
    """Return the sentence that says how to ask again about mentions without an answer."""
    return f"{counted(number, 'mention')} had no answer; add --again to the same command to ask again"


def _print_stage(stage: Stage, figures: dict[str, Any]) -> None:
    words = {**_COUNTS, **(_OF_THIS_PROCESS if stage.made else {"seconds": "seconds it took"})}
    print_table(("", ""), [(said, f"{figures[name]:,}") for name, said in words.items() if name in figures])
    print(printable(f"descriptions and unreadable answers are in {stage.folder}"))
