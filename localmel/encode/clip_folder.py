"""Read the folder of a CLIP model: its architecture, its weights, and how pictures and texts are prepared.

In: a folder in open_clip's layout (open_clip_config.json, safetensors, tokenizer files).  Out: its facts, and a hash of
everything that a vector depends on.  Refuses a folder whose files do not fully define the preparation of pictures, or
contradict each other: open_clip silently fills such gaps with the values of another model.  Loads no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localmel.errors import CorruptArtifact, MissingWeights, shell_line
from localmel.store.artifacts import sha256_of
from localmel.weights.contents import check_configuration
from localmel.weights.tuned import tuned_card

CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model",
)  # fmt: skip
_REQUIRED = ("mean", "std")
_USUAL = {"interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0, "mode": "RGB"}
"Values that open_clip's own configurations leave out."
_CHOICES = {
    "interpolation": ("bicubic", "bilinear"),
    "resize_mode": ("shortest", "longest", "squash"),
    "mode": ("RGB",),
}
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
"The numbers that a preprocessor_config.json uses for interpolations."


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The steps that prepare a picture for the model."""

    size: tuple[int, int]
    "Height and width in pixels."
    mean: tuple[float, ...]
    "Subtracted from red, green and blue (0 to 1)."
    std: tuple[float, ...]
    "Red, green and blue are then divided by this."
    interpolation: str
    resize_mode: str
    "`shortest`: the middle of the picture; `longest`: all of it, with a border; `squash`: all of it, distorted."
    fill_color: int
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFolder:
    """The facts of a folder that can be loaded."""

    path: Path
    weights: Path
    model: Mapping[str, Any]
    "`model_cfg` of the file."
    preparation: Preparation
    width: int
    "Length of a vector."
    context: int | None
    "Most tokens of a text, begin and end included; None where the file does not say."
    sha256: str
    "The hash of weights, configuration and tokenizer: folders with the same hash make the same vectors."


def read_clip_folder(path: Path) -> ClipFolder:
    """Read a folder, check it, and hash every byte of the weights.

    Raises MissingWeights for a missing file, CorruptArtifact for files that contradict each other or have changed since
    the model was tuned, UnsafeWeights for a model that wants to run code."""
    config = _json_object(path / CONFIG)
    model, given = config.get("model_cfg"), config.get("preprocess_cfg")
    if not isinstance(model, dict) or not all(isinstance(model.get(key), dict) for key in ("vision_cfg", "text_cfg")):
        raise _unusable(path, f"{CONFIG} has no model_cfg with vision_cfg and text_cfg")
    width, context = model.get("embed_dim"), model["text_cfg"].get("context_length")
    if type(width) is not int or width < 1 or not (context is None or _is_count(context)):
        raise _unusable(path, f"{CONFIG} has embed_dim {width!r} and context_length {context!r}; both are numbers")
    if name := model["text_cfg"].get("hf_model_name"):
        raise _unusable(path, f"its text model {name!r} would be looked up on the hub; only open_clip's own are read")
    preparation = _preparation(path, given, model["vision_cfg"])
    for file in sorted(path.glob("*.json")):
        check_configuration(str(file), file)  # tokenizers are loaded by transformers, which would import code
    _check_against_transformers(path, preparation, model)
    weights = _weights(path)
    facts = {
        "weights": sha256_of(weights),
        "model": model,
        "preparation": asdict(preparation),
        "tokenizer": _tokenizer(path, model["text_cfg"]),
    }
    sha256 = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    if card := tuned_card(path):
        card.check(path, sha256)
    return ClipFolder(
        path=path, weights=weights, model=model, preparation=preparation, width=width, context=context, sha256=sha256
    )


