"""Choose which systems of which runs are compared, name them, and say how they differ.

In: finished runs, and the user's choice.  Out: columns with unique names.  Refuses a single system, a run named twice,
and datasets that not every run has.  Knows nothing of how they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localmel.errors import BadInput, UsageError
from localmel.runs.evaluate import CALIBRATED
from localmel.runs.finished_runs import FinishedRun

_SHOWN_BY_HASH = ("rerank.weights", "generate.model.weights", "rerank.model.weights")
"Settings that name a file; the difference is shown by the hash of the file instead."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """One system of one run."""

    name: str
    run: FinishedRun
    system: str

    @property
    def calibrated(self) -> bool:
        """Return whether its scores are probabilities."""
        return self.system in CALIBRATED

    @property
    def facts(self) -> dict[str, str]:
        """Return what the system was made from, in words and short hashes."""
        inputs, settings = self.run.inputs, self.run.settings
        found = {"system": self.system, "profile": str(settings.get("profile", "?"))}
        found["withheld"] = ", ".join(settings["without"]) or "nothing"
        for name, label in (("network_sha256", "network"), ("scorer_sha256", "scorer")):
            if inputs.get(name):
                found[label] = str(inputs[name])[:12]
        for stage, model in (inputs.get("models") or {}).items():
            found[f"model of {stage}"] = _model(model)
        found["localmel"] = str(inputs.get("localmel", "?"))
        found["manifest"] = self.run.sha256[:12]
        return found


def columns_of(runs: Sequence[FinishedRun], systems: Sequence[str]) -> list[Column]:
    """Return the named systems of each run, or all of them.  Raises UsageError or BadInput."""
    places = [run.stage.resolve() for run in runs]
    if len(set(places)) < len(places):
        twice = next(run.folder for run in runs if places.count(run.stage.resolve()) > 1)
        raise UsageError(f"run {twice} is named twice", hint="localmel compare RUN OTHER")
    picked = []
    for run in runs:
        there = list(run.settings["systems"])
        chosen = [name for name in there if not systems or name in systems]
        if not chosen:
            raise BadInput(
                f"run {run.folder} has none of the systems {', '.join(systems)}; it has {', '.join(there)}",
                hint=f"--system {there[0]}",
            )
        picked += [(run, name, len(chosen)) for name in chosen]
    if len(picked) < 2:
        ((run, name, _),) = picked
        raise BadInput(
            f"cannot compare {run.folder} with nothing: it is one run with one system ({name})",
            hint=f"localmel compare {run.folder} OTHER   # OTHER is made by localmel eval DATA --kb KB --out OTHER",
        )
    names = _names(runs)
    return [
        Column(name=names[id(run)] if of == 1 else f"{names[id(run)]}/{name}", run=run, system=name)
        for run, name, of in picked
    ]


def _names(runs: Sequence[FinishedRun]) -> dict[int, str]:
    """Name runs by their folders, with as many parent folders as it takes to tell them apart."""
    parts = {id(run): run.stage.resolve().parent.parts for run in runs}
    depth = 1
    while len({tuple(names[-depth:]) for names in parts.values()}) < len(parts):
        depth += 1
    return {key: "/".join(names[-depth:]) for key, names in parts.items()}


def shared_datasets(runs: Sequence[FinishedRun], wanted: Sequence[str]) -> list[str]:
    """Return the datasets to compare on: those named, or all if every run has the same.  Raises BadInput."""
    first, *others = ([*run.datasets] for run in runs)
    everywhere = [name for name in first if all(name in other for other in others)]
    if wanted:
        if missing := [name for name in wanted if name not in everywhere]:
            raise BadInput(
                f"not every run has dataset {missing[0]!r}; all have: {', '.join(everywhere) or 'none in common'}",
                hint=f"--dataset {everywhere[0]}" if everywhere else "localmel eval DATA --kb KB --out NEW",
            )
        return [name for name in first if name in wanted]
    if any(sorted(other) != sorted(first) for other in others):
        listed = "; ".join(f"{run.folder}: {', '.join(run.datasets)}" for run in runs)
        raise BadInput(
            f"the runs were asked different datasets ({listed})",
            hint=" ".join(f"--dataset {name}" for name in everywhere) or "localmel eval DATA --kb KB --out NEW",
        )
    return everywhere


def differences_of(one: Column, other: Column) -> tuple[str, ...]:
    """Say in words what two columns were made from differently; their names do not count."""
    found = []
    if one.system != other.system:
        found.append(f"system {one.system} / {other.system}")
    mine, theirs = one.run.inputs, other.run.inputs
    withheld, their = (", ".join(run.settings["without"]) or "nothing" for run in (one.run, other.run))
    if withheld != their:
        found.append(f"withheld {withheld} / {their}")
    for name, label in (("network_sha256", "network"), ("scorer_sha256", "scorer"), ("localmel", "localmel")):
        if mine.get(name) != theirs.get(name):
            found.append(f"{label} {_short(mine.get(name))} / {_short(theirs.get(name))}")
    models, their_models = mine.get("models") or {}, theirs.get("models") or {}
    for stage in dict.fromkeys((*models, *their_models)):
        if models.get(stage) != their_models.get(stage):
            found.append(f"model of {stage} {_model(models.get(stage))} / {_model(their_models.get(stage))}")
    profile, their_profile = (_flat(run.get("profile") or {}) for run in (mine, theirs))
    for key in sorted({**profile, **their_profile}):
        if key not in _SHOWN_BY_HASH and profile.get(key) != their_profile.get(key):
            found.append(f"{key} {_short(profile.get(key))} / {_short(their_profile.get(key))}")
    return tuple(found)


def gains_from_triples(one: Column, other: Column) -> bool:
    """Return whether the second differs from the first only by the ablation of triples."""
    withheld, more = ({*run.settings["without"]} for run in (one.run, other.run))
    if one.run.inputs.get("models") != other.run.inputs.get("models"):
        return False
    return one.system == other.system and more - withheld == {"triples"} and not withheld - more


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else text[:40]


def _model(facts: Mapping[str, Any] | None) -> str:
    return f"{facts['name']} ({str(facts['revision'])[:12]})" if facts else "none"


def _flat(profile: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Flatten a profile: `generate.model.context` -> its value."""
    flat: dict[str, Any] = {}
    for name, value in profile.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{at}{name}.")
        elif name != "summary":
            flat[f"{at}{name}"] = value
    return flat
