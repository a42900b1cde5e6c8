"""The folder of a run: for each stage one sealed folder, made once, and a journal that outlives a killed process.

    runs/NAME/generate/                 what a stage made; manifest.json is written last
    runs/NAME/journals/generate.jsonl   every answer of its model

In: what a stage is made from, and a function that makes it.  Out: its folder and manifest.  The same inputs are not
worked on twice; what was made from others is refused, never replaced.  Knows no stage by name."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, CorruptArtifact, UsageError, shell_line
from localmel.store.artifacts import new_folder, read_manifest

VERSION = 1
RUNS = Path("runs")
_LONGEST_NAME = 100
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A finished stage."""

    folder: Path
    manifest: Mapping[str, Any]
    "`made_from`, `figures` (what it cost), `versions`, `seconds`, `command`, and a hash for every file."
    made: bool
    "False: it was there, made from the same inputs."


def run_folder(name: str) -> Path:
    """`runs/NAME` below the current folder, or a path that holds a /; one at the end, as shells complete it, is none.

    Raises UsageError for what is no name, BadInput where something else than a folder stands there."""
    plain = name.rstrip("/")
    if not plain.strip() or plain in (".", "..") or "\0" in plain or len(Path(plain).name) > _LONGEST_NAME:
        raise UsageError(f"{name!r:.120} is no name for a run", hint="--run first")
    try:
        folder = Path(plain).expanduser() if "/" in plain else RUNS / plain
        is_taken = folder.exists() and not folder.is_dir()
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{name!r} cannot be the folder of a run ({why})", hint="choose another --run") from None
    if is_taken:
        raise BadInput(f"{folder} is no folder; a run is one", hint="choose another --run")
    return folder


def typed(run: Path) -> str:
    """What `--run` takes for the folder of a run."""
    return run.name if run.parent == RUNS else str(run) if "/" in str(run) else f"./{run}"


def journal_of(run: Path, stage: str) -> Path:
    """Where the journal of a stage stands: beside the stages, so that it is there before and after them."""
    return run / "journals" / f"{stage}.jsonl"


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
    """The stage of this run, made now or before.

    `make` fills the folder it is given and returns figures for the manifest; whatever it raises leaves the run as it
    was.  `settings` and `inputs` (hashes) decide what is the same; a stage of the same whose manifest `is_enough` says
    no to is made anew.  Raises BadInput where the run holds another such stage, CorruptArtifact where it is damaged."""
    made_from = json.loads(json.dumps({"settings": settings, "inputs": inputs, "localmel": _versions()["localmel"]}))
    folder = run / stage
    if (stored := _stored(folder, stage, made_from)) and is_enough(stored):
        return Stage(folder=folder, manifest=stored, made=False)
    facts: Json = {"made_from": made_from, "command": command, "versions": _versions()}
    started = time.perf_counter()
    with new_folder(folder, kind=stage, version=VERSION, facts=facts) as temporary:
        facts["figures"] = dict(make(temporary))
        facts["seconds"] = round(time.perf_counter() - started, 2)
    return Stage(folder=folder, manifest=read_manifest(folder, kind=stage, version=VERSION), made=True)


def finished_stage(run: Path, stage: str) -> Stage:
    """A stage that an earlier command made, each byte checked.  Raises BadInput where there is none."""
    folder = run / stage
    if not folder.is_dir():
        raise BadInput(
            f"{run} has no finished stage {stage!r}", hint=shell_line(f"localmel {stage} DATA --run", typed(run))
        )
    return Stage(folder=folder, manifest=_read(folder, stage), made=False)


def _stored(folder: Path, stage: str, made_from: Json) -> Json | None:
    if not folder.exists() and not folder.is_symlink():
        return None
    manifest = _read(folder, stage)
    before = manifest.get("made_from")
    if before == made_from:
        return manifest
    raise BadInput(
        f"{folder} was made from something else: it differs in {', '.join(_differences(before, made_from))}",
        hint=f"choose another --run, or {shell_line('rm -r', folder)}",
    )


def _read(folder: Path, stage: str) -> Json:
    again = shell_line("rm -r", folder, note=f"then run localmel {stage} again; its journal keeps the answers")
    try:
        return read_manifest(folder, kind=stage, version=VERSION, every_byte=True)
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=again) from None
    except OSError as error:
        raise CorruptArtifact(f"{folder} is no finished stage ({error})", hint=again) from None


def _differences(before: object, now: object, name: str = "") -> list[str]:
    """The names of the values that differ, with dots: `settings.model.weights`."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*now, *before]))
        return [
            one
            for key in keys
            for one in _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [name or "everything"]


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": platform.python_version(), "localmel": version("localmel")}
