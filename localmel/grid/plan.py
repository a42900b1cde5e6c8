"""Which models are held against each other: vision-language models on one side, language models on the other.

In: what was asked for.  Out: a cell for every pair, with the profile it is run with, or a refusal before anything is
opened.  Everything but the two models is the same in all cells.  Knows no data, no KB and no model."""

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
"In place of a model: the embedded stage."
WITHOUT_TRIPLES = "without-triples"
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_LABEL = 60
_OF_THE_MODEL = ("engine", "weights", "quantization", "dtype", "device", "context", "longest_side")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPlan:
    """What is asked for."""

    vlms: tuple[str, ...]
    "Names in the catalog or paths, each with settings behind it (`NAME,quantization=4bit`), or none."
    llms: tuple[str, ...]
    data: Path
    kb: str
    dataset: str | None = None
    split: str = "val"
    limit: int = 0
    "Only the first mentions; 0 takes all."
    profile: str = "qwen"
    "Says everything but which models."
    engine: str | None = None
    "Runs all models, in place of the profile's."
    engine_device: str | None = None
    "Of all models, in place of the profile's."
    without_triples: bool = False
    "Beside each cell also one from which the triples about mentions are withheld."
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
            raise UsageError(f"the first {self.limit} mentions cannot be taken", hint="--limit 500")
        check_gold_outside(self.gold_outside)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """One model of the grid."""

    label: str
    "Unique on its side; the name of folders and columns."
    settings: EngineSettings | None
    "None: no model, the embedded stage."

    def to_json(self) -> Json | None:
        """What decides its answers."""
        if self.settings is None:
            return None
        return {name: getattr(self.settings, name) for name in _OF_THE_MODEL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One side of a cell up to retrieval; cells with the same VLM share it."""

    vlm: ModelChoice
    without_triples: bool
    profile: Profile

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.vlm.label}-{WITHOUT_TRIPLES}" if self.without_triples else self.vlm.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One VLM with one LLM."""

    described: Described
    llm: ModelChoice
    profile: Profile

    @property
    def name(self) -> str:
        """Of its folder and of its column."""
        withheld = f"-{WITHOUT_TRIPLES}" if self.described.without_triples else ""
        return f"{self.described.vlm.label}+{self.llm.label}{withheld}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """All cells, in the order in which they were asked for: VLM by VLM."""

    plan: GridPlan
    base: Profile
    "The profile without its models: the same in all cells."
    cells: tuple[Cell, ...]

    @property
    def described(self) -> tuple[Described, ...]:
        """Each once."""
        return tuple({cell.described.name: cell.described for cell in self.cells}.values())

    @property
    def models(self) -> dict[str, ModelChoice]:
        """`vlm NAME` or `llm NAME` -> the model."""
        sides = (("vlm", [cell.described.vlm for cell in self.cells]), ("llm", [cell.llm for cell in self.cells]))
        return {f"{side} {one.label}": one for side, models in sides for one in models if one.settings}


def planned(plan: GridPlan) -> Grid:
    """Every pair as a cell.  Raises UsageError for models and settings that do not fit."""
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
        raise UsageError(f"two cells would be called {twice[0]!r}", hint="give one of the models another name or path")
    return Grid(plan=plan, base=base, cells=tuple(cells))


def profile_json(profile: Profile) -> Json:
    """A profile as it is kept: of the models only what decides their answers."""
    kept = asdict(profile)
    for stage in ("generate", "rerank"):
        kept[stage]["model"] = {name: kept[stage]["model"][name] for name in _OF_THE_MODEL}
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
    """`NAME,key=value,...` -> the profile's settings of a model with this in their place."""
    name, *pairs = text.split(",")
    if not name.strip():
        raise UsageError(f"{option} {text!r} names no model", hint="localmel weights list")
    if name == NONE:
        if pairs:
            raise UsageError(f"{option} {text}: there is no model to set anything of", hint=f"{option} none")
        return None
    own = dict(_pair(option, text, pair) for pair in pairs)
    changed = {**given, **own, "weights": name}
    check_table(changed, EngineSettings, f"{option} {text}")
    settings = replace(usual, **changed)
    if not settings.engine:
        fact = f"{option} {name}: which engine runs it is said neither by the profile nor here"
        raise UsageError(fact, hint="--engine vllm, or --profile qwen")
    return settings


def _pair(option: str, text: str, pair: str) -> tuple[str, Any]:
    key, sign, value = pair.partition("=")
    kinds = {field.name: str(field.type) for field in fields(EngineSettings)}
    if not sign or key not in kinds or key == "weights":
        known = ", ".join(name for name in kinds if name != "weights")
        raise UsageError(f"{option} {text}: {pair!r} is no setting of a model; there are {known}")
    readers: dict[str, Any] = {"int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__}
    try:
        return key, readers.get(kinds[key], str)(value)
    except (ValueError, KeyError):
        raise UsageError(f"{option} {text}: {key} is {value!r}, no {kinds[key]}") from None


def _label(text: str) -> str:
    """`./answers/a.jsonl` -> `a`; `NAME,quantization=4bit` -> `NAME-quantization-4bit`."""
    name, *pairs = text.split(",")
    if "/" in name:
        path = Path(name)
        name = path.stem if path.suffix in (".json", ".jsonl") else path.resolve().name
    label = _UNFIT.sub("-", "-".join([name, *pairs])).strip("-.")[:_LONGEST_LABEL]
    return label or "model"


def _short(settings: EngineSettings | None) -> str:
    return hashlib.sha256(json.dumps(asdict(settings) if settings else NONE).encode()).hexdigest()[:6]
