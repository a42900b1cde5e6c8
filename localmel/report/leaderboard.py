"""All runs of a folder as tables: newest first, each row with the command that makes it again.

In: rows of finished runs.  Out: tables, Markdown and JSON.  Rows that were not asked the same are marked as another
set; what others published stands by itself.  Ranks nothing and tests nothing: for that there is `localmel compare`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from localmel.evaluate.resamples import Estimate
from localmel.report.comparison_markdown import code, plain, table_parts
from localmel.report.comparison_tables import METRICS, Table
from localmel.report.published import DATASETS, PUBLISHED, REASONS, TITLE

FORMAT = 1
DASH = "–"
_BRIEF = ("hits@1", "mrr", "recall", "accuracy", "ece")
WORDS = (
    "HITS@1, MRR and recall are over mentions whose gold is in the KB, accuracy and ECE over all; [low, high]: 95% "
    "bootstrap over sentences. Rows of one set were asked the same mentions over the same state of a KB with the same "
    "K; only these may be held against each other, with localmel compare RUN OTHER. Speed is that of the whole run, "
    "loading included, and is only known where a run held one system."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderboardRow:
    """One system of one run on one dataset."""

    run: str
    "Its folder, seen from the folder of the leaderboard."
    written: str
    "When, in UTC, to the minute."
    dataset: str
    split: str
    system: str
    withheld: str
    asked: str
    "Equal for rows that were asked the same: mentions, KB state, K, and what becomes of golds outside the KB."
    k: int
    n: int
    metrics: Mapping[str, Estimate]
    mentions_per_second: float | None
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """What a folder of runs holds."""

    rows: tuple[LeaderboardRow, ...]
    "Newest first."
    unreadable: tuple[str, ...]
    "Runs that are not finished or damaged, and why."


def tables_of(board: Leaderboard, *, brief: bool = False) -> list[Table]:
    """One table for each dataset and split, in the order of their newest rows.  `brief`: fewer metrics, and of these
    only HITS@1 with its interval, for a terminal."""
    groups: dict[tuple[str, str], list[LeaderboardRow]] = {}
    for row in board.rows:
        groups.setdefault((row.dataset, row.split), []).append(row)
    return [_table(f"{dataset}, {split}", rows, brief=brief) for (dataset, split), rows in groups.items()]


def _table(title: str, rows: Sequence[LeaderboardRow], *, brief: bool) -> Table:
    letters: dict[str, str] = {}
    for row in rows:
        letters.setdefault(row.asked, _letter(len(letters)))
    named = _BRIEF if brief else tuple(METRICS)
    metrics = [name for name in named if any(_metric(row, name) is not None for row in rows)]
    return Table(
        title=title,
        head=(
            *("run", "system", "withheld", "set"),
            *(METRICS[name] for name in metrics),
            *("mentions/s", "mentions", "written (UTC)"),
        ),
        rows=tuple(
            (
                row.run,
                row.system,
                row.withheld,
                letters[row.asked],
                *(_cell(_metric(row, name), whole=name == "hits@1" or not brief) for name in metrics),
                DASH if row.mentions_per_second is None else f"{row.mentions_per_second:,.3g}",
                f"{row.n:,}",
                row.written,
            )
            for row in rows
        ),
    )


def _cell(one: Estimate | None, *, whole: bool) -> str:
    if one is None:
        return DASH
    return str(one) if whole else f"{one.value:.3f}"


def _metric(row: LeaderboardRow, name: str) -> Estimate | None:
    return row.metrics.get(f"recall@{row.k}" if name == "recall" else name)


def _letter(number: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    text = ""
    while number >= 0:
        text, number = chr(ord("A") + number % 26) + text, number // 26 - 1
    return text


def published_table() -> Table:
    """What others report, with its sources."""
    return Table(
        title=TITLE,
        head=("method", *(f"{name}, HITS@1 in %" for name in DATASETS), "source"),
        rows=tuple(
            (one.method, *(DASH if value is None else f"{value:.2f}" for value in one.hits_at_1), one.source)
            for one in PUBLISHED
        ),
    )


def commands_of(board: Leaderboard) -> dict[str, str]:
    """Run -> its command, newest first; of runs that say it."""
    return {row.run: row.command for row in board.rows if row.command}


def as_markdown(board: Leaderboard) -> str:
    """The whole page."""
    parts = ["# Runs"]
    for table in tables_of(board):
        parts += table_parts(table, level=2)
    parts += [WORDS] if board.rows else ["There is no finished run."]
    parts += ["## Commands", _list(f"{plain(run)}: `{code(line)}`" for run, line in commands_of(board).items())]
    if board.unreadable:
        parts += ["## Left out", _list(map(plain, board.unreadable))]
    parts += table_parts(published_table(), level=2)
    parts += ["Why they cannot be compared:", _list(map(plain, REASONS))]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(board: Leaderboard) -> dict[str, Any]:
    """For programs; the published figures are a key of their own."""
    return {
        "format": FORMAT,
        "rows": [asdict(row) for row in board.rows],
        "unreadable": list(board.unreadable),
        "published": {
            "comparable": False,
            "reasons": list(REASONS),
            "datasets": list(DATASETS),
            "rows": [asdict(one) for one in PUBLISHED],
        },
    }


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
