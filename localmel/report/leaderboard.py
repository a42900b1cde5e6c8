"""All runs of a folder as tables, newest first, each row with the command that repeats it; and published figures.

In: rows of finished runs.  Out: tables, Markdown and JSON.  Rows that answered different questions are marked as
different sets; published figures have a table of their own, with their sources.  Ranks and tests nothing: that is what
`localmel compare` is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from localmel.evaluate.resamples import Estimate
from localmel.report.tables import DASH, METRICS, Table, bullets, code, plain, table_parts

FORMAT = 1
_BRIEF = ("hits@1", "mrr", "recall", "accuracy", "ece")
WORDS = (
    "HITS@1, MRR and recall are over mentions whose gold is in the KB, accuracy and ECE over all; [low, high]: 95% "
    "bootstrap over sentences. Rows of one set answered the same mentions over the same state of a KB with the same K; "
    "compare only these, with localmel compare RUN OTHER. Speed is that of the whole run, loading included, and is "
    "known only for runs with one system."
)

# --- published figures ------------------------------------------------------------------------------------------------

PUBLISHED_TITLE = "Published figures, not comparable with the rows above"
DATASETS = ("WikiMEL", "RichpediaMEL", "WikiDiverse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The published HITS@1 of one method; None where the source gives no figure."""

    method: str
    hits_at_1: tuple[float | None, float | None, float | None]
    "In percent, in the order of DATASETS."
    source: str


_MIMIC = "table in the repository of MIMIC (KDD 2023)"
_KGMEL = "online page of KGMEL (SIGIR 2025), after reranking"

PUBLISHED = (
    Published(method="KGMEL, GPT-4o-mini triples, GPT-3.5 reranker", hits_at_1=(90.58, 85.21, 88.23), source=_KGMEL),
    Published(method="KGMEL, LLaVA-1.6-7B triples", hits_at_1=(86.22, 81.94, 86.43), source=_KGMEL),
    Published(method="KGMEL, LLaVA-1.6-13B triples", hits_at_1=(85.96, 83.26, 85.94), source=_KGMEL),
    Published(
        method="KGMEL, retrieval only",
        hits_at_1=(87.29, 76.40, 82.12),
        source="online page of KGMEL (SIGIR 2025), mean of three runs",
    ),
    Published(method="MMoE", hits_at_1=(90.77, 85.51, 77.57), source="training logs in its repository (KDD 2025)"),
    Published(method="M3EL", hits_at_1=(88.84, 82.82, 74.06), source="training logs in its repository"),
    Published(
        method="OT-MEL",
        hits_at_1=(88.97, 83.30, 66.07),
        source="a secondary page on arXiv 2406.01934; not checked against the paper",
    ),
    Published(method="MIMIC", hits_at_1=(87.98, 81.02, 63.51), source=_MIMIC),
    Published(method="CLIP", hits_at_1=(83.23, 67.78, 61.21), source=_MIMIC),
    Published(method="ALBEF", hits_at_1=(78.64, 65.17, 60.59), source=_MIMIC),
    Published(method="GHMFC", hits_at_1=(76.55, 72.92, 60.27), source=_MIMIC),
    Published(method="BLINK", hits_at_1=(74.66, 58.47, 57.14), source=_MIMIC),
    Published(method="BERT", hits_at_1=(74.82, 59.55, 55.77), source=_MIMIC),
)

REASONS = (
    "KB: theirs hold 109,976 (WikiMEL), 160,935 (RichpediaMEL) and 132,460 (WikiDiverse) entities; a row above "
    "was evaluated on the KB that its run names.",
    "Split and selection: theirs are test figures. The published KGMEL code chooses its epoch, and when to stop, on "
    "the test split; localmel chooses on val.",
    "Counting: the KGMEL code counts mentions of one sentence with the same gold once in retrieval; after reranking an "
    "answer is right there when it merely contains the gold's label, even where the gold was not a candidate.",
    "Data: of 5,012 sentences of WikiMEL's test split 983 are also in its training split; localmel refuses such "
    "a split or leaves them out. MMoE and M3EL replaced files of the datasets with their own.",
)

# --- runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderboardRow:
    """One system of one run on one dataset."""

    run: str
    "Its folder, relative to the folder of the leaderboard."
    written: str
    "Time in UTC, to the minute."
    dataset: str
    split: str
    system: str
    withheld: str
    asked: str
    "Equal for rows with the same mentions, KB state, K, and treatment of golds outside the KB."
    k: int
    n: int
    metrics: Mapping[str, Estimate]
    mentions_per_second: float | None
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """The runs of a folder."""

    rows: tuple[LeaderboardRow, ...]
    "Newest first."
    unreadable: tuple[str, ...]
    "Runs that are unfinished or damaged, and why."


def tables_of(board: Leaderboard, *, brief: bool = False) -> list[Table]:
    """Return one table per dataset and split, in the order of their newest rows.

    brief: fewer metrics, and only HITS@1 with its interval, for a terminal."""
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
            *("run", "system", "ablations", "set"),
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
    """Return A, B, ... Z, AA, AB, ... by number."""
    text = ""
    while number >= 0:
        text, number = chr(ord("A") + number % 26) + text, number // 26 - 1
    return text


def published_table() -> Table:
    """List what others report, with the sources."""
    return Table(
        title=PUBLISHED_TITLE,
        head=("method", *(f"{name}, HITS@1 in %" for name in DATASETS), "source"),
        rows=tuple(
            (one.method, *(DASH if value is None else f"{value:.2f}" for value in one.hits_at_1), one.source)
            for one in PUBLISHED
        ),
    )


def commands_of(board: Leaderboard) -> dict[str, str]:
    """Map each run to its command, newest first; runs that record none are left out."""
    return {row.run: row.command for row in board.rows if row.command}


def as_markdown(board: Leaderboard) -> str:
    """Write the leaderboard as a Markdown page."""
    parts = ["# Runs"]
    for table in tables_of(board):
        parts += table_parts(table, level=2)
    parts += [WORDS] if board.rows else ["There is no finished run."]
    parts += ["## Commands", bullets(f"{plain(run)}: `{code(line)}`" for run, line in commands_of(board).items())]
    if board.unreadable:
        parts += ["## Left out", bullets(map(plain, board.unreadable))]
    parts += table_parts(published_table(), level=2)
    parts += ["Why they cannot be compared:", bullets(map(plain, REASONS))]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(board: Leaderboard) -> dict[str, Any]:
    """Return the leaderboard for programs; published figures have a key of their own."""
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
