"""Pin what a grid is made from: the same in all cells, and unchanged however often the grid is resumed (`grid.json`).

In: the plan of a grid, its data, KB and models.  Out: facts about models before any is asked, or an error that names
what has changed since the grid began, or what to write instead of a model.  Cells may be added later, because another
model changes nothing that is there.  Loads no weights, asks no server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

from localmel.engines.open import open_model
from localmel.engines.scripted import made_up_note
from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingWeights, UsageError, shell_line
from localmel.grid.plan import Cell, Grid, ModelChoice, profile_json
from localmel.kb.store import KnowledgeBase
from localmel.rerank.scorer import scorer_sha256
from localmel.retrieve.profile_models import ProfileModels
from localmel.runs.folder import differences
from localmel.runs.questions import Questions
from localmel.settings.shipped import weights_folder
from localmel.store.artifacts import failed_writes_are_reported, write_json
from localmel.weights.catalog import catalog
from localmel.weights.find import find_model
from localmel.weights.folders import installed_names

FILE, FORMAT = "grid.json", 1
_SETTING = re.compile(r"(\w+) = (\w+)")
"The form of an engine's hint about a setting that does not fit."
Json = dict[str, Any]


def frozen_of(grid: Grid, questions: Questions, kb: KnowledgeBase, models: ProfileModels) -> Json:
    """Return the settings and hashes that all cells share."""
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
    """Begin a grid in `out`, or resume the one there.  models: name -> what decides its answers.

    Raises BadInput for a folder that holds something else, and if anything has changed since the grid began."""
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
    """Raise BadInput with the names of what has changed; of a model only the facts in `models` are compared."""
    common = {name: one for name, one in models.items() if name in before["models"]}
    known = {name: {key: before["models"][name].get(key) for key in one} for name, one in common.items()}
    now = json.loads(json.dumps({"grid": frozen, "model": common}))
    changed = differences({"grid": before["frozen"], "model": known}, now)
    differ = [f"{name} was {_short(old)}, is {_short(new)}" for name, old, new in changed]
    if differ:
        shown = "; ".join(differ[:3]) + (f"; and {len(differ) - 3} more" if len(differ) > 3 else "")
        raise BadInput(
            f"cannot resume the grid in {out}: {shown}", hint=f"choose another --out, or {shell_line('rm -r', out)}"
        )


def read_frozen(out: Path) -> Json | None:
    """Read what the grid in this folder was begun with; None if there is nothing.

    Raises BadInput for a folder or file that is something else, CorruptArtifact for a damaged grid."""
    if not out.exists() and not out.is_symlink():
        return None
    path = out / FILE
    if not path.is_file():
        there = ", ".join(sorted(one.name for one in out.iterdir())[:5]) if out.is_dir() else "a file"
        if not there:
            return None
        raise BadInput(f"{out} is not a grid: it has {there}", hint="--out ANOTHER, a folder that does not exist yet")
    try:
        found: Json = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}; this localmel reads {FORMAT}")
        if not isinstance(found["frozen"], dict) or not isinstance(found["models"], dict):
            raise TypeError("it lacks what the grid was begun with")
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = shell_line("mv", out, f"{out}.aside", note="then run the same command again")
        raise CorruptArtifact(f"{path} cannot be read ({error})", hint=hint) from None
    return found


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text[:12] if len(text) == 64 else text[:60]


# --- the models -------------------------------------------------------------------------------------------------------


def facts_of_models(grid: Grid, cells: Sequence[Cell]) -> Json:
    """Return what decides the answers of each model, by its name; those that these cells need must be installed.

    A server is not asked yet.  Raises UsageError, MissingWeights, MissingExtra, CorruptArtifact."""
    needed = needed_models(cells)
    return {
        name: facts_of_model(name, one) if name in needed else {"settings": one.to_json()}
        for name, one in grid.models.items()
    }


def needed_models(cells: Sequence[Cell]) -> set[str]:
    """Return `vlm NAME` and `llm NAME` of the models that these cells use."""
    return {f"vlm {cell.described.vlm.label}" for cell in cells} | {f"llm {cell.llm.label}" for cell in cells}


def facts_of_model(name: str, one: ModelChoice) -> Json:
    """Return the facts of one model.  Raises as `facts_of_models`, with what to write instead."""
    assert one.settings is not None
    found: Json = {"settings": one.to_json()}
    if one.settings.engine == "server":
        return found
    try:
        _check_sees(name, one)
        with open_model(one.settings) as engine:
            facts = engine.facts()
    except LocalmelError as error:
        raise type(error)(f"{name}: {error.fact}", hint=_hint(name, one, error)) from None
    return found | {"revision": facts.revision, "versions": dict(facts.versions)}


def check_several(grid: Grid) -> None:
    """Raise UsageError for a single cell, after any error about its models."""
    if len(grid.cells) > 1:
        return
    facts_of_models(grid, grid.cells)
    fact = f"one cell ({grid.plan.vlms[0]} with {grid.plan.llms[0]}) cannot be compared with anything"
    raise UsageError(fact, hint="a second --vlm or --llm, or --without-triples")


def made_up_notes(grid: Grid) -> Iterator[str]:
    """Yield a note for each model that is only made up, because a mistyped name would look like a model."""
    for one in grid.models.values():
        if one.settings and one.settings.engine == "scripted" and "/" not in one.settings.weights:
            yield made_up_note(one.settings.weights)


def _check_sees(name: str, one: ModelChoice) -> None:
    """Raise UsageError if a text-only model should look at pictures, MissingWeights if it is not installed."""
    if one.settings is None or one.settings.engine not in ("vllm", "transformers") or not name.startswith("vlm "):
        return
    folder = find_model(one.settings.weights).folder
    if not folder.takes_pictures:
        fact = f"the model in {folder.path} cannot see pictures"
        raise UsageError(fact, hint=f"--llm {one.settings.weights}, or localmel weights list")


def _hint(name: str, one: ModelChoice, error: LocalmelError) -> str:
    """Return what to write instead of this model, or the hint of the error."""
    assert one.settings is not None
    option, weights = f"--{name.partition(' ')[0]}", one.settings.weights
    if setting := _SETTING.fullmatch(error.hint):
        return f"{option} {weights},{setting[1]}={setting[2]}"
    if not isinstance(error, MissingWeights):
        return error.hint
    if "/" in weights:
        is_script = Path(weights).suffix in (".json", ".jsonl") and Path(weights).is_file()
        return "--engine scripted   # plays the script" if is_script else error.hint
    known = sorted({*catalog(), *installed_names()})
    if weights in known:
        return error.hint
    near = [f"{option} {other}, or" for other in get_close_matches(weights, known, n=1)]
    return " ".join([*near, f"localmel weights list, or {error.hint}"])
