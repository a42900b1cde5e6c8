"""What a picture shows, by CLIP: each choice of an attribute is a sentence, and the likeliest one is the answer.

In: pictures, an encoder of texts and pictures of one space.  Out: for each picture the attributes of which one choice
is likely enough.  What has no choices (numbers, writing) is not answered here.  Probabilities are CLIP's: a softmax of
100 times the cosines over an attribute's choices, no more than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.encode.space import ImageEncoder, Space, TextEncoder
from localmel.errors import BadInput
from localmel.see.picture_attributes import Attribute, AttributeSettings, Shown, told

_SCALE = 100.0


class TwoTowers(TextEncoder, ImageEncoder, Protocol):
    """Texts and pictures -> vectors of one space."""


class ClipAttributes:
    """Asks CLIP.  The sentences are encoded once."""

    def __init__(self, encoder: TwoTowers, settings: AttributeSettings | None = None) -> None:
        """Raises BadInput for an encoder whose texts and pictures lie in different spaces."""
        if encoder.space != encoder.image_space:
            raise BadInput(f"texts of {encoder.space.name} cannot be held against pictures of another space")
        self._settings = settings or AttributeSettings()
        self._space = encoder.space
        self._asked = [one for one in self._settings.attributes if one.choices]
        self._sentences = {one.name: encoder.encode([*one.choices.values()]) for one in self._asked}

    def shown(self, vectors: NDArray[Any], space: Space) -> list[tuple[Shown, ...]]:
        """vectors: (n, width) unit rows of pictures, or of what was cut out of them.

        Raises BadInput for vectors of another space."""
        if space != self._space:
            raise BadInput(f"pictures of {space.name} cannot be asked with sentences of {self._space.name}")
        answers: list[list[Shown]] = [[] for _ in vectors]
        for one in self._asked:
            for row, found in zip(answers, self._answered(one, vectors), strict=True):
                row.append(found)
        return [told(row, self._asked, self._settings.least) for row in answers]

    def _answered(self, one: Attribute, vectors: NDArray[Any]) -> list[Shown]:
        """The likeliest choice for each picture; equal ones by the order of the file."""
        logits = _SCALE * np.asarray(vectors, np.float64) @ self._sentences[one.name].T
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        names = [*one.choices]
        return [
            Shown(attribute=one.name, value=names[place], probability=float(row[place]))
            for row, place in zip(shares, shares.argmax(axis=1), strict=True)
        ]


def attribute_texts(shown: Sequence[Sequence[Shown]], encoder: TextEncoder) -> list[NDArray[Any]]:
    """n rows of answers -> n arrays (answers, width) of a space of texts.  Each different answer is encoded once."""
    texts = list(dict.fromkeys(one.text for row in shown for one in row))
    place = {text: number for number, text in enumerate(texts)}
    vectors = encoder.encode(texts)
    return [vectors[[place[one.text] for one in row]].reshape(-1, encoder.space.width) for row in shown]
