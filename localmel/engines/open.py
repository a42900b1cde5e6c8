"""Open an engine by name, over the weights that are on this machine.

In: engine settings.  Out: an engine that is ready to be asked, its model not loaded yet.  Settings that the engine
does not support, packages that are not installed and incomplete folders are refused here, in the process that asks,
before anything large is imported."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from localmel.engines.process import WorkerEngine
from localmel.engines.protocol import Engine
from localmel.engines.scripted import Script, ScriptedEngine
from localmel.errors import MissingExtra, UnknownChoice, UsageError
from localmel.settings import EngineSettings
from localmel.weights.find import find_model
from localmel.weights.model_folder import ModelFolder, model_folder

_DTYPES, _DEVICES = ("auto", "float32", "float16", "bfloat16"), ("auto", "cuda", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One way to run a model."""

    modules: tuple[str, ...]
    "Modules that must be importable."
    pip: str
    "The package that installs them."
    quantizations: tuple[str, ...]
    "The values that its settings may have."


KINDS = {
    "scripted": _Kind(modules=(), pip="", quantizations=("",)),
    "server": _Kind(modules=("httpx2",), pip="localmel[server]", quantizations=("",)),
    "transformers": _Kind(
        modules=("transformers", "accelerate", "xgrammar", "jinja2"),
        pip="localmel[transformers]",
        quantizations=("", "4bit", "8bit"),
    ),
    "vllm": _Kind(
        modules=("vllm",), pip="localmel[vllm]", quantizations=("", "4bit", "awq", "gptq", "compressed-tensors", "fp8")
    ),
}


def open_model(settings: EngineSettings) -> Engine:
    """Find the weights that the settings name and open their engine.

    A server has its own weights.  For the scripted engine a path is its script; with a name it makes its answers up.
    Raises MissingWeights, MissingExtra or EngineStopped."""
    if settings.engine == "scripted":
        return open_engine(settings, script=Path(settings.weights) if "/" in settings.weights else None)
    return open_engine(settings, None if settings.engine == "server" else find_model(settings.weights).path)


def open_engine(
    settings: EngineSettings, folder: Path | None = None, *, script: Script | None = None, log: Path | None = None
) -> Engine:
    """Open the engine that the settings name.

    `folder` holds the weights (vllm, transformers), `script` the answers (scripted); a worker's prints go to `log`.
    Raises UsageError, MissingExtra, MissingWeights, CorruptArtifact, UnsafeWeights."""
    kind = KINDS.get(settings.engine)
    if kind is None:
        raise UnknownChoice("engine", settings.engine, KINDS, option="--engine")
    _check_settings(settings, kind)
    _check_packages(settings, kind)
    if settings.engine == "scripted":
        return ScriptedEngine(settings, script)
    if settings.engine == "server":
        from localmel.engines.server import ServerEngine  # its package is an extra

        return ServerEngine(settings)
    if folder is None:
        raise UsageError(f"engine {settings.engine!r} needs the folder of {settings.weights!r}")
    model = model_folder(folder)
    if model.for_open_clip:
        raise UsageError(f"engine {settings.engine!r} cannot run {folder}: it holds a CLIP model for open_clip")
    _check_quantization(settings, model)
    if 0 < model.context < settings.context:
        raise UsageError(
            f"context is {settings.context:,}; {model.path.name} was made for {model.context:,}",
            hint=f"context = {model.context}",
        )
    return WorkerEngine(settings, model, log=log)


def _check_settings(settings: EngineSettings, kind: _Kind) -> None:
    named = {"dtype": _DTYPES, "device": _DEVICES, "quantization": kind.quantizations}
    for name, allowed in named.items():
        if (value := getattr(settings, name)) not in allowed:
            shown = ", ".join(repr(one) for one in allowed)
            raise UsageError(f"engine {settings.engine!r} has no {name} {value!r}; it has {shown}")
    for name in ("at_once", "longest_side", "tensor_parallel", "pipeline_parallel", "timeout", "memory_share"):
        if (number := getattr(settings, name)) <= 0:
            raise UsageError(f"{name} is {number}; it must be above 0")
    if settings.memory_share > 1:
        raise UsageError(f"memory_share is {settings.memory_share}; it cannot exceed 1")
    if settings.engine != "vllm" and settings.tensor_parallel * settings.pipeline_parallel > 1:
        raise UsageError(f"engine {settings.engine!r} runs on one device", hint='engine = "vllm"')


def _check_packages(settings: EngineSettings, kind: _Kind) -> None:
    missing = [module for module in kind.modules if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingExtra(
            f"engine {settings.engine!r} needs {', '.join(missing)}, which is not installed",
            hint=f"pip install '{kind.pip}'",
        )
    if settings.quantization not in ("4bit", "8bit"):
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra(
            f"quantization {settings.quantization!r} needs bitsandbytes, which is not installed",
            hint="pip install 'localmel[quant]'",
        )
    if settings.engine == "vllm" and not any(metadata.distributions(name="vllm-bnb-plugin")):
        raise MissingExtra(
            "quantization '4bit' on vLLM needs vllm-bnb-plugin, which is not installed: vLLM 0.28 and later have no "
            "bitsandbytes of their own",
            hint="pip install vllm-bnb-plugin",
        )


def _check_quantization(settings: EngineSettings, model: ModelFolder) -> None:
    """Check that asked and stored quantisation agree; only awq, gptq and compressed-tensors are stored."""
    asked, stored = settings.quantization, model.quantized_as
    if asked in ("awq", "gptq", "compressed-tensors") and stored != asked:
        how = f"quantised as {stored!r}" if stored else "not quantised"
        raise UsageError(f"quantization is {asked!r}; the weights in {model.path} are {how}", hint='quantization = ""')
    if asked in ("4bit", "8bit") and stored not in ("", "bitsandbytes"):
        raise UsageError(
            f"quantization is {asked!r}; the weights in {model.path} are already quantised as {stored!r}",
            hint='quantization = ""',
        )
