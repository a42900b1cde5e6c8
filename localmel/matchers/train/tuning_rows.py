"""Compute features on demand with an encoder that is being trained; tuning uses them instead of stored tables.

In: texts and pictures of mentions or entities, and the encoder.  Out: the same features as from a stored table, with
gradients if the caller has enabled them.  An unreadable picture counts as missing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from localmel.encode.kb_images import picture_path
from localmel.encode.mention_inputs import mention_text
from localmel.encode.space import batches_by_length
from localmel.encode.tunable import TunableEncoder
from localmel.engines.pictures import open_picture
from localmel.errors import BadPicture
from localmel.kb.packed import Lists, entity_texts
from localmel.kb.store import KnowledgeBase
from localmel.matchers.protocol import Features
from localmel.records import Mention
from localmel.store import progress
from localmel.store.arrays import starts_of

_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """n mentions or entities, in order."""

    texts: Sequence[str]
    pictures: Sequence[Path | None] | None = None
    "Path of each row's picture; None if pictures are not used."

    def pictures_state(self) -> str:
        """Return a digest that changes with every byte of a picture."""
        digest, known = hashlib.sha256(), dict[Path, bytes]()
        for path in self.pictures or ():
            if path is not None and path not in known:
                known[path] = _bytes_of(path)
            digest.update(b"none" if path is None else known[path])
            progress.advance(1)
        return digest.hexdigest()


def rows_of_mentions(mentions: Sequence[Mention], *, sees: bool) -> Rows:
    """Return the rows of mentions, with the texts that `mention_features` encodes."""
    pictures = [mention.image for mention in mentions] if sees else None
    return Rows(texts=[mention_text(mention) for mention in mentions], pictures=pictures)


def rows_of_kb(kb: KnowledgeBase, rows: NDArray[Any], *, sees: bool) -> Rows:
    """Return the rows of a KB's entities, by position.  rows: (n,) those of the packed KB."""
    with kb.reading():
        texts = list(entity_texts(kb))
        named = dict(kb.select("SELECT entity, path FROM images")) if sees else {}
    pictures = [_path(kb, named.get(row)) for row in rows.tolist()] if sees else None
    return Rows(texts=texts, pictures=pictures)


class LiveFeatures:
    """An `EntityFeatures` of Features, computed on demand."""

    def __init__(self, encoder: TunableEncoder, rows: Rows, *, precision: str) -> None:
        """Set up the encoder; `precision` applies to its products, as in `TrainingSettings`, and its output is
        float32."""
        self._encoder, self._short = encoder, precision == "bfloat16"
        tokens: list[list[int]] = []
        for first in range(0, len(rows.texts), _TEXTS_AT_ONCE):
            tokens += encoder.tokens(rows.texts[first : first + _TEXTS_AT_ONCE])
        counts = np.array([len(own) for own in tokens], np.int64)
        values = np.fromiter((number for own in tokens for number in own), np.int32, count=counts.sum())
        self._tokens, self._pictures = Lists(starts=starts_of(counts), values=values), rows.pictures

    def __len__(self) -> int:
        return len(self._tokens.starts) - 1

    def of(self, positions: NDArray[np.int64]) -> Features:
        """Return the rows at `positions`, on the encoder's device; nothing is cached."""
        with torch.autocast(self._encoder.device.type, torch.bfloat16, enabled=self._short):
            text, words, is_word = self._of_texts(positions)
            if not self._encoder.sees or self._pictures is None:
                return Features(text=text, words=words, is_word=is_word)
            image, patches, is_patch = self._of_pictures([self._pictures[place] for place in positions.tolist()])
        return Features(text=text, words=words, is_word=is_word, image=image, patches=patches, is_patch=is_patch)

    def _of_texts(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        starts = self._tokens.starts
        tokens = [self._tokens.values[starts[place] : starts[place + 1]].tolist() for place in positions]
        tokens = tokens or self._encoder.tokens([""])  # shapes are asked of no rows at all
        lengths = [len(own) for own in tokens]
        batches = list(batches_by_length(lengths, self._encoder.tokens_at_once[self._encoder.device.type]))
        made = [self._encoder.texts([tokens[place] for place in batch]) for batch in batches]
        longest = max(is_word.shape[1] for _, _, is_word in made)
        back = torch.from_numpy(np.argsort(np.concatenate(batches))[: len(positions)]).to(self._encoder.device)
        text = torch.cat([whole for whole, _, _ in made])[back]
        words = torch.cat([F.pad(words, (0, 0, 0, longest - words.shape[1])) for _, words, _ in made])[back]
        is_word = torch.cat([F.pad(marks, (0, longest - marks.shape[1])) for _, _, marks in made])[back]
        return text, words, is_word

    def _of_pictures(self, paths: Sequence[Path | None]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the vectors of pictures, opening each distinct one once.

        Without any picture, a black one is encoded and left out, so that every weight has a gradient in every step:
        processes wait for each other's gradients."""
        encoder = self._encoder
        prepared: list[Tensor] = []
        place: dict[Path, int] = {}
        for path in dict.fromkeys(path for path in paths if path is not None):
            try:
                prepared.append(encoder.prepared(open_picture(path)))
                place[path] = len(place)
            except BadPicture:
                continue
        at_once = encoder.pictures_at_once[encoder.device.type]
        pixels = torch.stack(prepared) if prepared else encoder.blank()[None]
        made = [encoder.pictures(some) for some in torch.split(pixels, at_once)]
        whole, patches = (torch.cat(parts) for parts in zip(*made, strict=True))
        rows = [place.get(path, -1) if path else -1 for path in paths]
        at = torch.tensor(rows, dtype=torch.long, device=encoder.device)
        there, at = at >= 0, at.clamp(min=0)
        image = torch.where(there[:, None], whole[at], 0.0)
        own = torch.where(there[:, None, None], patches[at], 0.0)
        return image, own, there[:, None].expand(-1, own.shape[1])


def _path(kb: KnowledgeBase, named: str | None) -> Path | None:
    try:
        return None if named is None else picture_path(kb, named)
    except BadPicture:
        return None


def _bytes_of(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except (OSError, ValueError):
        return b"nothing"
