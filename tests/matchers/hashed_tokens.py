"""An encoder of words that only hashes: texts that share words are near, and each word is the same in any text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.registry import Encoders
from localmel.encode.space import MOST_WORDS, Space

WIDTH = 16


class HashedTokens:
    """A `WordEncoder`."""

    space = Space(name="hashed-tokens", width=WIDTH, weights_sha256="2" * 64)
    word_width = WIDTH

    def __init__(self, *, stop_after: int = 10**9) -> None:
        self.texts: list[str] = []
        "Of which words were asked for."
        self._stop_after = stop_after

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        rows = [np.sum([_hashed(""), *map(_hashed, _words(text))], axis=0) for text in texts]
        on_texts(len(texts))
        vectors = np.array(rows, np.float32).reshape(len(texts), WIDTH)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def words(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> list[NDArray[Any]]:
        self.texts += texts
        if len(self.texts) > self._stop_after:
            raise KeyboardInterrupt
        on_texts(len(texts))
        none = np.zeros((0, WIDTH), np.float16)
        return [np.array([_hashed(word) for word in _words(text)], np.float16).reshape(-1, WIDTH)[:MOST_WORDS]
                if text else none for text in texts]  # fmt: skip


def token_encoders(encoder: HashedTokens | None = None) -> Encoders:
    """Without pictures."""
    return Encoders(text=encoder or HashedTokens(), image=None)


def _words(text: str) -> list[str]:
    return text.lower().replace(":", " ").replace(",", " ").replace(".", " ").split()


def _hashed(word: str) -> NDArray[Any]:
    return np.random.default_rng(list(word.encode())).standard_normal(WIDTH)
