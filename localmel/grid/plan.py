"""Plan a grid: every vision-language model paired with every language model.

In: the user's choice.  Out: a cell for every pair, with its profile, or an error before anything is opened.  Everything
but the two models is the same in all cells.  Knows no data, no KB and no model."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from localmel.errors import UsageError
from localmel.runs.questions import GoldOutside, check_gold_outside
from localmel.settings import EngineSettings, Profile, load_profile
from localmel.settings.checks import check_table

NONE = "none"
"Given in place of a model: the embedded stage."
WITHOUT_TRIPLES = "without-triples"
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_LABEL = 60
_MODEL_SETTINGS = ("engine", "weights", "quantization", "dtype", "device", "context", "longest_side")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPlan:
    """The user's choice."""

    vlms: tuple[str, ...]
    "Names in the catalog or paths, each perhaps with settings (`NAME,quantization=4bit`), or `none`."
    llms: tuple[str, ...]
    data: Path
    kb: str
    dataset: str | None = None
    split: str = "val"
    limit: int = 0
    "Only so many mentions, the first ones; 0 for all."
    profile: str = "qwen"
    "Decides everything but the models."
    engine: str | None = None
    "Replaces the profile's engine for all models."
    engine_device: str | None = None
    "Replaces the profile's device for all models."
    without_triples: bool = False
    "Whether to add to each cell its ablation without the triples about mentions."
    drop_leaked: bool = False
    gold_outside: GoldOutside = "refuse"
    examples: int = 200

    def __post_init__(self) -> None:
        for option, models in (("--vlm", self.vlms), ("--llm", self.llms)):
            if not models:
                raise UsageError(f"no {option} is given", hint=f"{option} NAME, or {option} none")
            if twice := [name for name, n in Counter(models).items() if n > 1]:
                raise UsageError(f"{option} {twice[0]} is given twice", hint=f"{option} OTHER")
        if self.limit < 0:
            raise UsageError(f"the limit must be at least 0, not {self.limit}", hint="--limit 500")
        check_gold_outside(self.gold_outside)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """One model of the grid."""

    label: str
    "Unique among the VLMs or LLMs; names folders and columns."
    settings: EngineSettings | None
    "None: no model, the embedded stage."

    def to_json(self) -> Json | None:
        """Return the settings that decide its answers."""
        if self.settings is None:
            return None
        return {name: getattr(self.settings, name) for name in _MODEL_SETTINGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The part of a cell up to retrieval, shared by cells with the same VLM."""

    vlm: ModelChoice
    without_triples: bool
    profile: Profile

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.vlm.label}-{WITHOUT_TRIPLES}" if self.without_triples else self.vlm.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One VLM with one LLM."""

    described: Described
    llm: ModelChoice
    profile: Profile

    @property
    def name(self) -> str:
        """The name of its folder and of its column."""
        withheld = f"-{WITHOUT_TRIPLES}" if self.described.without_triples else ""
        return f"{self.described.vlm.label}+{self.llm.label}{withheld}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """All cells in the order of the command, VLM by VLM."""

    plan: GridPlan
    base: Profile
    "The profile without its models: the same in all cells."
    cells: tuple[Cell, ...]

    @property
    def described(self) -> tuple[Described, ...]:
        """The shared parts, each once."""
        return tuple({cell.described.name: cell.described for cell in self.cells}.values())

    @property
    def models(self) -> dict[str, ModelChoice]:
        """All models, by `vlm NAME` or `llm NAME`."""
        sides = (("vlm", [cell.described.vlm for cell in self.cells]), ("llm", [cell.llm for cell in self.cells]))
        return {f"{side} {one.label}": one for side, models in sides for one in models if one.settings}


def planned(plan: GridPlan) -> Grid:
    """Make a cell of every pair.  Raises UsageError for models and settings that do not fit."""
    profile = load_profile(plan.profile)
    every = (("engine", plan.engine), ("device", plan.engine_device))
    given = {name: value for name, value in every if value is not None}
    vlms = _choices("--vlm", plan.vlms, profile.generate.model, given)
    llms = _choices("--llm", plan.llms, profile.rerank.model, given)
    base = replace(
        profile,
        generate=replace(profile.generate, backend="embedded", model=EngineSettings()),
        rerank=replace(profile.rerank, backend="evidence", model=EngineSettings(), calibration=""),
    )
    cells = [
        Cell(described=described, llm=llm, profile=_with_llm(described.profile, llm))
        for vlm in vlms
        for without in ((False, True) if plan.without_triples else (False,))
        for described in [Described(vlm=vlm, without_triples=without, profile=_with_vlm(base, vlm))]
        for llm in llms
    ]
    twice = [name for name, n in Counter(cell.name for cell in cells).items() if n > 1]
    if twice:
        raise UsageError(f"two cells would be named {twice[0]!r}", hint="give one of the models another name or path")
    return Grid(plan=plan, base=base, cells=tuple(cells))


def profile_json(profile: Profile) -> Json:
    """Return a profile as it is kept: of its models only the settings that decide their answers."""
    kept = asdict(profile)
    for stage in ("generate", "rerank"):
        kept[stage]["model"] = {name: kept[stage]["model"][name] for name in _MODEL_SETTINGS}
    return kept


def _with_vlm(base: Profile, vlm: ModelChoice) -> Profile:
    if vlm.settings is None:
        return base
    return replace(base, generate=replace(base.generate, backend="vlm", model=vlm.settings))


def _with_llm(base: Profile, llm: ModelChoice) -> Profile:
    if llm.settings is None:
        return base
    return replace(base, rerank=replace(base.rerank, backend="llm", model=llm.settings))


# --- what a model is called -----------------------------------------------------------------------------------------


def _choices(option: str, wanted: Sequence[str], usual: EngineSettings, given: Json) -> list[ModelChoice]:
    found = [(text, _settings(option, text, usual, given)) for text in wanted]
    seen: dict[str, str] = {}
    for text, settings in found:
        key = json.dumps(asdict(settings), sort_keys=True) if settings else NONE
        if key in seen:
            raise UsageError(f"{option} {text} and {option} {seen[key]} are the same", hint=f"{option} OTHER")
        seen[key] = text
    labels = [_label(text) for text, _ in found]
    alike = {label for label, n in Counter(labels).items() if n > 1}
    return [
        ModelChoice(label=f"{label}-{_short(settings)}" if label in alike else label, settings=settings)
        for label, (_, settings) in zip(labels, found, strict=True)
    ]


def _settings(option: str, text: str, usual: EngineSettings, given: Json) -> EngineSettings | None:
    """Parse `NAME,key=value,...` into the profile's settings of a model, with these changes."""
    name, *pairs = text.split(",")
    if not name.strip():
        raise UsageError(f"{option} {text!r} names no model", hint="localmel weights list")
    if name == NONE:
        if pairs:
            raise UsageError(f"{option} {text}: `none` takes no settings", hint=f"{option} none")
        return None
    own = dict(_pair(option, text, pair) for pair in pairs)
    changed = {**given, **own, "weights": name}
    check_table(changed, EngineSettings, f"{option} {text}")
    settings = replace(usual, **changed)
    if not settings.engine:
        fact = f"no engine set for {option} {name}: neither the profile nor the command names one"
        raise UsageError(fact, hint="--engine vllm, or --profile qwen")
    return settings


def _pair(option: str, text: str, pair: str) -> tuple[str, Any]:
    key, sign, value = pair.partition("=")
    kinds = {field.name: str(field.type) for field in fields(EngineSettings)}
    if not sign or key not in kinds or key == "weights":
        known = ", ".join(name for name in kinds if name != "weights")
        raise UsageError(f"{option} {text}: {pair!r} is not a setting of a model; known: {known}")
    readers: dict[str, Any] = {"int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__}
    try:
        return key, readers.get(kinds[key], str)(value)
    except (ValueError, KeyError):
        raise UsageError(f"{option} {text}: {key} is {value!r}, not of type {kinds[key]}") from None


def _label(text: str) -> str:
    """Shorten a choice: `./answers/a.jsonl` -> `a`; `NAME,quantization=4bit` -> `NAME-quantization-4bit`."""
    name, *pairs = text.split(",")
    if "/" in name:
        path = Path(name)
        name = path.stem if path.suffix in (".json", ".jsonl") else path.resolve().name
    label = _UNFIT.sub("-", "-".join([name, *pairs])).strip("-.")[:_LONGEST_LABEL]
    return label or "model"


def _short(settings: EngineSettings | None) -> str:
    return hashlib.sha256(json.dumps(asdict(settings) if settings else NONE).encode()).hexdigest()[:6]
