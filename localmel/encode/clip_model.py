"""Load a CLIP model from its folder through open_clip, and hold what was built against what the folder says.

In: a folder's facts and a device.  Out: the model at rest, its tokenizer and its preparation of pictures.  Only the
folder is read: no hub is asked, no pickle is opened, a text tower named by a hub is refused before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from localmel.encode.clip_folder import ClipFolder, same
from localmel.errors import CorruptArtifact, MissingExtra, UsageError, shell_line

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"Our names and open_clip's.  In the short ones norms stay in float32, as the models were trained."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipModel:
    """A loaded model."""

    network: Any
    "open_clip's; at rest, without gradients."
    tokenize: Callable[[list[str]], torch.Tensor]
    "n texts -> (n, context) int64, padded."
    prepare: Callable[[Image], torch.Tensor]
    "An RGB picture -> (3, height, width) float32."
    device: torch.device
    dtype: torch.dtype
    "Of the pictures that go in."


def load_clip(folder: ClipFolder, *, device: str = "auto", precision: str = "auto") -> ClipModel:
    """Build and check.  `auto`: CUDA where there is a GPU, in bfloat16 or float16; else the CPU, in float32.

    Raises MissingExtra without open_clip, CorruptArtifact where weights or preparation are not the folder's own."""
    open_clip = _open_clip()
    import torch

    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if precision == "auto":
        short = "bfloat16" if place.type == "cuda" and torch.cuda.is_bf16_supported() else "float16"
        precision = "float32" if place.type == "cpu" else short
    if precision not in _PRECISIONS:
        raise UsageError(f"precision is {precision!r}; it is one of auto, {', '.join(_PRECISIONS)}")
    with _quiet(), torch.random.fork_rng(devices=[]):  # random weights are drawn first; the caller's chance stays its
        try:
            model = _built(folder, open_clip, place, precision)
            _check_vectors(folder, model)
        except CorruptArtifact:
            raise
        except Exception as error:  # noqa: BLE001 - of a folder that does not fit itself it raises whatever it meets
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise CorruptArtifact(
                f"{folder.path} does not load through open_clip ({reason})", hint=shell_line("ls -l", folder.path)
            ) from None
    return model


def _built(folder: ClipFolder, open_clip: Any, device: torch.device, precision: str) -> ClipModel:
    import torch

    name, preparing = f"local-dir:{folder.path}", open_clip.transform
    network = open_clip.create_model(
        name, load_weights=False, pretrained_image=False, pretrained_text=False,
        precision=_PRECISIONS[precision], device=device,
    )  # fmt: skip
    _check_shapes(folder, network)
    open_clip.load_checkpoint(network, str(folder.weights), strict=True)
    network.eval().requires_grad_(False)
    tokenizer = open_clip.get_tokenizer(name)
    _check_tokenizer(folder, network, tokenizer)
    prepare = preparing.image_transform_v2(preparing.PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    _check_preparation(folder, network, prepare)
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
    return ClipModel(network=network, tokenize=tokenizer, prepare=prepare, device=device, dtype=dtype)


def _open_clip() -> Any:
    try:
        with _quiet():
            import open_clip
    except ImportError as error:
        raise MissingExtra(
            f"CLIP models need open_clip, which cannot be imported ({error})", hint="pip install 'localmel[clip]'"
        ) from None
    except RuntimeError as error:  # torchvision says so where its binary was built for another torch
        raise MissingExtra(
            f"CLIP models need a torchvision that fits this torch ({error})", hint="pip install torch torchvision"
        ) from None
    return open_clip


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip speaks to the root logger, which gets a handler by that, and warns of weights we load ourselves."""
    root, silent, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(silent)
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(silent)


def _check_shapes(folder: ClipFolder, network: Any) -> None:
    """The weights are for pictures and texts of the configured size; open_clip would stretch them to another."""
    from safetensors import safe_open

    built = network.state_dict()
    with safe_open(folder.weights, "pt") as stored:
        for name in stored.keys():  # noqa: SIM118 - no mapping
            own = next((built[full] for full in (name, f"text.{name}") if full in built), None)
            shape = tuple(stored.get_slice(name).get_shape())
            if own is not None and own.numel() > 1 and shape != tuple(own.shape):
                raise _otherwise(folder, f"weights {name} of shape", shape, tuple(own.shape))


def _check_preparation(folder: ClipFolder, network: Any, prepare: Any) -> None:
    """What stands in the configuration is what pictures go through, step by step."""
    from PIL import Image

    said = asdict(folder.preparation)
    built = dict(network.visual.preprocess_cfg)
    if isinstance(built.get("size"), int):
        built["size"] = (built["size"], built["size"])
    for step in prepare.transforms:
        built |= {name: getattr(step, name) for name in ("mean", "std") if hasattr(step, name)}
        if hasattr(step, "interpolation"):
            built["interpolation"] = step.interpolation.value
    for key, value in said.items():
        if not same(value, built.get(key)):
            raise _otherwise(folder, f"{key} of pictures", value, built.get(key))
    height, width = folder.preparation.size
    shape = tuple(prepare(Image.new("RGB", (2 * width, 3 * height))).shape)
    if shape != (3, height, width):
        raise _otherwise(folder, "shape of pictures", (3, height, width), shape)


def _check_tokenizer(folder: ClipFolder, network: Any, tokenizer: Any) -> None:
    """Texts are cut where the model ends, by the tokenizer it was trained with."""
    text = getattr(network, "text", network)
    context = folder.context or text.context_length
    for built in (text.context_length, tokenizer.context_length, tokenizer(["a"]).shape[1]):
        if built != context:
            raise _otherwise(folder, "context_length of texts", context, built)
    own = getattr(tokenizer, "vocab_size", None)
    known = len(tokenizer.tokenizer) if own is None else own
    if known > text.vocab_size or (own is not None and own != text.vocab_size):
        raise _otherwise(folder, "vocab_size", text.vocab_size, known)


def _check_vectors(folder: ClipFolder, model: ClipModel) -> None:
    """A text and a picture pass, and come out as vectors of the width that the folder names."""
    import torch
    from PIL import Image

    picture = model.prepare(Image.new("RGB", (64, 64), "gray"))[None]
    with torch.inference_mode():
        made = {
            "texts": model.network.encode_text(model.tokenize(["a"]).to(model.device)),
            "pictures": model.network.encode_image(picture.to(model.device, model.dtype)),
        }
    for what, vectors in made.items():
        if tuple(vectors.shape) != (1, folder.width):
            raise _otherwise(folder, f"vectors of {what} of shape", (1, folder.width), tuple(vectors.shape))
        if not bool(torch.isfinite(vectors).all()):
            fact = f"{folder.weights} is damaged: its vectors of {what} hold values that are no numbers"
            raise CorruptArtifact(fact, hint=shell_line("sha256sum", folder.weights))


def _otherwise(folder: ClipFolder, what: str, said: object, built: object) -> CorruptArtifact:
    return CorruptArtifact(
        f"{folder.path} is not used: it has {what} {said}, open_clip built {built}", hint=shell_line("ls", folder.path)
    )
