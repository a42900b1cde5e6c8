"""Load a CLIP model from its folder through open_clip, and compare what was built with what the folder says.

In: the facts of a folder, and a device.  Out: the model in evaluation mode, with its tokenizer, its preparation of
pictures and the arithmetic of its towers.  Only the folder is read: no hub is asked and no pickle is opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from localmel.encode.clip_folder import ClipFolder, same
from localmel.errors import BadInput, CorruptArtifact, MissingExtra, UnknownChoice, shell_line

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"Our names and open_clip's.  In 16 bits, norms stay in float32, as the models were trained."
_LONGEST_SHAPE = 16
"A picture longer than this many times its short side is cropped to its middle; scaled up it would fill the memory."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipModel:
    """A loaded model."""

    name: str
    "The folder, as errors name it."
    network: Any
    "The model of open_clip, in evaluation mode and without gradients."
    tokenize: Callable[[list[str]], Tensor]
    "Turns n texts into token ids, (n, context) int64, padded."
    prepare: Callable[[Image], Tensor]
    "Turns an RGB picture into (3, height, width) float32."
    device: torch.device
    dtype: torch.dtype
    "The type of the prepared pictures that the network takes."

    @property
    def is_causal(self) -> bool:
        """Return whether no token sees those after it and the last one stands for the text, so that padding is idle.

        Published CLIP models are causal; SigLIP reads the padding."""
        text_pool: str = getattr(self.network, "text_pool_type", "")
        return getattr(self.network, "attn_mask", None) is not None and text_pool in ("argmax", "eos")

    def check_words(self) -> None:
        """Raise BadInput unless words can be told from padding."""
        if not self.is_causal:
            raise BadInput(f"cannot encode single words with {self.name}: its text tower reads the padding")

    def check_patches(self) -> None:
        """Raise BadInput unless the image tower is a transformer of patches."""
        if getattr(self.network.visual, "transformer", None) is None:
            raise BadInput(f"cannot encode patches with {self.name}: its image tower is not a transformer of patches")

    def ends(self, tokens: Tensor) -> Tensor:
        """Return where each text's last token is, (n,): the highest id, or the one that the model names."""
        marks = tokens if self.network.text_pool_type == "argmax" else (tokens == self.network.text_eos_id).int()
        return marks.argmax(dim=1)

    def text_states(self, tokens: Tensor) -> Tensor:
        """Return the states of a causal text tower after its last norm, (n, length, tower width).

        tokens: (n, length), cut after any token: no state depends on what follows it."""
        network, length = self.network, tokens.shape[1]
        dtype = network.transformer.get_cast_dtype()
        states = network.token_embedding(tokens).to(dtype) + network.positional_embedding[:length].to(dtype)
        found: Tensor = network.ln_final(network.transformer(states, attn_mask=network.attn_mask[:length, :length]))
        return found

    def projected(self, states: Tensor) -> Tensor:
        """Return vectors of texts, (n, width), not normalised.  states: those of the last tokens, (n, tower width)."""
        if (projection := self.network.text_projection) is None:
            return states
        made: Tensor = projection(states) if callable(projection) else states @ projection
        return made

    def whole_and_patches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors of pictures (n, width), not normalised, and their patches (n, patches, tower width)."""
        held: list[Tensor] = []
        hook = self.network.visual.transformer.register_forward_hook(lambda _, _given, states: held.append(states))
        try:
            whole: Tensor = self.network.encode_image(pixels)
        finally:
            hook.remove()
        return whole, held[0][:, 1:]  # the first state is that of the whole picture


def bounded(image: Image) -> Image:
    """Return the picture, or the middle of an extremely long one."""
    width, height = image.size
    most = _LONGEST_SHAPE * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


def load_clip(folder: ClipFolder, *, device: str = "auto", precision: str = "auto") -> ClipModel:
    """Build the model and check it.  `auto` takes a GPU, in bfloat16 or float16, or else the CPU in float32.

    Raises MissingExtra without open_clip, CorruptArtifact where the weights or the preparation of pictures differ from
    what the folder says."""
    open_clip = _open_clip()
    import torch

    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if precision == "auto":
        short = "bfloat16" if place.type == "cuda" and torch.cuda.is_bf16_supported() else "float16"
        precision = "float32" if place.type == "cpu" else short
    if precision not in _PRECISIONS:
        raise UnknownChoice("precision", precision, ("auto", *_PRECISIONS))
    with _quiet(), torch.random.fork_rng(devices=[]):  # random weights are drawn first; keep the caller's random state
        try:
            model = _built(folder, open_clip, place, precision)
            _check_vectors(folder, model)
        except CorruptArtifact:
            raise
        except Exception as error:  # noqa: BLE001 - open_clip raises anything for an inconsistent folder
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise CorruptArtifact(
                f"cannot load {folder.path} with open_clip ({reason})", hint=shell_line("ls -l", folder.path)
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
    return ClipModel(
        name=str(folder.path), network=network, tokenize=tokenizer, prepare=prepare, device=device, dtype=dtype
    )


def _open_clip() -> Any:
    try:
        with _quiet():
            import open_clip
    except ImportError as error:
        raise MissingExtra(
            f"cannot import open_clip, which CLIP models need ({error})", hint="pip install 'localmel[clip]'"
        ) from None
    except RuntimeError as error:  # how torchvision fails when its binary was built for another torch
        raise MissingExtra(
            f"cannot import torchvision, which CLIP models need: it was built for another torch ({error})",
            hint="pip install torch torchvision",
        ) from None
    return open_clip


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip: it logs to the root logger, and warns of weights that are loaded afterwards."""
    root, silent, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(silent)
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(silent)


def _check_shapes(folder: ClipFolder, network: Any) -> None:
    """Refuse weights for pictures or texts of another size, which open_clip would silently interpolate."""
    from safetensors import safe_open

    built = network.state_dict()
    with safe_open(folder.weights, "pt") as stored:
        for name in stored.keys():  # noqa: SIM118 - no mapping
            own = next((built[full] for full in (name, f"text.{name}") if full in built), None)
            shape = tuple(stored.get_slice(name).get_shape())
            if own is not None and own.numel() > 1 and shape != tuple(own.shape):
                raise _otherwise(folder, f"weights {name} of shape", shape, tuple(own.shape))


def _check_preparation(folder: ClipFolder, network: Any, prepare: Any) -> None:
    """Refuse a preparation of pictures in which a step differs from the configuration."""
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
    """Refuse a tokenizer with another context length or vocabulary than the model's."""
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
    """Encode one text and one picture; refuse vectors of another width, or with values that are not finite."""
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
            fact = f"{folder.weights} is damaged: its vectors of {what} are not finite"
            raise CorruptArtifact(fact, hint=shell_line("sha256sum", folder.weights))


def _otherwise(folder: ClipFolder, what: str, said: object, built: object) -> CorruptArtifact:
    return CorruptArtifact(
        f"cannot use {folder.path}: it has {what} {said}, but open_clip built {built}",
        hint=shell_line("ls", folder.path),
    )
