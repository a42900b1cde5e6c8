"""Which mentions are drawn together, because they are not independent: those that share a sentence or a picture.

In: mentions and the hashes of their pictures.  Out: for each mention the name of its cluster, the connected component
of "same sentence or same picture".  Knows no gold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from localmel.benchmarks.leaks import sentences_of
from localmel.records import Mention

MOST_SENTENCES = 20
"""A picture beside more sentences than this stands in for pictures that are missing, as some benchmarks have it; it
says nothing about any of them and joins none."""


def clusters_of(mentions: Sequence[Mention], pictures: Mapping[Path, str]) -> tuple[list[str], int]:
    """The cluster of each mention, and how many pictures were beside too many sentences to join them.

    A cluster is called by its sentence; one of several sentences by the first of them in the order of the alphabet.
    pictures: path -> hash of the bytes; the same picture under two names is one."""
    sentences = [min(sentences_of(mention), key=len) for mention in mentions]
    shown = [pictures.get(mention.image) if mention.image else None for mention in mentions]
    pairs = {(picture, sentence) for picture, sentence in zip(shown, sentences, strict=True) if picture is not None}
    counts = Counter(picture for picture, _ in pairs)
    parent = {sentence: sentence for sentence in sentences}

    def first(sentence: str) -> str:
        while parent[sentence] != sentence:
            parent[sentence] = sentence = parent[parent[sentence]]
        return sentence

    beside: dict[str, str] = {}
    for picture, sentence in sorted(pairs):
        if counts[picture] <= MOST_SENTENCES:
            one, other = sorted((first(beside.setdefault(picture, sentence)), first(sentence)))
            parent[other] = one
    return [first(sentence) for sentence in sentences], sum(n > MOST_SENTENCES for n in counts.values())
