"""The KB of the benchmarks: 146,175 entities and 1,119,089 triples, built and indexed once; and one without triples."""

from __future__ import annotations

import sys
from pathlib import Path

from localmel.encode.kb_vectors import load_vectors
from localmel.encode.minilm import MiniLM
from localmel.encode.registry import Encoders
from localmel.errors import BadInput
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.locate import kb_folder
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb
from localmel.matchers.kgmel.folder import KgmelMatcher, load_network
from localmel.matchers.kgmel.fused import load_fused
from localmel.matchers.registry import index_matcher
from localmel.settings import load_profile
from localmel.settings.shipped import weights_folder

NAME = "mel-benchmark"
WITHOUT_TRIPLES = "mel-benchmark-no-triples"


def source_of(shared: Path, problems: Problems, *, triples: bool = True) -> TablesSource:
    """The files of the benchmark KB."""
    folder = shared / "data" / "mel" / "kb"
    return TablesSource(
        entities=folder / "entities.jsonl.gz",
        triples=folder / "triples.tsv.gz" if triples else None,
        problems=problems,
    )


def shipped_network() -> KgmelMatcher:
    """The network of the default profile."""
    return load_network(weights_folder(load_profile("embedded").retrieve.network))


def benchmark_kb(shared: Path, *, triples: bool = True, network: KgmelMatcher | None = None) -> KnowledgeBase:
    """The KB, indexed.  The first call takes minutes.  Without `triples` nothing of them is anywhere in it."""
    folder = kb_folder(NAME if triples else WITHOUT_TRIPLES)
    if not folder.exists():
        problems = Problems()
        build_kb(folder, source_of(shared, problems, triples=triples), problems)
    kb = KnowledgeBase(folder)
    encoder, network = MiniLM(), network or shipped_network()
    try:
        packed, _ = load_vectors(kb, encoder.space)
        load_fused(kb, packed, network)
    except BadInput:
        print(f"indexing {folder.name}, once", file=sys.stderr)
        index_matcher(kb, network, Encoders(text=encoder, image=None), "auto")
    return kb
