"""Runs as tables: newest first, what was asked alike marked so, and published figures never in one column with ours."""

from __future__ import annotations

import json
from typing import Any

from localmel.evaluate.resamples import Estimate
from localmel.report.leaderboard import (
    DATASETS,
    PUBLISHED,
    REASONS,
    Leaderboard,
    LeaderboardRow,
    as_json,
    as_markdown,
    commands_of,
    published_table,
    tables_of,
)


def row(run: str, **given: Any) -> LeaderboardRow:
    values = {
        "written": "2026-11-21 16:51", "dataset": "wikimel", "split": "val", "system": "linker", "withheld": "nothing",
        "asked": "one", "k": 16, "n": 2083, "mentions_per_second": 34.9, "command": f"localmel eval {run}",
        "metrics": {
            "hits@1": Estimate(value=0.871, low=0.856, high=0.885, n=2082),
            "recall@16": Estimate(value=0.989, low=0.984, high=0.993, n=2082),
        },
    }  # fmt: skip
    return LeaderboardRow(run=run, **{**values, **given})


BOARD = Leaderboard(
    rows=(
        row("new"),
        row("other kb", asked="two", mentions_per_second=None),
        row("other data", dataset="wikidiverse"),
        row("old", k=8, asked="three", metrics={"recall@8": Estimate(value=0.9, low=None, high=None, n=5)}),
    ),
    unreadable=("runs/broken is damaged | <b>",),
)


def test_rows_stay_in_order_and_say_who_was_asked_alike() -> None:
    wikimel, wikidiverse = tables_of(BOARD)
    assert (wikimel.title, wikidiverse.title) == ("wikimel, val", "wikidiverse, val")
    assert [line[0] for line in wikimel.rows] == ["new", "other kb", "old"]
    place = wikimel.head.index("set")
    assert [line[place] for line in wikimel.rows] == ["A", "B", "C"]
    cells = dict(zip(wikimel.head, wikimel.rows[0], strict=True))
    assert (cells["HITS@1"], cells["mentions/s"], cells["mentions"]) == ("0.871 [0.856, 0.885]", "34.9", "2,083")
    last = dict(zip(wikimel.head, wikimel.rows[2], strict=True))
    assert (last["HITS@1"], last["recall@K"]) == ("–", "0.900")
    assert dict(zip(wikimel.head, wikimel.rows[1], strict=True))["mentions/s"] == "–"


def test_a_terminal_gets_less() -> None:
    brief = tables_of(BOARD, brief=True)[0]
    cells = dict(zip(brief.head, brief.rows[0], strict=True))
    assert (cells["HITS@1"], cells["recall@K"]) == ("0.871 [0.856, 0.885]", "0.989")


def test_every_run_has_its_command() -> None:
    assert list(commands_of(BOARD)) == ["new", "other kb", "other data", "old"]
    assert "`localmel eval new`" in as_markdown(BOARD)


def test_published_figures_stand_apart_with_source_and_reasons() -> None:
    ours, theirs = as_markdown(BOARD).split("## Published figures, not comparable with the rows above")
    for one in PUBLISHED:
        assert one.method not in ours
        assert f"{one.hits_at_1[2]:.2f}" in theirs
    assert all(reason[:30] in theirs for reason in REASONS)
    assert len(published_table().rows) == len(PUBLISHED)
    for one in PUBLISHED:
        assert one.source
        assert len(one.hits_at_1) == len(DATASETS)
        assert all(value is None or 30 < value < 100 for value in one.hits_at_1)


def test_json_says_that_they_are_not_comparable() -> None:
    found = as_json(BOARD)
    assert json.loads(json.dumps(found, allow_nan=False))["published"]["comparable"] is False
    assert [one["run"] for one in found["rows"]] == ["new", "other kb", "other data", "old"]
    assert found["rows"][0]["metrics"]["hits@1"]["value"] == 0.871


def test_what_could_not_be_read_is_named_without_markup() -> None:
    assert "- runs/broken is damaged \\| \\<b\\>" in as_markdown(BOARD)


def test_a_folder_without_a_finished_run_says_so() -> None:
    assert "There is no finished run." in as_markdown(Leaderboard(rows=(), unreadable=("x",)))
