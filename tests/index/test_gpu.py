"""The exact kinds on a GPU answer as they do on the processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.index import ExactSettings, IndexFacts, VectorIndex, build_index, load_index, recall_of
from localmel.index.settings import EXACT_KINDS

FACTS = IndexFacts(space="toy", width=64, made_from="aa")


def rows(n: int, seed: int) -> NDArray[Any]:
    found = np.random.default_rng(seed).standard_normal((n, 64))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def nearly_equal(one: VectorIndex, other: VectorIndex, kind: str, **more: Any) -> None:
    for n_queries in (1, 3, 50):
        queries = rows(n_queries, 9)
        found, expected = one.search(queries, 10, **more), other.search(queries, 10, **more)
        if kind == "float32":
            np.testing.assert_array_equal(found[1], expected[1])
            np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-6)
        assert recall_of(found[1], expected[1]).share >= 0.98


@pytest.mark.gpu
@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_on_a_gpu_the_answers_are_those_of_the_processor(kind: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that torch can use")
    settings = ExactSettings(kind=kind, rows_at_once=1000)
    host = build_index(rows(3001, 0), settings)
    device = build_index(rows(3001, 0), replace(settings, device="cuda"))
    nearly_equal(device, host, kind)
    for index in (host, device):
        index.remove(np.arange(0, 1500, 3))
        index.add(rows(100, 1), np.arange(5000, 5100))
    nearly_equal(device, host, kind)
    for allowed in (np.arange(2000), np.arange(1400, 1460)):
        nearly_equal(device, host, kind, allowed=allowed)
    device.save(tmp_path / "index", FACTS)
    nearly_equal(load_index(tmp_path / "index", FACTS, device="cuda"), host, kind)
    nearly_equal(load_index(tmp_path / "index", FACTS), host, kind)
