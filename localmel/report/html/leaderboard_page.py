"""All runs of a folder as one HTML file.

In: a Leaderboard.  Out: a page without figures and without script, under the same rules as the other one."""

from __future__ import annotations

from localmel.report.html.page import render
from localmel.report.html.svg import Styles
from localmel.report.leaderboard import WORDS, Leaderboard, commands_of, published_table, tables_of
from localmel.report.published import REASONS


def leaderboard_page(board: Leaderboard) -> str:
    """The page."""
    values = {
        "title": "Runs",
        "kicker": "",
        "tables": tables_of(board),
        "words": WORDS,
        "commands": commands_of(board),
        "unreadable": board.unreadable,
        "published": published_table(),
        "reasons": REASONS,
    }
    return render("leaderboard.html.j2", values, Styles())
