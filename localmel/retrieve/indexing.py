"""Everything that is derived from a KB, made ready: packed arrays, text vectors, fused vectors.

In: a KB, a text encoder and a network.  Out: the same KB, indexed.  What stands and fits is not made again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from localmel.encode.kb_vectors import index_kb, load_vectors
from localmel.encode.space import TextEncoder
from localmel.errors import BadInput, CorruptArtifact
from localmel.kb.places import STARTER, open_kb, prepare_starter
from localmel.kb.store import KnowledgeBase
from localmel.retrieve.fused import Network, fuse_kb, load_fused


def index_entities(
    kb: KnowledgeBase,
    encoder: TextEncoder,
    network: Network,
    *,
    on_total: Callable[[str, int], None] = lambda _what, _total: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> int:
    """Bring the text vectors and the fused vectors of `kb` up to date.  Returns how many texts were encoded."""
    network.check_space(encoder.space)
    encoded = index_kb(kb, encoder, on_total=on_total, on_done=on_done)
    fuse_kb(kb, *load_vectors(kb, encoder.space), network, on_total=on_total, on_done=on_done)
    return encoded


def ready_kb(
    name: str,
    encoder: TextEncoder,
    network: Network,
    *,
    on_total: Callable[[str, int], None] = lambda _what, _total: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> KnowledgeBase:
    """Open a KB by name or path; the starter KB is built and indexed on first use."""
    if name != STARTER:
        return open_kb(name)

    def index(kb: KnowledgeBase) -> None:
        index_entities(kb, encoder, network, on_total=on_total, on_done=on_done)

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
