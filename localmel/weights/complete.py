"""Whether a folder holds a whole model: configuration, every shard, tokenizer, and for pictures their processor.

In: a folder.  Out: what its configuration and its headers say.  Raises MissingWeights naming the file that is not
there, CorruptArtifact for one that is damaged.  Reads configurations and headers, never the tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights
from localmel.weights.contents import check_beginning, check_configuration, read_json
from localmel.weights.tensor_files import TensorPlace, n_parameters, read_header

CONFIGURATION, OPEN_CLIP = "config.json", "open_clip_config.json"
_TOKENIZERS: tuple[tuple[str, ...], ...] = (
    ("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("tekken.json",),
    ("spiece.model",),
)  # fmt: skip
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"As open_clip's `local-dir:` looks for them; it takes `model.safetensors` where neither is there."


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeModel:
    """What a complete folder says of itself."""

    folder: Path
    configuration: Mapping[str, Any]
    "config.json, or the `model_cfg` of open_clip_config.json."
    for_open_clip: bool
    tensor_files: tuple[Path, ...]
    n_parameters: int
    weight_bytes: int


def whole_model(folder: Path) -> WholeModel:
    """Look the folder over.  Raises MissingWeights, CorruptArtifact, UnsafeWeights, each naming the file."""
    if not folder.is_dir():
        raise MissingWeights(f"there is no folder {folder}", hint="localmel weights list")
    for_transformers = (folder / CONFIGURATION).is_file()
    its_weights = any((folder / name).is_file() for name in _OPEN_CLIP_WEIGHTS)
    for_open_clip = (folder / OPEN_CLIP).is_file() and (its_weights or not for_transformers)
    if not for_open_clip and not for_transformers:
        raise MissingWeights(f"{folder} holds no model: it has neither {CONFIGURATION} nor {OPEN_CLIP}")
    for path in sorted(folder.rglob("*.json")):
        _check_readable(path)
        check_configuration(str(path), path)
    configuration = _mapping(folder / (OPEN_CLIP if for_open_clip else CONFIGURATION))
    if for_open_clip:
        configuration = configuration.get("model_cfg", {})
        if not isinstance(configuration, dict):
            raise CorruptArtifact(f"{folder / OPEN_CLIP} has a model_cfg that is no table")
    headers = _open_clip_header(folder) if for_open_clip else _headers(folder)
    _check_tokenizer(folder, configuration, for_open_clip=for_open_clip)
    if "vision_config" in configuration and not any((folder / name).is_file() for name in _PROCESSORS):
        raise MissingWeights(f"{folder} is incomplete: {' or '.join(_PROCESSORS[:2])} is missing")
    return WholeModel(
        folder=folder,
        configuration=configuration,
        for_open_clip=for_open_clip,
        tensor_files=tuple(headers),
        n_parameters=sum(n_parameters(tensors) for tensors in headers.values()),
        weight_bytes=sum(path.stat().st_size for path in headers),
    )


def _open_clip_header(folder: Path) -> dict[Path, dict[str, TensorPlace]]:
    for name in (*_OPEN_CLIP_WEIGHTS, _SINGLE):
        if (folder / name).is_file():
            return {folder / name: _header(folder / name)}
    raise MissingWeights(f"{folder} is incomplete: {_no_weights(folder, _OPEN_CLIP_WEIGHTS[0])}")


def _headers(folder: Path) -> dict[Path, dict[str, TensorPlace]]:
    """The files a loader would read, with their headers."""
    headers: dict[Path, dict[str, TensorPlace]] = {}
    if (folder / _SINGLE).is_file():
        headers[folder / _SINGLE] = _header(folder / _SINGLE)
    if (folder / _INDEX).is_file():
        headers |= _shards(folder, folder / _INDEX)
    if not headers:
        raise MissingWeights(
            f"{folder} is incomplete: {_no_weights(folder, f'{_SINGLE} (or an index with its shards)')}"
        )
    return headers


def _shards(folder: Path, index: Path) -> dict[Path, dict[str, TensorPlace]]:
    named = _mapping(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise CorruptArtifact(f"{index} names no shards")
    headers: dict[Path, dict[str, TensorPlace]] = {}
    for tensor, shard in named.items():
        if not isinstance(shard, str) or "/" in shard or not shard.endswith(".safetensors"):
            raise CorruptArtifact(f"{index} names {shard!r} as the shard of {tensor!r}")
        path = folder / shard
        if path not in headers:
            if not path.is_file():
                raise MissingWeights(f"{folder} is incomplete: shard {shard}, which {index.name} names, is missing")
            headers[path] = _header(path)
        if tensor not in headers[path]:
            raise CorruptArtifact(f"{path} lacks tensor {tensor!r}, which {index.name} says is there")
    return headers


def _header(path: Path) -> dict[str, TensorPlace]:
    _check_readable(path)
    with path.open("rb") as file:
        check_beginning(str(path), file.read(64))
    header = read_header(path)
    if not header:
        raise CorruptArtifact(f"{path} holds no tensors")
    return header


def _no_weights(folder: Path, wanted: str) -> str:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickles:
        return f"its weights are pickles ({', '.join(pickles[:3])}), and only safetensors are read"
    return f"{wanted} is missing"


def _check_tokenizer(folder: Path, configuration: Mapping[str, Any], *, for_open_clip: bool) -> None:
    text = configuration.get("text_cfg")
    if for_open_clip and not (isinstance(text, dict) and text.get("hf_tokenizer_name")):
        return  # open_clip brings the tokenizer of CLIP itself
    if not for_open_clip and not {"vocab_size", "text_config", "llm_config"} & set(configuration):
        return  # a model that reads no text
    for names in _TOKENIZERS:
        if all((folder / name).is_file() for name in names):
            for name in names:
                _check_readable(folder / name)
                if name.endswith(".json"):
                    _check_parses(folder / name)
            return
    raise MissingWeights(f"{folder} is incomplete: the tokenizer is missing (tokenizer.json or tokenizer.model)")


def _check_parses(path: Path) -> None:
    """A vocabulary that was cut off is found here, not by the model's first words."""
    try:
        if isinstance(json.loads(path.read_bytes()), dict):
            return
        why = "no object"
    except (ValueError, RecursionError) as error:
        why = str(error)
    raise CorruptArtifact(f"{path} is damaged: it holds no tokenizer ({why})")


def _check_readable(path: Path) -> None:
    try:
        if path.stat().st_size == 0:
            raise CorruptArtifact(f"{path} is empty")
    except OSError as error:  # a link into nowhere, a folder that may not be read
        raise MissingWeights(f"{path} cannot be read ({error.strerror})") from None


def _mapping(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except LocalmelError as error:
        raise CorruptArtifact(error.fact) from None
    if not isinstance(value, dict):
        raise CorruptArtifact(f"{path} is no table of settings")
    return value
