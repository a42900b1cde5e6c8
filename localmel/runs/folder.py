"""Keep the folder of a run: one sealed folder per stage, made once, and a journal that survives a killed process.

    runs/NAME/generate/                 the output of a stage; manifest.json is written last
    runs/NAME/journals/generate.jsonl   every answer of its model

In: what a stage is made from, and a function that makes it.  Out: its folder and manifest.  Nothing is made twice from
the same inputs, and a folder made from others is refused, never replaced.  Knows no stage by name."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from localmel.errors import BadInput, CorruptArtifact, UsageError, shell_line
from localmel.store import progress
from localmel.store.artifacts import failed_writes_are_reported, new_folder, read_manifest
from localmel.store.journal import Journal

VERSION = 1
RUNS = Path("runs")
_LONGEST_NAME = 100
Json = dict[str, Any]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A finished stage."""

    folder: Path
    manifest: Mapping[str, Any]
    "`made_from`, `figures` (what it cost), `versions`, `seconds`, `command`, and a hash of every file."
    made: bool
    "False: the folder existed already, made from the same inputs."


def run_folder(name: str) -> Path:
    """Return `runs/NAME` below the current folder, or the path itself if `name` contains a / before its end.

    Raises UsageError for an impossible name, BadInput if the place is taken by something that is not a folder."""
    plain = name.rstrip("/")
    if not plain.strip() or plain in (".", "..") or "\0" in plain or len(Path(plain).name) > _LONGEST_NAME:
        raise UsageError(f"{name!r:.120} cannot name a run", hint="--run first")
    try:
        folder = Path(plain).expanduser() if "/" in plain else RUNS / plain
        is_taken = folder.exists() and not folder.is_dir()
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{name!r} cannot be the folder of a run ({why})", hint="choose another --run") from None
    if is_taken:
        raise BadInput(f"cannot use {folder} for a run: it is not a folder", hint="choose another --run")
    return folder


def typed(run: Path) -> str:
    """Return what a user types after `--run` for this folder."""
    return run.name if run.parent == RUNS else str(run) if "/" in str(run) else f"./{run}"


def journal_of(run: Path, stage: str) -> Path:
    """Return the path of a stage's journal, which exists before the stage is finished and after it is deleted."""
    return run / "journals" / f"{stage}.jsonl"


@contextmanager
def open_journal(run: Path, stage: str) -> Iterator[Journal]:
    """Open the journal of a stage, and report damage in it and answers that earlier runs left.  Raises JournalBusy."""
    with Journal(journal_of(run, stage)) as journal:
        if journal.note:
            progress.note(journal.note)
        if len(journal):
            progress.note(f"going on: {len(journal):,} answers of earlier runs are in {journal.path}")
        yield journal


def make_stage(
    run: Path,
    stage: str,
    make: Callable[[Path], Mapping[str, Any]],
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    command: str = "",
    is_enough: Callable[[Mapping[str, Any]], bool] = lambda _: True,
) -> Stage:
    """Return a stage of this run, made now unless it exists already.

    `make` fills the folder it is given and returns figures for the manifest; if it raises, the run stays as it was.
    `settings` and `inputs` (hashes) identify the stage; an identical one is made again only if `is_enough` rejects its
    manifest.  Raises BadInput if the run holds another such stage, CorruptArtifact if the folder is damaged."""
    made_from = {"settings": settings, "inputs": inputs, "localmel": version("localmel")}
    folder = run / stage
    stored = sealed_before(
        folder,
        made_from,
        kind=stage,
        again=again_of(folder, stage),
        instead=f"choose another --run, or {shell_line('rm -r', folder)}",
    )
    if stored and is_enough(stored):
        return Stage(folder=folder, manifest=stored, made=False)
    facts: Json = {"made_from": made_from, "command": command, "versions": versions()}
    started = time.perf_counter()
    with new_folder(folder, kind=stage, version=VERSION, facts=facts) as temporary:
        facts["figures"] = dict(make(temporary))
        facts["seconds"] = round(time.perf_counter() - started, 2)
    return Stage(folder=folder, manifest=read_manifest(folder, kind=stage, version=VERSION), made=True)


def finished_stage(run: Path, stage: str) -> Stage:
    """Return a stage that an earlier command made, with every byte checked.  Raises BadInput if it does not exist."""
    folder = run / stage
    if not folder.is_dir():
        raise BadInput(
            f"{run} has no finished stage {stage!r}", hint=shell_line(f"localmel {stage} DATA --run", typed(run))
        )
    return Stage(folder=folder, manifest=_checked(folder, stage, again_of(folder, stage)), made=False)


def sealed_before(
    folder: Path, made_from: Mapping[str, Any], *, kind: str, again: str, instead: str, key: str = "made_from"
) -> Json | None:
    """Return the manifest of a folder sealed earlier from exactly `made_from`; None if there is no such folder.

    `key` is where the manifest keeps what it was made from.  Raises CorruptArtifact with the hint `again` for a damaged
    folder, and BadInput with the hint `instead` for one made from something else."""
    if not folder.exists() and not folder.is_symlink():
        return None
    manifest = _checked(folder, kind, again)
    if not isinstance(manifest.get(key), dict):
        raise CorruptArtifact(f"the manifest of {folder} does not say what it was made from", hint=again)
    differ = [name for name, _, _ in differences(manifest.get(key), json.loads(json.dumps(made_from)))]
    if differ:
        shown = ", ".join(differ)
        raise BadInput(f"{folder} was made from something else: it differs in {shown}", hint=instead)
    return manifest


def differences(before: object, now: object, name: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield the dotted name of every value that differs (`settings.model.weights`), with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*now, *before)):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif before != now:
        yield name or "everything", before, now


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, localmel and these packages, for a manifest."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("localmel", *packages)}}


def read_lines(path: Path, read: Callable[[Json], _T], *, again: str) -> Iterator[_T]:
    """Read a file of JSON lines.  Raises CorruptArtifact with the line number and the hint `again`."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                one = read(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                what = f"{error} is missing" if isinstance(error, KeyError) else error
                raise CorruptArtifact(f"cannot read {path}:{number}: {what}", hint=again) from None
            yield one


def write_texts(folder: Path, texts: Mapping[str, str | Iterable[str]]) -> None:
    """Write the files of a report: name -> text, or lines that end in a newline."""
    with failed_writes_are_reported(folder):
        for name, text in texts.items():
            with (folder / name).open("w", encoding="utf-8") as file:
                file.writelines([text] if isinstance(text, str) else text)


def json_text(value: object) -> str:
    """Return a report as it is written to disk: indented, a newline at the end; refuses NaN."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def again_of(folder: Path, stage: str) -> str:
    """Return the command that makes a damaged stage again."""
    return shell_line("rm -r", folder, note=f"then run localmel {stage} again; its journal keeps the answers")


def _checked(folder: Path, kind: str, again: str) -> Json:
    try:
        return read_manifest(folder, kind=kind, version=VERSION, every_byte=True)
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=again) from None
    except OSError as error:
        raise CorruptArtifact(f"{folder} is not finished ({error})", hint=again) from None
