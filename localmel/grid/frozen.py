"""What is the same in all cells of a grid, and stays so however often it is gone on with: `grid.json` in its folder.

In: what a grid is about to be made from.  Out: nothing, or a refusal that names what has changed since.  Cells may be
added later: another model changes nothing of what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.grid.plan import Grid, profile_json
from localmel.kb.store import KnowledgeBase
from localmel.rerank.scorer import scorer_sha256
from localmel.retrieve.profile_models import ProfileModels
from localmel.runs.questions import Questions
from localmel.settings.shipped import weights_folder
from localmel.store.artifacts import failed_writes_are_reported, write_json

FILE, FORMAT = "grid.json", 1
Json = dict[str, Any]


def frozen_of(grid: Grid, questions: Questions, kb: KnowledgeBase, models: ProfileModels) -> Json:
    """Settings and hashes that every cell has in common."""
    plan = grid.plan
    scorer = weights_folder(grid.base.rerank.weights)
    return {
        "settings": {
            "dataset": questions.dataset,
            "split": plan.split,
            "limit": plan.limit,
            "drop_leaked": plan.drop_leaked,
            "gold_outside": plan.gold_outside,
            "profile": profile_json(grid.base),
        },
        "inputs": {
            "questions": questions.sha256,
            "kb_fingerprint": kb.fingerprint,
            "space": models.encoders.text.space.weights_sha256,
            "network": models.matcher.sha256,
            "scorer": scorer_sha256(scorer),
        },
        "localmel": version("localmel"),
    }


def keep_frozen(out: Path, frozen: Mapping[str, Any], models: Mapping[str, Any], command: str) -> None:
    """Begin a grid in `out`, or go on with the one there.  `models`: name -> what decides its answers.

    Raises BadInput for a folder that holds something else, and where anything differs from when the grid was begun."""
    before = read_frozen(out)
    if before is None:
        with failed_writes_are_reported(out):
            out.mkdir(parents=True, exist_ok=True)
        write_json(out / FILE, {"format": FORMAT, "frozen": frozen, "models": models, "command": command})
        return
    check_frozen(out, before, frozen, models)
    added = {name: told for name, told in models.items() if name not in before["models"]}
    if added:
        write_json(out / FILE, before | {"models": before["models"] | added, "command": command})


def check_frozen(out: Path, before: Json, frozen: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    """Raises BadInput with the names of what differs; of a model only what is told now is held against before."""
    told = {name: one for name, one in models.items() if name in before["models"]}
    known = {name: {key: before["models"][name].get(key) for key in one} for name, one in told.items()}
    now = json.loads(json.dumps({"grid": frozen, "model": told}))
    differ = list(_differences({"grid": before["frozen"], "model": known}, now))
    if differ:
        shown = "; ".join(differ[:3]) + (f"; and {len(differ) - 3} more" if len(differ) > 3 else "")
        raise BadInput(
            f"the grid in {out} was begun otherwise: {shown}",
            hint=f"choose another --out, or {shell_line('rm -r', out)}",
        )


def read_frozen(out: Path) -> Json | None:
    """What a grid in this folder was begun with; None where nothing stands there.  Writes nothing.

    Raises BadInput for a folder or file that is something else, CorruptArtifact for a damaged grid."""
    if not out.exists() and not out.is_symlink():
        return None
    path = out / FILE
    if not path.is_file():
        there = ", ".join(sorted(one.name for one in out.iterdir())[:5]) if out.is_dir() else "a file"
        if not there:
            return None
        raise BadInput(f"{out} is no grid: there is {there}", hint="--out ANOTHER, a folder that is not there yet")
    try:
        found: Json = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}; this localmel reads {FORMAT}")
        if not isinstance(found["frozen"], dict) or not isinstance(found["models"], dict):
            raise TypeError("it does not say what the grid was begun with")
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = shell_line("mv", out, f"{out}.aside", note="then run the same command again")
        raise CorruptArtifact(f"{path} cannot be read ({error})", hint=hint) from None
    return found


def _differences(before: object, now: object, name: str = "") -> Iterator[str]:
    """`grid.inputs.kb_fingerprint was 1a2b, is 3c4d`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif before != now:
        yield f"{name} was {_short(before)}, is {_short(now)}"


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text[:12] if len(text) == 64 else text[:60]
