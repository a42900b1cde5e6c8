"""What a run of models cost: seconds, tokens, memory, devices, over all its stages.

In: its finished stages.  Out: what the manifest of an evaluation says under `resources`.  What no stage tells is left
out; nothing is taken from another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localmel.runs.folder import Stage

TOKENS = ("prompt_tokens", "image_tokens", "output_tokens")
Json = dict[str, Any]


def resources_of(stages: Mapping[str, Stage]) -> Json:
    """stages: name -> stage.  Tokens are those of all answers; seconds leave out the loading of models."""
    found: Json = {"models": {name: _model(stage) for name, stage in stages.items() if _model(stage)}}
    figures = {name: stage.manifest["figures"] for name, stage in stages.items()}
    asked = [one for name, one in figures.items() if name in found["models"]]
    for name in TOKENS:
        counts = [int(one[name]) for one in asked if name in one]
        if counts and any(counts):
            found[name] = sum(counts)
    firsts = [one["first_token_seconds"] for one in asked if one.get("first_token_seconds") is not None]
    if firsts:
        found["first_token_seconds"] = firsts[0]  # of the model that writes; one that chooses has no more tokens
    if memory := max((int(one.get("peak_memory_bytes", 0)) for one in asked), default=0):
        found["peak_memory_bytes"] = memory
    devices = dict.fromkeys(str(one["device"]) for one in asked if one.get("device"))
    if devices:
        found["device"] = ", ".join(devices)
    seconds = [busy_seconds(stage) for stage in stages.values()]
    known = [one for one in seconds if one is not None]
    if len(known) == len(seconds):
        found["seconds"] = round(sum(known), 2)
    return found


def busy_seconds(stage: Stage) -> float | None:
    """What the whole of a stage took, the loading of its model left out.

    Of one that was interrupted and went on only the last process told its seconds: its speed is taken for the whole.
    None where that process had nothing left to ask."""
    figures = stage.manifest["figures"]
    seconds = max(0.0, float(stage.manifest["seconds"]) - float(figures.get("load_seconds", 0.0)))
    now, kept = figures.get("answers_now"), figures.get("answers_kept")
    if now is None or kept is None or now == kept:
        return seconds
    return seconds * kept / now if now else None


def _model(stage: Stage) -> str:
    model = stage.manifest["made_from"]["inputs"].get("model")
    return str(model["name"]) if model else ""
