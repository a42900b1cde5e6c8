"""What is known of the models of a grid before any of them is asked: whether they are here, and what decides answers.

In: a grid, some of its cells.  Out: facts by the names of models, or the first refusal with what to write instead.
Loads no weights, asks no server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from localmel.engines.open import open_model
from localmel.engines.scripted import made_up_note
from localmel.errors import LocalmelError, MissingWeights, UsageError
from localmel.grid.plan import Cell, Grid, ModelChoice

_SETTING = re.compile(r"(\w+) = (\w+)")
"What engines propose in place of a setting that does not fit."
Json = dict[str, Any]


def facts_of_models(grid: Grid, cells: Sequence[Cell]) -> Json:
    """Name -> what decides the answers of each model; those that these cells need are found, none is loaded.

    A server is only asked when its turn comes.  Raises UsageError, MissingWeights, MissingExtra, CorruptArtifact."""
    needed = needed_models(cells)
    return {
        name: facts_of_model(name, one) if name in needed else {"settings": one.to_json()}
        for name, one in grid.models.items()
    }


def needed_models(cells: Sequence[Cell]) -> set[str]:
    """`vlm NAME` and `llm NAME` of these cells."""
    return {f"vlm {cell.described.vlm.label}" for cell in cells} | {f"llm {cell.llm.label}" for cell in cells}


def facts_of_model(name: str, one: ModelChoice) -> Json:
    """Of `vlm NAME` or `llm NAME`.  Raises as `facts_of_models`, with what to write for this model."""
    assert one.settings is not None
    told: Json = {"settings": one.to_json()}
    if one.settings.engine == "server":
        return told
    try:
        _check_sees(name, one)
        with open_model(one.settings) as engine:
            facts = engine.facts()
    except LocalmelError as error:
        raise type(error)(f"{name}: {error.fact}", hint=_hint(name, one, error)) from None
    return told | {"revision": facts.revision, "versions": dict(facts.versions)}


def check_several(grid: Grid) -> None:
    """Raise UsageError for a single cell, but first whatever is wrong with its models."""
    if len(grid.cells) > 1:
        return
    facts_of_models(grid, grid.cells)
    fact = f"one cell ({grid.plan.vlms[0]} with {grid.plan.llms[0]}) has nothing to be compared with"
    raise UsageError(fact, hint="a second --vlm or --llm, or --without-triples")


def made_up_notes(grid: Grid) -> Iterator[str]:
    """Models that are names without a script, in words: a name that was mistyped would look like a model."""
    for one in grid.models.values():
        if one.settings and one.settings.engine == "scripted" and "/" not in one.settings.weights:
            yield made_up_note(one.settings.weights)


def _check_sees(name: str, one: ModelChoice) -> None:
    """Raise UsageError where a model that reads text only is to look at pictures, and MissingWeights."""
    from localmel.weights.find import find_model

    if one.settings is None or one.settings.engine not in ("vllm", "transformers") or not name.startswith("vlm "):
        return
    folder = find_model(one.settings.weights).folder
    if not folder.takes_pictures:
        fact = f"{folder.path} holds a model that sees no pictures"
        raise UsageError(fact, hint=f"--llm {one.settings.weights}, or localmel weights list")


def _hint(name: str, one: ModelChoice, error: LocalmelError) -> str:
    """What to write for this model instead, or what the error proposes."""
    from localmel.weights.catalog import catalog
    from localmel.weights.folders import installed_names

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
