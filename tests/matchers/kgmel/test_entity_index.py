"""The index over fused vectors: built beside them, found again, refused when the KB has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.encode.kb_vectors import load_vectors
from localmel.encode.minilm import MiniLM
from localmel.encode.registry import Encoders
from localmel.errors import BadInput, UsageError
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import KgmelMatcher, load_network
from localmel.matchers.kgmel.fused import (
    build_entity_index,
    index_folder,
    indexes_of,
    load_entity_index,
    load_fused,
)
from localmel.matchers.kgmel.search import FusedSearch
from localmel.matchers.kind import index_kind
from localmel.matchers.registry import index_matcher
from localmel.retrieve.candidates import CandidateFinder
from localmel.settings import RetrieveSettings
from localmel.settings.shipped import shipped

ENTITIES: list[dict[str, object]] = [
    {
        "id": f"Q{number}",
        "label": f"Village {number}",
        "description": f"village {number} of district {number % 9}",
    }
    for number in range(120)
]


@pytest.fixture
def network() -> KgmelMatcher:
    return load_network(shipped("weights/kgmel-minilm"))


@pytest.fixture
def kb(change_kb: Callable[..., Path], encoder: MiniLM, network: KgmelMatcher) -> KnowledgeBase:
    kb = KnowledgeBase(change_kb(ENTITIES))
    index_matcher(kb, network, Encoders(text=encoder, image=None), "auto")
    return kb


def arrays(kb: KnowledgeBase, encoder: MiniLM, network: KgmelMatcher) -> tuple[Any, Any]:
    packed, _ = load_vectors(kb, encoder.space)
    return packed, load_fused(kb, packed, network)


@pytest.mark.parametrize("kind", ["int8", "float32", "hnsw", "hnsw-axes"])
def test_candidates_by_an_index_are_those_of_the_scan(
    kb: KnowledgeBase, encoder: MiniLM, network: KgmelMatcher, kind: str
) -> None:
    if kind.startswith("hnsw"):
        pytest.importorskip("hnswlib", reason="HNSW needs the extra `index`")
    packed, fused = arrays(kb, encoder, network)
    recall = build_entity_index(kb, packed, fused, network, kind)
    assert recall is not None
    assert recall.share >= 0.98, recall
    index = load_entity_index(kb, packed, network, kind)
    mentions = np.asarray(fused[::7], np.float32)
    settings = RetrieveSettings(by_name=0, by_vector=4)
    both = FusedSearch(network.network, fused), FusedSearch(network.network, fused, index=index)
    by_scan, by_index = (
        CandidateFinder(kb, packed, search, settings).find(["-"] * len(mentions), mentions) for search in both
    )
    same = [set(a.positions) == set(b.positions) for a, b in zip(by_scan, by_index, strict=True)]
    assert np.mean(same) >= 0.9
    assert indexes_of(kb, network).keys() == {kind}
    assert build_entity_index(kb, packed, fused, network, kind) is None, "it stands, so it is not built again"


def test_without_an_index_the_command_that_builds_it_is_named(
    kb: KnowledgeBase, encoder: MiniLM, network: KgmelMatcher
) -> None:
    packed, _ = arrays(kb, encoder, network)
    with pytest.raises(BadInput, match="no index of kind int8") as refused:
        load_entity_index(kb, packed, network, "int8")
    assert refused.value.hint.endswith("--index int8")
    with pytest.raises(UsageError, match="no index of kind 'annoy'"):
        load_entity_index(kb, packed, network, "annoy")


def test_an_index_of_a_kb_that_has_changed_is_refused(
    kb: KnowledgeBase, change_kb: Callable[..., Path], encoder: MiniLM, network: KgmelMatcher
) -> None:
    packed, fused = arrays(kb, encoder, network)
    build_entity_index(kb, packed, fused, network, "int8")
    kb.close()
    changed = KnowledgeBase(change_kb([{"id": "Q900", "label": "Town"}], add=True))
    index_matcher(changed, network, Encoders(text=encoder, image=None), "auto")
    packed, fused = arrays(changed, encoder, network)
    with pytest.raises(BadInput, match="has changed since its index was built"):
        load_entity_index(changed, packed, network, "int8")
    assert build_entity_index(changed, packed, fused, network, "int8") is not None
    index = load_entity_index(changed, packed, network, "int8")
    assert index is not None
    assert len(index) == 121


def test_a_damaged_index_is_built_again(kb: KnowledgeBase, encoder: MiniLM, network: KgmelMatcher) -> None:
    packed, fused = arrays(kb, encoder, network)
    build_entity_index(kb, packed, fused, network, "int8")
    (index_folder(kb, network, "int8") / "index.safetensors").write_bytes(b"")
    assert build_entity_index(kb, packed, fused, network, "int8") is not None


def test_auto_is_a_scan_below_a_million_entities_and_int8_from_there() -> None:
    assert index_kind("auto", 999_999) == "scan"
    assert index_kind("auto", 1_000_000) == "int8"
    assert index_kind("int8", 10) == "int8"