def _preparation(path: Path, given: Any, vision: Mapping[str, Any]) -> Preparation:
    """Read `preprocess_cfg`; refuse values that open_clip would ignore, and gaps that it would fill."""
    if not isinstance(given, dict) or (lacking := [key for key in _REQUIRED if key not in given]):
        what = " and ".join(_REQUIRED if not isinstance(given, dict) else lacking)
        raise _unusable(
            path, f"{CONFIG} gives no {what} in preprocess_cfg; open_clip would take those of another model"
        )
    if unknown := sorted(given.keys() - {*_REQUIRED, *_USUAL, "size"}):
        raise _unusable(path, f"{CONFIG} has {', '.join(unknown)} in preprocess_cfg, which open_clip does not read")
    size = _two(vision.get("image_size", 224))
    if size is None or ("size" in given and _two(given["size"], channels=True) != size):
        stated = given.get("size", "none")
        raise _unusable(
            path, f"{CONFIG} has size {stated} in preprocess_cfg, but image_size {vision.get('image_size')}"
        )
    merged = {**_USUAL, **given}
    for key in _REQUIRED:
        values = merged[key]
        numbers = _floats(values)
        if numbers is None or len(numbers) != 3 or (key == "std" and min(numbers) <= 0):
            raise _unusable(path, f"{CONFIG} has {key} {values!r} in preprocess_cfg; it is three numbers, std above 0")
    for key, choices in _CHOICES.items():
        if merged[key] not in choices:
            raise _unusable(path, f"{CONFIG} has {key} {merged[key]!r} in preprocess_cfg, not {' or '.join(choices)}")
    if type(merged["fill_color"]) is not int:
        raise _unusable(path, f"{CONFIG} has fill_color {merged['fill_color']!r} in preprocess_cfg; it is a number")
    return Preparation(
        size=size,
        mean=tuple(map(float, merged["mean"])),
        std=tuple(map(float, merged["std"])),
        **{key: merged[key] for key in _USUAL},
    )


def _check_against_transformers(path: Path, preparation: Preparation, model: Mapping[str, Any]) -> None:
    """Compare open_clip's configuration with that of transformers, where the folder has both."""
    other = _json_object(path / "preprocessor_config.json") if (path / "preprocessor_config.json").is_file() else {}
    cropped = other.get("crop_size") if other.get("do_center_crop", "crop_size" in other) else other.get("size")
    theirs = {
        "mean": _floats(other.get("image_mean")),
        "std": _floats(other.get("image_std")),
        "interpolation": _RESAMPLE.get(other.get("resample", -1)),
        "size": _two(cropped),
    }
    ours = asdict(preparation)
    for key, value in theirs.items():
        if value is not None and not same(value, ours[key]):
            fact = f"{CONFIG} prepares pictures with {key} {ours[key]}, its preprocessor_config.json with {value}"
            raise _unusable(path, fact)
    whole = _json_object(path / "config.json") if (path / "config.json").is_file() else {}
    vision = whole.get("vision_config")
    activation = vision.get("hidden_act") if isinstance(vision, dict) else None
    if whole.get("model_type") == "clip" and activation in ("gelu", "quick_gelu"):
        quick = bool(model.get("quick_gelu", False))
        if quick != (activation == "quick_gelu"):
            raise _unusable(path, f"{CONFIG} has quick_gelu {quick}, but its config.json hidden_act {activation!r}")


def same(one: Any, other: Any) -> bool:
    """Return whether two values of a preparation are equal; numbers may be rounded to four places."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return abs(one - other) < 1e-4 if _is_number(one) and _is_number(other) else bool(one == other)


def _weights(path: Path) -> Path:
    for name in _WEIGHTS:
        if (path / name).is_file():
            return path / name
    there = sorted(file.name for file in path.glob("*") if file.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    raise MissingWeights(
        f"{path} has no {' or '.join(_WEIGHTS[:2])}; there is {', '.join(there) or 'no file of weights'}",
        hint="localmel weights list",
    )


def _tokenizer(path: Path, text: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes of the tokenizer's files; none where the configuration means open_clip's own tokenizer."""
    if not text.get("hf_tokenizer_name"):
        return {}
    found = {name: sha256_of(path / name) for name in _TOKENIZER if (path / name).is_file()}
    if not found:
        raise MissingWeights(f"{path} has no tokenizer.json, which its {CONFIG} asks for", hint="localmel weights list")
    return found


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingWeights(
            f"{path.parent} is not a CLIP model for open_clip: {path.name} is missing", hint="localmel weights list"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptArtifact(f"cannot read {path} ({error})", hint=shell_line("ls -l", path.parent)) from None
    if not isinstance(value, dict):
        raise CorruptArtifact(f"{path} is not a JSON object", hint=shell_line("cat", path))
    return value


def _two(size: Any, *, channels: bool = False) -> tuple[int, int] | None:
    """Return (height, width) of 224, [224, 224], {"height": ..., "width": ...} or {"shortest_edge": ...}, or None."""
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")] if "height" in size else size.get("shortest_edge")
    if isinstance(size, list) and channels and len(size) == 3:
        size = size[1:]
    pair = size if isinstance(size, list) else [size, size]
    return (pair[0], pair[1]) if len(pair) == 2 and all(_is_count(side) for side in pair) else None


def _floats(values: Any) -> tuple[float, ...] | None:
    if not isinstance(values, list) or not all(_is_number(value) for value in values):
        return None
    return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _unusable(path: Path, why: str) -> CorruptArtifact:
    return CorruptArtifact(f"cannot use {path}: {why}", hint=shell_line("cat", path / CONFIG))
