"""Models of a few kilobytes in the published layouts, written byte by byte, and archives that nobody should send.

No library that reads weights is used to make them: what is tested is held against something else than itself."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from localmel.errors import LocalmelError
from localmel.weights.archive import write_bytes, write_end
from localmel.weights.bundle import MODELS, manifest_bytes
from localmel.weights.manifest import FileRecord, ModelRecord

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8, "max_position_embeddings": 64}
LICENCE = "Permission is granted to test with these numbers.\n"


def tensors(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> bytes:
    """A safetensors file of F16 tensors with bytes that depend on names and seed."""
    header: dict[str, Any] = {}
    data = b""
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        stream = hashlib.shake_256(f"{name} {seed}".encode()).digest(size)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [len(data), len(data) + size]}
        data += stream
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def language_model(*, shards: int = 1, rows: int = 8, seed: int = 0) -> dict[str, bytes]:
    """The files of a small language model, in one file or in shards with their index."""
    names = [f"model.layers.{number}.weight" for number in range(4)]
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": json.dumps({"model": {"vocab": {"auto_map": 0, "b": 1}}}).encode(),
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "LICENSE": LICENCE.encode(),
        "README.md": b"---\nlicense: mit\n---\n# Small\n",
    }
    if shards == 1:
        return files | {"model.safetensors": tensors({name: (rows, 4) for name in names}, seed=seed)}
    weight_map = {}
    for number in range(shards):
        shard = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        mine = names[number::shards]
        files[shard] = tensors({name: (rows, 4) for name in mine}, seed=seed)
        weight_map |= dict.fromkeys(mine, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    return files | {"model.safetensors.index.json": json.dumps(index).encode()}


def vision_language_model() -> dict[str, bytes]:
    """The same with a vision tower: its picture processor is part of a whole model."""
    config = {**CONFIG, "model_type": "llava_next", "vision_config": {"hidden_size": 4}, "text_config": CONFIG}
    processor = {"processor_config.json": b"{}", "preprocessor_config.json": b'{"size": 336}'}
    return language_model(shards=2) | {"config.json": json.dumps(config).encode()} | processor


def clip() -> dict[str, bytes]:
    """A model for open_clip."""
    config = {"model_cfg": {"embed_dim": 4, "text_cfg": {"context_length": 77}}, "preprocess_cfg": {}}
    return {
        "open_clip_config.json": json.dumps(config).encode(),
        "open_clip_model.safetensors": tensors({"visual.proj": (4, 4)}),
    }


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder and return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def record(name: str, files: Mapping[str, bytes], **more: str) -> ModelRecord:
    """The true record of files."""
    records = {path: FileRecord(bytes=len(data), sha256=sha256(data)) for path, data in files.items()}
    return ModelRecord(name=name, files=records, **more)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def error_of(call: Callable[[], object]) -> LocalmelError | None:
    """The error of ours that a call raises; None where it raises none.  Any other error passes through."""
    try:
        call()
    except LocalmelError as error:
        return error
    return None


def forge(path: Path, files: Mapping[str, bytes], *, name: str = "small", records: Any = None) -> Path:
    """A bundle with a manifest that tells the truth about its files, whatever they are.

    With `records` (parsed JSON of the models) the manifest says that instead."""
    sbom = b"{}\n"
    made = manifest_bytes([record(name, files)], sbom)
    if records is not None:
        table = json.loads(made)
        table["models"] = records
        made = json.dumps(table).encode()
    with path.open("wb") as out:
        write_bytes(out, "", "manifest.json", made)
        write_bytes(out, "", "sbom.cdx.json", sbom)
        for file, data in sorted(files.items()):
            write_bytes(out, f"{MODELS}/{name}", file, data)
        write_end(out)
    return path


def forge_with(path: Path, files: Mapping[str, bytes], extra: Iterable[tarfile.TarInfo], data: bytes = b"") -> Path:
    """The same with members before the end that Python's own tarfile wrote; each carries `data` if it is a file."""
    forge(path, files)
    whole = path.read_bytes()[:-1024]
    for member in extra:
        member.size = len(data) if member.isreg() or member.issparse() else 0
        whole += member.tobuf(tarfile.GNU_FORMAT) + (data + bytes(-len(data) % 512) if member.size else b"")
    path.write_bytes(whole + bytes(1024))
    return path
