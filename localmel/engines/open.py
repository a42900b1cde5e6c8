"""Engines by name.

In: settings, and where the weights lie.  Out: an engine that is ready to be asked, its model not loaded yet.
Settings that this engine cannot keep, packages that are not installed and folders that hold no whole model are refused
here, in the process that asks, before anything large is imported."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from localmel.engines.model_folder import ModelFolder, model_folder
from localmel.engines.protocol import Engine
from localmel.engines.scripted import Script, ScriptedEngine
from localmel.errors import MissingExtra, UnknownChoice, UsageError
from localmel.settings import EngineSettings

_DTYPES, _DEVICES = ("auto", "float32", "float16", "bfloat16"), ("auto", "cuda", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One way to run a model."""

    modules: tuple[str, ...]
    "What has to be importable."
    pip: str
    "What installs it."
    quantizations: tuple[str, ...]
    "That its settings may name."


KINDS = {
    "scripted": _Kind(modules=(), pip="", quantizations=("",)),
    "server": _Kind(modules=("httpx2",), pip="localmel[server]", quantizations=("",)),
    "transformers": _Kind(
        modules=("transformers", "accelerate", "xgrammar", "jinja2"),
        pip="localmel[transformers]",
        quantizations=("", "4bit", "8bit"),
    ),
    "vllm": _Kind(
        modules=("vllm",),
        pip="localmel[vllm]",
        quantizations=("", "4bit", "awq", "gptq", "compressed-tensors", "fp8"),
    ),
}


def open_engine(
    settings: EngineSettings, folder: Path | None = None, *, script: Script | None = None, log: Path | None = None
) -> Engine:
    """The engine that the settings name.

    `folder` holds the weights (vllm, transformers); `script` the answers (scripted); to `log` goes what a model's
    process prints.  Raises UsageError, MissingExtra, MissingWeights, CorruptArtifact."""
    kind = KINDS.get(settings.engine)
    if kind is None:
        raise UnknownChoice("engine", settings.engine, KINDS, option="--engine")
    _check_settings(settings, kind)
    _check_packages(settings, kind)
    if settings.engine == "scripted":
        return ScriptedEngine(settings, script)
    if settings.engine == "server":
        from localmel.engines.server import ServerEngine

        return ServerEngine(settings)
    if folder is None:
        raise UsageError(f"engine {settings.engine!r} needs the folder of {settings.weights!r}")
    model = model_folder(folder)
    _check_quantization(settings, model)
    if 0 < model.context < settings.context:
        raise UsageError(
            f"context is {settings.context:,}; {model.path.name} was made for {model.context:,}",
            hint=f"context = {model.context}",
        )
    from localmel.engines.process import WorkerEngine

    return WorkerEngine(settings, model, log=log)


def _check_settings(settings: EngineSettings, kind: _Kind) -> None:
    named = {"dtype": _DTYPES, "device": _DEVICES, "quantization": kind.quantizations}
    for name, allowed in named.items():
        if (value := getattr(settings, name)) not in allowed:
            shown = ", ".join(repr(one) for one in allowed)
            raise UsageError(f"engine {settings.engine!r} has no {name} {value!r}; it has {shown}")
    for name in ("at_once", "longest_side", "tensor_parallel", "pipeline_parallel", "timeout", "memory_share"):
        if (number := getattr(settings, name)) <= 0:
            raise UsageError(f"{name} is {number}; it must be more than 0")
    if settings.memory_share > 1:
        raise UsageError(f"memory_share is {settings.memory_share}; it is a part of 1")
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
    if settings.engine == "vllm" and not _is_installed("vllm-bnb-plugin"):
        raise MissingExtra(
            "quantization '4bit' on vLLM needs vllm-bnb-plugin, which is not installed: vLLM 0.28 and later bring no "
            "bitsandbytes of their own",
            hint="pip install vllm-bnb-plugin",
        )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _check_quantization(settings: EngineSettings, model: ModelFolder) -> None:
    """Weights are quantised before (awq, gptq, compressed-tensors) or while they are loaded (4bit, 8bit, fp8)."""
    asked, stored = settings.quantization, model.quantized_as
    if asked in ("awq", "gptq", "compressed-tensors") and stored != asked:
        how = f"quantised as {stored!r}" if stored else "not quantised"
        raise UsageError(f"quantization is {asked!r}; the weights in {model.path} are {how}", hint='quantization = ""')
    if asked in ("4bit", "8bit") and stored not in ("", "bitsandbytes"):
        raise UsageError(
            f"quantization is {asked!r}; the weights in {model.path} are quantised as {stored!r} already",
            hint='quantization = ""',
        )
