"""What a training run offers a kind before it looks at anything: mentions, golds, a KB and encoders.

In: a recipe's data, read and encoded.  Out: one record that every kind makes its inputs from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.encode.kb_images import KbImages
from localmel.encode.kb_vectors import KbVectors
from localmel.encode.registry import Encoders
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.records import Split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """Mentions and a KB, with the vectors of their whole texts."""

    kb: KnowledgeBase
    packed: PackedKb
    vectors: KbVectors
    images: KbImages | None
    "The KB's pictures; None where none are looked at."
    encoders: Encoders
    splits: Mapping[str, Split]
    "train and validation."
    encoded: Mapping[str, Any]
    "`MentionVectors` of both: text vectors, triples, golds (-1 for those not trained on) and candidates of both."
    folder: Path
    "Where the run keeps what is encoded; a kind appends its own ending."
    without: tuple[str, ...]
    "What the network is trained without."
