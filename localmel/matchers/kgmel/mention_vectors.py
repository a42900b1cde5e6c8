"""Mentions as the fusion network takes them: vectors of their texts and pictures, and the triples of each.

In: mentions, what is stated about each, and encoders.  Out: arrays.  Used alike in training and in linking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from localmel.encode.mention_inputs import mention_text, vectors_of_files
from localmel.encode.space import ImageEncoder
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.records import Mention, Triple

_Value = TypeVar("_Value")


def mention_texts(mentions: Sequence[Mention], stated: Sequence[Sequence[Triple]]) -> dict[str, None]:
    """The texts that `mention_arrays` wants vectors of, each once."""
    triples = list(chain.from_iterable(stated))
    return dict.fromkeys(
        chain(
            (mention_text(mention) for mention in mentions),
            (triple.tail for triple in triples),
            (triple.relation for triple in triples),
        )
    )


def mention_arrays(
    mentions: Sequence[Mention], stated: Sequence[Sequence[Triple]], encode: Callable[[Sequence[str]], NDArray[Any]]
) -> tuple[NDArray[Any], TripleArrays]:
    """(m, width) float32 text vectors, and the triples of the m mentions.  Each different text is encoded once."""
    spoken = list(chain.from_iterable(stated))
    texts = mention_texts(mentions, stated)
    place = dict(zip(texts, range(len(texts)), strict=True))
    vectors = encode(list(texts))
    tails = _numbered(triple.tail for triple in spoken)
    relations = _numbered(triple.relation for triple in spoken)
    pairs = _numbered((triple.tail, triple.relation) for triple in spoken)
    triples = TripleArrays(
        tails=vectors[[place[tail] for tail in tails]],
        relations=vectors[[place[relation] for relation in relations]],
        pair_tail=np.array([tails[tail] for tail, _ in pairs], np.int64),
        pair_relation=np.array([relations[relation] for _, relation in pairs], np.int64),
        triples=np.array([pairs[triple.tail, triple.relation] for triple in spoken], np.int64),
        starts=np.cumsum([0, *(len(own) for own in stated)]),
    )
    return vectors[[place[mention_text(mention)] for mention in mentions]], triples


def mention_pictures(mentions: Sequence[Mention], images: ImageEncoder | None) -> dict[str, NDArray[Any]]:
    """`image` (m, width) and `has_image` (m,), as `FusedEncoder.fuse` takes them; nothing without an image encoder.

    Each different picture is opened and encoded once; one that cannot be read counts as none."""
    if images is None:
        return {}
    found = vectors_of_files([mention.image for mention in mentions], images)
    return {"image": found.vectors, "has_image": found.there}


def _numbered(values: Iterable[_Value]) -> dict[_Value, int]:
    """Each different value with its number, in the order of their first occurrence."""
    return {value: number for number, value in enumerate(dict.fromkeys(values))}
