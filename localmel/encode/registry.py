"""The registry of encoders: every kind that `[encode] model` may name, and what it needs.

In: a name or path from a profile.  Out: an encoder of texts, and one of pictures where the model reads them.
To add an encoder, write its class in a file of its own and add a line to ENCODERS.  Nothing large is loaded before
something is encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localmel.encode.space import Method, PatchEncoder, Space, WordEncoder
from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights, UsageError
from localmel.settings import EncodeSettings
from localmel.weights.catalog import MINILM
from localmel.weights.find import find_model
from localmel.weights.model_folder import OPEN_CLIP, model_folder
from localmel.weights.tuned import CARD, CLIP, MADE_AGAIN, folder_named, looks_tuned, tuned_card

if TYPE_CHECKING:
    from localmel.encode.tunable import TunableEncoder  # imports torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """The encoders of one profile."""

    text: WordEncoder
    image: PatchEncoder | None
    "None where the model reads texts only, or pictures are to be ignored."

    @property
    def image_space(self) -> Space | None:
        """Return the space of the pictures' vectors, or None where pictures are not encoded."""
        return self.image.image_space if self.image else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderKind:
    """One kind of encoder."""

    title: str
    open: Callable[[str, Path | None, Method | None], Encoders]
    """Called with the model as the profile names it, the folder if the model was tuned here, and the method.  Raises
    MissingWeights or CorruptArtifact for files that cannot be used."""
    extra: str = ""
    "The extra of localmel that installs its packages; empty where the default installation has them."
    modules: tuple[str, ...] = ()
    "What it imports that takes seconds."
    slow_modules: tuple[str, ...] = ()
    "What it imports that may take a minute."


def _open_minilm(_model: str, tuned: Path | None, method: Method | None) -> Encoders:
    from localmel.encode.minilm import MiniLM

    return Encoders(text=MiniLM(method=method, tuned=tuned), image=None)


def _open_clip(model: str, tuned: Path | None, _method: Method | None) -> Encoders:
    from localmel.encode.clip import Clip

    if tuned and (card := tuned_card(tuned)):
        _check_whole(tuned)
        card.check_files(tuned)
    clip = Clip(find_model(model).path)
    return Encoders(text=clip, image=clip)


ENCODERS = {
    MINILM.name: EncoderKind(title="MiniLM", open=_open_minilm),
    CLIP: EncoderKind(
        title="CLIP", open=_open_clip, extra="clip", modules=("torch", "torchvision"), slow_modules=("open_clip",)
    ),
}
"By the name that the card of a tuned encoder gives its kind.  A folder without a card is read as CLIP."


def open_encoder(settings: EncodeSettings, *, method: Method | None = None) -> Encoders:
    """Find the model, check its files and return its encoders.

    Raises MissingWeights for a model that is not on this machine, CorruptArtifact for one that cannot be used."""
    kind, tuned = _find(settings.model)
    return ENCODERS[kind].open(settings.model, tuned, method)


def tunable(encoders: Encoders, *, recompute: bool) -> TunableEncoder:
    """Return a copy of a profile's encoder in float32, to be trained.

    recompute: whether to save memory by running each layer again for its gradient.
    Raises UsageError for an encoder that cannot be tuned."""
    make = getattr(encoders.text, "tunable", None)
    if make is None:
        names = " and ".join(kind.title for kind in ENCODERS.values())
        fact = f"cannot tune {encoders.text.space.name}: only {names} models can be tuned"
        raise UsageError(fact, hint="--profile NAME")
    encoder: TunableEncoder = make(sees=encoders.image is not None, recompute=recompute)
    return encoder


def encoder_kind(model: str) -> EncoderKind:
    """Return the kind of encoder that a profile names, without checking that it can be used.

    A folder that does not exist, or whose card cannot be read, counts as CLIP; opening it says what is wrong."""
    try:
        return ENCODERS[_find(model)[0]]
    except LocalmelError:
        return ENCODERS[CLIP]


def _find(model: str) -> tuple[str, Path | None]:
    """Return the key of a model's kind, and its folder if it was tuned here.

    Raises MissingWeights or CorruptArtifact for a tuned encoder that is incomplete."""
    if model in ENCODERS:
        return model, None
    folder = folder_named(model)
    if folder is None or not looks_tuned(folder):
        return CLIP, None
    by_path = "/" in model
    card = tuned_card(folder if by_path else find_model(model).path)
    if card:
        return card.model, folder
    if by_path and not (folder / OPEN_CLIP).is_file():  # a published CLIP may be in a folder of this name too
        _check_whole(folder)
        raise MissingWeights(f"{folder} is not a tuned encoder: {CARD} is missing", hint=MADE_AGAIN)
    return CLIP, None


def _check_whole(folder: Path) -> None:
    try:
        model_folder(folder)
    except (MissingWeights, CorruptArtifact) as error:
        raise type(error)(error.fact, hint=MADE_AGAIN) from None
