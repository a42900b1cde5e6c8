"""A folder with a model, before anything loads it: is it whole, is it safe, how large is it.

In: a folder.  Out: what its configuration and the headers of its files say.  Refuses, with the file's name, what
brings code (`auto_map`), what has no safetensors, and what is missing or cut off.  Reads no tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, MissingWeights, shell_line

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("tekken.json",))
_LONGEST_HEADER = 100_000_000
"Bytes; the format's own limit."
_LARGEST_JSON = 16 * 1024 * 1024
_DATA = ("tokenizer.json", "vocab.json", "added_tokens.json", "tekken.json", _INDEX)
"JSON that is a vocabulary or a list of files: any word may be a key there."
_REMOTE_CODE = ("auto_map", "custom_pipelines")
"Keys by which a configuration names Python files that a loader would import."


@dataclass(frozen=True)
class ModelFolder:
    """A model that can be loaded, as far as can be told without loading it."""

    path: Path
    config: Mapping[str, Any]
    "config.json."
    weight_files: tuple[Path, ...]

    @cached_property
    def weight_bytes(self) -> int:
        """On disk, headers included."""
        return sum(file.stat().st_size for file in self.weight_files)

    @property
    def text_config(self) -> Mapping[str, Any]:
        """Of the language model, where it stands beside that of a vision tower; else the whole configuration."""
        found = self.config.get("text_config") or self.config.get("llm_config") or self.config
        return found if isinstance(found, dict) else self.config

    @property
    def takes_pictures(self) -> bool:
        """Whether it has a vision tower."""
        return "vision_config" in self.config

    @property
    def context(self) -> int:
        """Tokens the model was made for; 0 where it does not say."""
        return _whole(self.text_config.get("max_position_embeddings"))

    @property
    def quantized_as(self) -> str:
        """How the weights in the files are quantised ("awq", "gptq", ...); empty where they are not."""
        found = self.config.get("quantization_config") or self.config.get("compression_config") or {}
        return str(found.get("quant_method", "")) if isinstance(found, dict) else ""

    @property
    def bytes_per_number(self) -> int:
        """Of the weights as they are stored; 2 where the configuration does not say."""
        stored = self.text_config.get("dtype") or self.text_config.get("torch_dtype")
        stored = stored or self.config.get("dtype") or self.config.get("torch_dtype")
        return 4 if stored == "float32" else 2

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token over all layers, two bytes each."""
        text = self.text_config
        heads = _whole(text.get("num_attention_heads")) or 32
        of_keys = _whole(text.get("num_key_value_heads")) or heads
        width = _whole(text.get("head_dim")) or (_whole(text.get("hidden_size")) or 4096) // heads
        return 2 * 2 * (_whole(text.get("num_hidden_layers")) or 32) * of_keys * width


def model_folder(path: Path) -> ModelFolder:
    """Look a folder over.  Raises MissingWeights for what is not there, CorruptArtifact for what is not usable."""
    if not path.is_dir():
        raise MissingWeights(f"there is no folder {path}", hint="localmel weights list")
    if not (path / "config.json").is_file():
        raise MissingWeights(f"{path} holds no model: config.json is missing", hint=shell_line("ls -l", path))
    for file in sorted(path.glob("*.json")):
        if file.name not in _DATA and (key := code_in(_parsed(file))):
            raise CorruptArtifact(
                f"{file} has {key!r}: it asks for Python code from the model's folder to be run, which is never done",
                hint="localmel weights list",
            )
    config = _parsed(path / "config.json")
    if not isinstance(config, dict):
        raise CorruptArtifact(f"{path / 'config.json'} is no table of settings")
    if not any(all((path / name).is_file() for name in names) for names in _TOKENIZERS):
        raise MissingWeights(f"{path} is incomplete: the tokenizer is missing (tokenizer.json or tokenizer.model)")
    processors = ("preprocessor_config.json", "processor_config.json")
    if "vision_config" in config and not any((path / name).is_file() for name in processors):
        raise MissingWeights(f"{path} is incomplete: {' or '.join(processors)} is missing")
    files = tuple(_weight_files(path))
    for file in files:
        _check_length(file)
    return ModelFolder(path, config, files)


def _weight_files(path: Path) -> Iterator[Path]:
    if (path / _INDEX).is_file():
        index = _parsed(path / _INDEX)
        named = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(named, dict) or not named:
            raise CorruptArtifact(f"{path / _INDEX} names no files")
        for name in sorted({str(name) for name in named.values()}):
            if "/" in name or not name.endswith(".safetensors"):
                raise CorruptArtifact(f"{path / _INDEX} names {name!r}, which is no safetensors file of this folder")
            if not (path / name).is_file():
                raise MissingWeights(f"{path} is incomplete: {name}, which {_INDEX} names, is missing")
            yield path / name
    elif (path / _SINGLE).is_file():
        yield path / _SINGLE
    else:
        pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
        raise MissingWeights(
            f"{path} has no safetensors, only pickles ({', '.join(pickles[:3])}), which are never read"
            if pickles
            else f"{path} is incomplete: {_SINGLE} is missing",
            hint="localmel weights list",
        )


def _check_length(path: Path) -> None:
    """A file that a copy cut off says so here, not half an hour later."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_LONGEST_HEADER, size - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            header = json.loads(file.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CorruptArtifact(f"{path} is no safetensors file ({error})", hint=shell_line("ls -l", path)) from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise CorruptArtifact(
            f"{path} has {size:,} bytes; its header says {expected:,}",
            hint=shell_line("localmel weights verify", path.parent),
        )


def _parsed(path: Path) -> Any:
    try:
        if (size := path.stat().st_size) > _LARGEST_JSON:
            raise ValueError(f"{size:,} bytes; at most {_LARGEST_JSON:,} are read")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{path} is no JSON ({error})", hint=shell_line("ls -l", path)) from None


def code_in(value: Any) -> str:
    """The first key, at any depth, by which a loader would import Python from the folder; empty where there is none."""
    left = [value]
    while left:
        current = left.pop()
        if isinstance(current, dict):
            for key in _REMOTE_CODE:
                if key in current:
                    return key
            left.extend(current.values())
        elif isinstance(current, list):
            left.extend(current)
    return ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
