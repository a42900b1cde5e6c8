"""Everything that is derived from a KB, made ready: packed arrays, vectors of texts and pictures, fused vectors.

In: a KB, its encoders and a network.  Out: the same KB, indexed.  What stands and fits is not made again."""

from __future__ import annotations

from contextlib import suppress

from localmel.encode.kb_images import index_images
from localmel.encode.kb_vectors import index_kb, load_vectors
from localmel.encode.space import ImageEncoder, TextEncoder
from localmel.errors import BadInput, CorruptArtifact
from localmel.kb.locate import STARTER, open_kb, prepare_starter
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.fused import Network, fuse_kb, load_fused
from localmel.store import progress


def index_entities(
    kb: KnowledgeBase,
    encoder: TextEncoder,
    network: Network,
    *,
    images: ImageEncoder | None = None,
) -> int:
    """Bring the vectors of texts and pictures and the fused vectors of `kb` up to date.

    Pictures are looked at where the network sees them; `on_note` hears of those that cannot be read.  Returns how many
    texts were encoded."""
    network.check_space(encoder.space, images.image_space if images else None)
    encoded = index_kb(kb, encoder)
    packed, vectors = load_vectors(kb, encoder.space)
    if images and network.image_space:
        found = index_images(kb, packed, images)
        if note := found.note():
            progress.note(note)
    fuse_kb(kb, packed, vectors, network)
    return encoded


def ready_kb(
    name: str,
    encoder: TextEncoder,
    network: Network,
    *,
    images: ImageEncoder | None = None,
) -> KnowledgeBase:
    """Open a KB by name or path; the starter KB is built and indexed on first use."""
    if name != STARTER:
        return open_kb(name)

    def index(kb: KnowledgeBase) -> None:
        index_entities(kb, encoder, network, images=images)

    def opened() -> KnowledgeBase:
        kb = open_kb(STARTER)
        packed, _ = load_vectors(kb, encoder.space)
        load_fused(kb, packed, network)
        return kb

    def complete() -> None:
        index(open_kb(STARTER))

    def make_again() -> None:
        prepare_starter(index, again=True)

    prepare_starter(index)
    # Of another network or an earlier version: what lacks is added.  Damaged: it ships, so it is made again.
    for mend in (complete, make_again):
        try:
            return opened()
        except (BadInput, CorruptArtifact):
            with suppress(BadInput, CorruptArtifact):
                mend()
    return opened()
