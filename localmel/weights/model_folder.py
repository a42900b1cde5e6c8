"""One check of a folder with a model: is it complete, is it safe, and what does it say of itself?

In: a folder.  Out: a ModelFolder with what its configuration and the headers of its files say.  Raises MissingWeights
with the name of a file that is missing, CorruptArtifact for a damaged one, and UnsafeWeights for one that brings code.
Reads configurations and headers, never tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights, shell_line
from localmel.store.artifacts import MANIFEST, sha256_of
from localmel.weights.contents import TensorPlace, check_beginning, check_configuration, read_header, read_json

CONFIGURATION, OPEN_CLIP = "config.json", "open_clip_config.json"
_TOKENIZERS: tuple[tuple[str, ...], ...] = (
    ("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("tekken.json",),
    ("spiece.model",),
)  # fmt: skip
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"The files that open_clip's `local-dir:` looks for; without them it takes `model.safetensors`."
_TEXT_PARTS = ("text_config", "llm_config", "text_cfg")
_HASHED_UP_TO = 64 * 1024 * 1024
"Bytes: every configuration and tokenizer is smaller, every weight file of use is larger."
_DECIDING = {".json", ".jinja", ".model", ".txt"}


@dataclass(frozen=True)
class ModelFolder:
    """A complete model and what its files say of it."""

    path: Path
    config: Mapping[str, Any]
    "config.json, or the `model_cfg` of open_clip_config.json."
    weight_files: tuple[Path, ...]
    n_parameters: int = 0
    "Numbers in the tensors; of weights packed to 4 bit, the packed ones."
    for_open_clip: bool = False

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the weights on disk, headers included."""
        return sum(file.stat().st_size for file in self.weight_files)

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The language model's part of the configuration; the whole of it where there is no such part."""
        found = (self.config.get(key) for key in _TEXT_PARTS)
        return next((part for part in found if isinstance(part, dict) and part), self.config)

    @property
    def architecture(self) -> str:
        """The first of the configuration's `architectures`; "open_clip" for a folder that open_clip reads."""
        if self.for_open_clip:
            return "open_clip"
        named = self.config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else ""

    @property
    def model_type(self) -> str:
        """The `model_type` of the configuration; empty where it has none."""
        return str(self.config.get("model_type") or "")

    @property
    def takes_pictures(self) -> bool:
        """Return whether the model has a vision tower."""
        return "vision_config" in self.config

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together, as configured; 0 where the configuration does not say."""
        parts = (self.text_config, self.config)
        keys = ("max_position_embeddings", "context_length")
        return next((found for key in keys for part in parts if (found := _count(part.get(key)))), 0)

    @property
    def dtype(self) -> str:
        """The dtype of the stored weights; empty where the configuration does not say."""
        found = (part.get(key) for part in (self.config, self.text_config) for key in ("dtype", "torch_dtype"))
        return str(next((one for one in found if one), ""))

    @property
    def bytes_per_number(self) -> int:
        """Bytes of one stored weight; 2 where the configuration does not say."""
        return 4 if self.dtype == "float32" else 2

    @property
    def quantized_as(self) -> str:
        """Return how the stored weights are quantised ("awq", "gptq", ...); empty if they are not."""
        found = self.config.get("quantization_config") or self.config.get("compression_config") or {}
        return str(found.get("quant_method", "")) if isinstance(found, dict) else ""

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token over all layers, two bytes a number."""
        text = self.text_config
        heads = _count(text.get("num_attention_heads")) or 32
        of_keys = _count(text.get("num_key_value_heads")) or heads
        width = _count(text.get("head_dim")) or (_count(text.get("hidden_size")) or 4096) // heads
        return 2 * 2 * (_count(text.get("num_hidden_layers")) or 32) * of_keys * width

    def revision(self) -> str:
        """Return a SHA-256 over everything that decides answers.

        It covers the bytes of configuration, tokenizer and templates, and of the weight files their names, sizes and,
        where a manifest of localmel is in the folder, the hashes in it."""
        told = hashlib.sha256()
        for path in sorted(self.path.iterdir()):
            if path.is_file() and path.suffix in _DECIDING and path.name != MANIFEST:
                size = path.stat().st_size
                told.update(f"{path.name}\0{sha256_of(path) if size <= _HASHED_UP_TO else size}\n".encode())
        hashes = _recorded_hashes(self.path)
        for path in sorted(self.weight_files):
            told.update(f"{path.name}\0{path.stat().st_size}\0{hashes.get(path.name, '')}\n".encode())
        return told.hexdigest()


