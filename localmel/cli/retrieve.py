"""`localmel retrieve`: the mentions of a run and a KB -> candidates, best first, with the probability of NIL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.options import AsJson, Limit, MentionsArgument, OneDataset, RunName, Splits, command_line
from localmel.cli.output import print_json, print_note, print_table, printable, progress_bar

if TYPE_CHECKING:
    from localmel.runs.folder import Stage
    from localmel.runs.retrieve import Asked

_COUNTS = {
    "mentions": "mentions",
    "with_triples": "with triples",
    "candidates": "candidates",
    "without_candidates": "mentions without candidates",
    "pictures_not_read": "pictures that could not be read",
}
"Figures of the manifest in the order in which they are printed, with their headings."


def retrieve_command(
    data: MentionsArgument,
    run: RunName,
    kb: Annotated[str, typer.Option("--kb", help="Name or path of the KB.")],
    profile: Annotated[
        str, typer.Option("--profile", help="Profile whose encoder, network and scorer are used.")
    ] = "paper",
    split: Splits = None,
    dataset: OneDataset = None,
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """Rank the candidates of every mention, using the triples that `localmel generate` wrote in the same run."""
    from localmel.runs.retrieve import Asked

    asked = Asked(splits=tuple(dict.fromkeys(split or ())), dataset=dataset, limit=limit)
    stage = _retrieved(data, asked, run, kb, profile)
    if (stage.folder.parent / "generate").is_dir() and not _asks_a_model(profile):
        print_note(f"profile {profile} asks no model, so the answers of localmel generate in this run are not used")
    if not stage.made:
        print_note(f"nothing to do: {stage.folder} already has the candidates of these mentions")
    figures = stage.manifest["figures"]
    if as_json:
        print_json({"folder": str(stage.folder), "made": stage.made, "seconds": stage.manifest["seconds"], **figures})
        return
    rows = [(words, f"{figures[name]:,}") for name, words in _COUNTS.items()]
    took = "seconds" if stage.made else "seconds it took"
    print_table(("", ""), [*rows, (took, f"{stage.manifest['seconds']:,}")])
    print(printable(f"rankings are in {stage.folder}"))


def _asks_a_model(profile: str) -> bool:
    from localmel.settings import load_profile

    return load_profile(profile).generate.backend == "vlm"


def _retrieved(data: Path, asked: Asked, run: str, kb: str, profile: str) -> Stage:
    from localmel.cli.kb import ensure_starter
    from localmel.kb.locate import open_kb
    from localmel.runs.folder import run_folder
    from localmel.runs.questions import mentions_from
    from localmel.runs.retrieve import retrieve_stage
    from localmel.settings import load_profile

    settings, folder = load_profile(profile), run_folder(run)
    mentions = mentions_from(data, asked.splits, asked.dataset, most=asked.limit)
    ensure_starter(kb)
    with open_kb(kb) as base, progress_bar():
        return retrieve_stage(mentions, asked, base, settings, folder, command=command_line())
