"""Read the writing inside a picture.

In: a picture.  Out: lines, top to bottom, each with the reader's confidence.  The models (PP-OCR, Apache-2.0) are part
of the package `rapidocr`; nothing is downloaded."""

from __future__ import annotations

import logging
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.engines.pictures import Picture
from localmel.errors import MissingWeights
from localmel.settings import GenerateSettings

_LONGEST = 4
"Largest ratio of the sides: the reader enlarges the short side to 736 pixels, which makes a thin strip enormous."


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleLine:
    """One line of writing."""

    text: str
    confidence: float
    "The reader's own, between 0 and 1."


def visible_lines(picture: Picture, settings: GenerateSettings) -> tuple[VisibleLine, ...]:
    """Return the lines of a picture in reading order; there may be none."""
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
    """Frame a picture with one very short side in its own median colour.  pixels and result: (height, width, 3)."""
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
    """Load the reader once per process, without its log; its models must be inside the package."""
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        fact = f"cannot load the reader of visible text ({error})"
        raise MissingWeights(fact, hint="pip install rapidocr") from error
    return RapidOCR(params={"Global.log_level": "error"})
