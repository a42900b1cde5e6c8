"""`localmel retrieve`: the mentions of a run and a KB -> candidates, best first, with the probability of NIL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.command_line import command_line
from localmel.cli.output import print_json, print_note, print_table, printable, progress_bar

if TYPE_CHECKING:
    from localmel.runs.folder import Stage
    from localmel.runs.retrieve import Asked

_COUNTS = {
    "mentions": "mentions",
    "with_triples": "with triples",
    "candidates": "candidates",
    "without_candidates": "mentions without any",
    "pictures_not_read": "pictures that could not be read",
}
"Figures of the manifest, in the order and the words in which they are printed."


def retrieve_command(
    data: Annotated[Path, typer.Argument(help="A file of JSON lines, or a benchmark folder.")],
    run: Annotated[str, typer.Option("--run", help="Name of the run: runs/NAME here, or a path with a /.")],
    kb: Annotated[str, typer.Option("--kb", help="Name or path of the KB.")],
    profile: Annotated[str, typer.Option("--profile", help="Whose encoder, network and scorer do it.")] = "paper",
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Of a folder: train, val or test (repeatable); else val.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Which dataset, where there are several.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only the first mentions; 0 takes all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False,
) -> None:
    """Rank the candidates of every mention, with what `localmel generate` said of it in the same run."""
    from localmel.runs.retrieve import Asked

    asked = Asked(splits=tuple(dict.fromkeys(split or ())), dataset=dataset, limit=limit)
    stage = _retrieved(data, asked, run, kb, profile)
    if (stage.folder.parent / "generate").is_dir() and not _asks_a_model(profile):
        print_note(f"profile {profile} asks no model: what localmel generate said in this run is not used")
    if not stage.made:
        print_note(f"nothing to do: {stage.folder} holds the candidates of these mentions")
    figures = stage.manifest["figures"]
    if as_json:
        print_json({"folder": str(stage.folder), "made": stage.made, "seconds": stage.manifest["seconds"], **figures})
        return
    rows = [(words, f"{figures[name]:,}") for name, words in _COUNTS.items()]
    took = "seconds" if stage.made else "seconds it took when it was made"
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
