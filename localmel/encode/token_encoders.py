"""What makes the vectors of words within their texts, and of patches within their pictures.

In: texts, or opened pictures.  Out: for each one array of rows, of whatever length, in float16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from localmel.encode.registry import folder_of_tuned_minilm
from localmel.encode.space import ImageEncoder, Space, TextEncoder
from localmel.settings import EncodeSettings
from localmel.weights.catalog import MINILM

if TYPE_CHECKING:
    from localmel.encode.minilm import Method
    from localmel.engines.pictures import Picture

MOST_WORDS = 40
"Of a text; further ones are not looked at singly.  As M3EL, which counts the marks of beginning and end too."


class WordEncoder(TextEncoder, Protocol):
    """Texts -> the states of their words (tokens of the model's own vocabulary) in its last layer."""

    @property
    def word_width(self) -> int: ...

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = ...) -> list[NDArray[Any]]:
        """n texts -> n arrays (up to MOST_WORDS, word_width) float16, without the marks of beginning and end.

        An empty text has none.  A word's state depends on its text alone up to rounding."""
        ...


class PatchEncoder(ImageEncoder, Protocol):
    """Pictures -> the states of their patches in the model's last layer."""

    @property
    def patch_width(self) -> int: ...

    def patches(self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = ...) -> list[NDArray[Any]]:
        """n pictures -> n arrays (patches, patch_width) float16, row by row of the picture, without the whole's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEncoders:
    """What makes wholes and their parts, of one profile."""

    text: WordEncoder
    image: PatchEncoder | None
    "None where the model reads texts only, or no pictures are to be looked at."

    @property
    def image_space(self) -> Space | None:
        """Of the pictures, where some are looked at."""
        return self.image.image_space if self.image else None


def open_token_encoders(settings: EncodeSettings, *, method: Method | None = None) -> TokenEncoders:
    """As `open_encoder`, with words and patches."""
    folder = folder_of_tuned_minilm(settings)
    if folder or settings.model == MINILM.name:
        from localmel.encode.minilm_words import MiniLmWords

        return TokenEncoders(text=MiniLmWords(method=method, tuned=folder), image=None)
    from localmel.encode.clip_tokens import ClipTokens
    from localmel.weights.find import model_folder

    clip = ClipTokens(model_folder(settings.model))
    return TokenEncoders(text=clip, image=clip)
