"""`localmel report FOLDER`: list the finished runs below a folder, newest first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from localmel.cli.options import AsJson
from localmel.cli.output import print_json, print_note, print_table, printable


def report_command(
    folder: Annotated[Path, typer.Argument(help="A folder of runs, such as runs/.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for runs.html, runs.md and runs.json, rewritten each time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of a folder with their numbers and the commands that reproduce them."""
    from localmel.report import leaderboard
    from localmel.runs.leaderboard import leaderboard_of, write_leaderboard

    board = leaderboard_of(folder)
    if out:
        write_leaderboard(board, out)
        print_note(f"{out / 'runs.html'}")
    if as_json:
        print_json(leaderboard.as_json(board))
        return
    for table in leaderboard.tables_of(board, brief=True):
        print_table(table.head, table.rows, title=table.title)
    for run, command in leaderboard.commands_of(board).items():
        print(printable(f"{run}: {command}"))
    for line in board.unreadable:
        print_note(f"left out: {line}")
    published = leaderboard.published_table()
    print_table(published.head, published.rows, title=published.title)
