"""Writing inside a picture: which lines stand there, and how sure the reader is.

In: a picture.  Out: lines, top to bottom.  The models (PP-OCR, Apache-2.0) come inside the package `rapidocr`;
nothing is fetched."""

from __future__ import annotations

import logging
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import MissingWeights
from localmel.settings import GenerateSettings

if TYPE_CHECKING:
    from localmel.engines.pictures import Picture

_LONGEST = 4
"Times as long as wide: the reader enlarges the short side to 736 pixels, which makes a thin strip enormous."


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleLine:
    """One line of writing."""

    text: str
    confidence: float
    "The reader's own, between 0 and 1."


def visible_lines(picture: Picture, settings: GenerateSettings) -> tuple[VisibleLine, ...]:
    """The lines that stand in the picture, in reading order.  None is legal."""
    result = _reader()(_not_too_long(picture.pixels())[:, :, ::-1])
    if result.txts is None:
        return ()
    lines = [
        VisibleLine(text=_printable(text), confidence=float(score))
        for text, score in zip(result.txts, result.scores, strict=True)
        if score >= settings.least_confidence and any(char.isalnum() for char in text)
    ]
    if len(lines) > settings.most_lines:
        surest = sorted(line.confidence for line in lines)[-settings.most_lines]
        lines = [line for line in lines if line.confidence >= surest][: settings.most_lines]
    return tuple(lines)


def _not_too_long(pixels: NDArray[Any]) -> NDArray[Any]:
    """(height, width, 3), with a border in the picture's own middle colour where one side is very short."""
    height, width = pixels.shape[:2]
    least = max(height, width) // _LONGEST
    missing = [max(0, least - height), max(0, least - width)]
    if not any(missing):
        return pixels
    framed = np.empty((height + missing[0], width + missing[1], 3), np.uint8)
    framed[:] = np.median(pixels, axis=(0, 1)).astype(np.uint8)
    top, left = missing[0] // 2, missing[1] // 2
    framed[top : top + height, left : left + width] = pixels
    return framed


def _printable(text: str) -> str:
    return " ".join("".join(" " if unicodedata.category(char)[0] == "C" else char for char in text).split())


@cache
def _reader() -> Any:
    """Load the reader once in a process; its own log is switched off, its models must be inside the package."""
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise MissingWeights(
            f"the reader of visible text cannot be loaded ({error})", hint="pip install rapidocr"
        ) from error
    return RapidOCR(params={"Global.log_level": "error"})
