"""List all finished runs of a folder: what `localmel report FOLDER` prints.

In: a folder.  Out: a Leaderboard; with `out` also as Markdown, JSON and one HTML file, which are rewritten each time.
Unfinished or damaged runs are listed as such and stop nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, MissingExtra
from localmel.evaluate.resamples import Estimate
from localmel.report.leaderboard import Leaderboard, LeaderboardRow, as_json, as_markdown
from localmel.runs.evaluate import REPORT
from localmel.runs.finished_runs import FinishedRun, find_runs
from localmel.runs.folder import VERSION, json_text, write_texts
from localmel.store.artifacts import MANIFEST, new_folder, read_manifest

KIND = "leaderboard"
JSON, MARKDOWN, HTML = "runs.json", "runs.md", "runs.html"


def leaderboard_of(folder: Path) -> Leaderboard:
    """List the runs, newest first.  Raises BadInput if there is no such folder, or no run in it."""
    runs, problems = find_runs(folder)
    rows: list[LeaderboardRow] = []
    unreadable = [problem.fact for problem in problems]
    for run in runs:
        try:
            rows += _rows(run, folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            unreadable.append(f"{run.folder} has a report that cannot be read ({error!r})")
    if not rows and not unreadable:
        raise BadInput(f"{folder} holds no runs", hint="localmel eval DATA --kb KB --out runs/NAME")
    return Leaderboard(rows=tuple(rows), unreadable=tuple(unreadable))


def write_leaderboard(board: Leaderboard, out: Path) -> None:
    """Write three files to `out`, replacing an earlier leaderboard; anything else there is refused."""
    if find_spec("jinja2") is None:
        raise MissingExtra("the page of runs needs jinja2", hint="pip install 'localmel[compare]'")
    from localmel.report.html.pages import leaderboard_page

    if (out.exists() or out.is_symlink()) and not _ours(out):
        raise BadInput(f"cannot write to {out}: it holds something else", hint="--out reports/runs")
    with new_folder(out, kind=KIND, version=VERSION, facts={}) as folder:
        page = leaderboard_page(board)
        write_texts(folder, {JSON: json_text(as_json(board)), MARKDOWN: as_markdown(board), HTML: page})


def _ours(out: Path) -> bool:
    if out.is_dir() and not any(out.iterdir()):
        return True
    if not (out / MANIFEST).is_file():
        return False
    read_manifest(out, kind=KIND, version=VERSION)  # raises if it is something else
    return True


def _rows(run: FinishedRun, folder: Path) -> Iterator[LeaderboardRow]:
    report = json.loads((run.stage / REPORT).read_text(encoding="utf-8"))
    settings = run.settings
    alone = len(settings["systems"]) == 1
    counts = {name: found["systems"] for name, found in report["datasets"].items()}
    n_answers = sum(systems[settings["systems"][0]]["slices"]["all"]["n"] for systems in counts.values())
    seconds = run.manifest.get("seconds")
    for dataset, systems in counts.items():
        for system in settings["systems"]:
            whole = systems[system]["slices"]["all"]
            yield LeaderboardRow(
                run=_seen_from(run, folder),
                written=datetime.fromtimestamp(run.written, UTC).strftime("%Y-%m-%d %H:%M"),
                dataset=dataset,
                split=str(settings["split"]),
                system=system,
                withheld=", ".join(settings["without"]) or "nothing",
                asked=json.dumps([run.inputs["questions"][dataset], run.inputs["kb_fingerprint"]])
                + json.dumps([settings["k"], settings["gold_outside"]]),
                k=int(settings["k"]),
                n=int(whole["n"]),
                metrics={name: _estimate(found) for name, found in whole["metrics"].items() if found is not None},
                mentions_per_second=n_answers / float(seconds) if alone and seconds else None,
                command=run.command,
            )


def _seen_from(run: FinishedRun, folder: Path) -> str:
    place = run.stage.parent
    try:
        return str(place.relative_to(folder)) if place != folder else folder.resolve().name
    except ValueError:
        return str(place)


def _estimate(found: Mapping[str, Any]) -> Estimate:
    return Estimate(value=float(found["value"]), low=found["low"], high=found["high"], n=int(found["n"]))