def model_folder(folder: Path) -> ModelFolder:
    """Check a folder.  Raises MissingWeights, CorruptArtifact or UnsafeWeights, each with the name of the file."""
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
    configuration = _table(folder / (OPEN_CLIP if for_open_clip else CONFIGURATION))
    if for_open_clip:
        configuration = configuration.get("model_cfg", {})
        if not isinstance(configuration, dict):
            raise CorruptArtifact(f"the model_cfg in {folder / OPEN_CLIP} is not a table")
    headers = _open_clip_header(folder) if for_open_clip else _headers(folder)
    _check_tokenizer(folder, configuration, for_open_clip=for_open_clip)
    if "vision_config" in configuration and not any((folder / name).is_file() for name in _PROCESSORS):
        raise MissingWeights(f"{folder} is incomplete: {' or '.join(_PROCESSORS[:2])} is missing")
    return ModelFolder(
        path=folder,
        config=configuration,
        weight_files=tuple(headers),
        n_parameters=sum(place.n_numbers for tensors in headers.values() for place in tensors.values()),
        for_open_clip=for_open_clip,
    )


def _open_clip_header(folder: Path) -> dict[Path, dict[str, TensorPlace]]:
    for name in (*_OPEN_CLIP_WEIGHTS, _SINGLE):
        if (folder / name).is_file():
            return {folder / name: _header(folder / name)}
    raise _no_weights(folder, _OPEN_CLIP_WEIGHTS[0])


def _headers(folder: Path) -> dict[Path, dict[str, TensorPlace]]:
    """Return the files that a loader would read, with their headers."""
    headers: dict[Path, dict[str, TensorPlace]] = {}
    if (folder / _SINGLE).is_file():
        headers[folder / _SINGLE] = _header(folder / _SINGLE)
    if (folder / _INDEX).is_file():
        headers |= _shards(folder, folder / _INDEX)
    if not headers:
        raise _no_weights(folder, f"{_SINGLE} (or an index with its shards)")
    return headers


def _shards(folder: Path, index: Path) -> dict[Path, dict[str, TensorPlace]]:
    named = _table(index).get("weight_map")
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
            raise CorruptArtifact(f"{path} lacks tensor {tensor!r}, which {index.name} places there")
    return headers


def _header(path: Path) -> dict[str, TensorPlace]:
    _check_readable(path)
    with path.open("rb") as file:
        check_beginning(str(path), file.read(64))
    header = read_header(path)
    if not header:
        raise CorruptArtifact(f"{path} holds no tensors")
    return header


def _no_weights(folder: Path, wanted: str) -> MissingWeights:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickles:
        fact = f"its weights are pickles ({', '.join(pickles[:3])}), and only safetensors are read"
        return MissingWeights(f"{folder} is incomplete: {fact}")
    return MissingWeights(f"{folder} is incomplete: {wanted} is missing")


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
                    _check_vocabulary(folder / name)
            return
    raise MissingWeights(f"{folder} is incomplete: the tokenizer is missing (tokenizer.json or tokenizer.model)")


def _check_vocabulary(path: Path) -> None:
    """Find a vocabulary that was cut off here, not by the model's first words."""
    try:
        if isinstance(json.loads(path.read_bytes()), dict):
            return
        why = "not an object"
    except (ValueError, RecursionError) as error:
        why = str(error)
    raise CorruptArtifact(f"{path} is damaged: it holds no tokenizer ({why})")


def _check_readable(path: Path) -> None:
    try:
        if path.stat().st_size == 0:
            raise CorruptArtifact(f"{path} is empty")
    except OSError as error:  # a broken link, or a folder without permission
        raise MissingWeights(f"cannot read {path}: {error.strerror}", hint=shell_line("ls -l", path)) from None


def _table(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except LocalmelError as error:
        raise CorruptArtifact(error.fact) from None
    if not isinstance(value, dict):
        raise CorruptArtifact(f"{path} is not a table of settings")
    return value


def _recorded_hashes(folder: Path) -> dict[str, str]:
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {str(name): str(facts["sha256"]) for name, facts in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
