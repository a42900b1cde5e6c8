"""Candidates: everything found by name, then the entities whose vector is nearest, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import localmel.matchers.kgmel.search as module
from localmel.kb.names import NameIndex
from localmel.kb.packed import pack
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.search import FusedSearch
from localmel.retrieve.candidates import CandidateFinder
from localmel.settings import RetrieveSettings

N, WIDTH = 60, 16


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Iterator[KnowledgeBase]:
    entities = [
        {"id": f"Q{number}", "label": f"Jordan {number}" if number % 3 else f"River {number}"} for number in range(N)
    ]
    opened = KnowledgeBase(change_kb(entities))
    yield opened
    opened.close()


def units(n: int, seed: int) -> Any:
    values = np.random.default_rng(seed).standard_normal((n, WIDTH)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def finder(kb: KnowledgeBase, rows: Any, **settings: Any) -> CandidateFinder:
    fuses_nothing: Any = None
    search = FusedSearch(fuses_nothing, rows.astype(np.float16))
    return CandidateFinder(kb, pack(kb), search, RetrieveSettings(**settings))


@pytest.mark.parametrize("rows_at_once", [7, N, 65536])
def test_the_nearest_are_those_of_a_full_sort(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", rows_at_once)
    rows, sentences = units(N, 0), units(25, 1)
    found = finder(kb, rows, by_vector=5, by_name=1).find(["nobody"] * 25, sentences)
    scores = sentences @ rows.astype(np.float16).astype(np.float32).T
    for candidates, line in zip(found, scores, strict=True):
        assert candidates.matches == (None,) * 5
        assert candidates.positions.tolist() == np.argsort(-line, kind="stable")[:5].tolist()


def test_of_equal_vectors_any_may_come_but_never_a_worse_one(kb: KnowledgeBase) -> None:
    rows = np.repeat(units(6, 0), 10, axis=0)
    sentences = units(8, 1)
    scores = sentences @ rows.astype(np.float16).astype(np.float32).T
    for candidates, line in zip(finder(kb, rows, by_vector=7).find(["nobody"] * 8, sentences), scores, strict=True):
        chosen = line[candidates.positions]
        assert np.allclose(chosen, np.sort(line)[::-1][:7], atol=1e-6)


def test_the_product_in_bfloat16_finds_what_is_nearest_up_to_rounding(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGE", 10)
    rows, sentences = units(N, 0), units(25, 1)
    found = finder(kb, rows, by_vector=5).find(["nobody"] * 25, sentences)
    scores = sentences @ rows.T
    for candidates, line in zip(found, scores, strict=True):
        assert len(set(candidates.positions.tolist())) == 5
        assert line[candidates.positions].min() > np.sort(line)[-5] - 0.02


def test_names_come_first_in_the_order_of_the_name_index_and_nobody_twice(kb: KnowledgeBase) -> None:
    rows = units(N, 0)
    (candidates,) = finder(kb, rows, by_name=12, by_vector=20).find(["Jordan"], units(1, 2))
    named = NameIndex(kb).find("Jordan", limit=12)
    assert len(named) == 12
    assert candidates.matches[:12] == named
    assert [kb.entities_at([int(row)])[0].id for row in pack(kb).rows[candidates.positions[:12]]] == [
        entity.id for entity in kb.entities_at([match.row for match in named])
    ]
    assert all(match is None for match in candidates.matches[12:])
    assert len(set(candidates.positions.tolist())) == len(candidates.positions) == len(candidates.matches)
    nearest = np.argsort(-(units(1, 2) @ rows.astype(np.float16).astype(np.float32).T)[0], kind="stable")[:20]
    assert set(nearest.tolist()) <= set(candidates.positions.tolist())


def test_rows_with_gaps_are_positions_without(kb: KnowledgeBase, change_kb: Callable[..., Path]) -> None:
    from localmel.kb.write import remove_from_kb

    remove_from_kb(kb.folder, [f"Q{number}" for number in range(0, N, 2)])
    left = KnowledgeBase(kb.folder)
    (candidates,) = finder(left, units(N // 2, 0), by_vector=3).find(["Jordan 35"], units(1, 3))
    rows = pack(left).rows[candidates.positions]
    assert left.entities_at([int(rows[0])])[0].label == "Jordan 35"
    assert max(candidates.positions) < N // 2
    left.close()


@pytest.mark.parametrize(("by_name", "by_vector"), [(0, 3), (3, 0), (0, 0), (500, 500)])
def test_either_list_may_be_left_out_or_hold_everything(kb: KnowledgeBase, by_name: int, by_vector: int) -> None:
    (candidates,) = finder(kb, units(N, 0), by_name=by_name, by_vector=by_vector).find(["Jordan"], units(1, 3))
    by_name_only = [match for match in candidates.matches if match]
    assert len(by_name_only) == min(by_name, 40)
    assert len(candidates.positions) == (
        N if by_vector == 500 else len(by_name_only) + sum(m is None for m in candidates.matches)
    )
    assert len(candidates.positions) <= by_name + by_vector
