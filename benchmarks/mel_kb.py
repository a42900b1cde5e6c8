"""The KB of the benchmarks: 146,175 entities and 1,119,089 triples, built and indexed once."""

from __future__ import annotations

import sys
from pathlib import Path

from localmel.encode.kb_vectors import index_kb, load_vectors
from localmel.encode.minilm import MiniLM
from localmel.errors import BadInput
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.places import kb_folder
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb

NAME = "mel-benchmark"


def source_of(shared: Path, problems: Problems) -> TablesSource:
    """The files of the benchmark KB."""
    folder = shared / "data" / "mel" / "kb"
    return TablesSource(entities=folder / "entities.jsonl.gz", triples=folder / "triples.tsv.gz", problems=problems)


def benchmark_kb(shared: Path) -> KnowledgeBase:
    """The KB, indexed.  The first call takes minutes."""
    folder = kb_folder(NAME)
    if not folder.exists():
        problems = Problems()
        build_kb(folder, source_of(shared, problems), problems)
    kb = KnowledgeBase(folder)
    encoder = MiniLM()
    try:
        load_vectors(kb, encoder.space)
    except BadInput:
        print("encoding the benchmark KB, once", file=sys.stderr)
        index_kb(kb, encoder)
    return kb
