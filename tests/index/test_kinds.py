"""What one kind of index does and the others need not; and how a kind is chosen."""

from __future__ import annotations

import builtins
import errno
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.errors import BadInput, CorruptArtifact, MissingExtra, OutOfSpace, UsageError
from localmel.index import (
    KINDS,
    LARGE_FROM,
    AxesSettings,
    ExactSettings,
    HnswSettings,
    IndexFacts,
    build_index,
    choose,
    load_index,
    recall_against_exact,
)
from localmel.index.axes import principal_axes

FACTS = IndexFacts(space="toy", width=32, made_from="aa")


def rows(n: int, seed: int = 0) -> NDArray[Any]:
    found = np.random.default_rng(seed).standard_normal((n, 32))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_auto_is_exact_below_a_million_and_int8_from_there() -> None:
    assert choose("auto", LARGE_FROM - 1) == ExactSettings(kind="float32")
    assert choose("auto", LARGE_FROM) == ExactSettings(kind="int8")
    assert {choose(kind, 5).kind for kind in KINDS} == set(KINDS)


@pytest.mark.parametrize("kind", ["faiss", "", "Float32"])
def test_an_unknown_kind_is_refused_with_those_that_are_known(kind: str) -> None:
    with pytest.raises(UsageError, match="there are auto, float32"):
        choose(kind, 5)
    with pytest.raises(UsageError, match="there are float32"):
        ExactSettings(kind=kind)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"rows_at_once": 0}, {"rescored": -1}, {"scores_at_once": 0}):
        with pytest.raises(UsageError):
            ExactSettings(**wrong)
    for graph in ({"neighbours": 1}, {"ef_search": 0}, {"threads": -1}):
        with pytest.raises(UsageError):
            HnswSettings(**graph)


def test_without_hnswlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "hnswlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "hnswlib", raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match="the package hnswlib is not installed") as missing:
        build_index(rows(5), HnswSettings())
    assert missing.value.hint == "pip install 'localmel[index]'"


def test_a_gpu_that_is_not_there_is_named() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MissingExtra, match="torch finds no GPU"):
        build_index(rows(5), ExactSettings(device="cuda"))


def test_ef_comes_back_with_the_graph(tmp_path: Path) -> None:
    hnsw = pytest.importorskip("localmel.index.hnsw")
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (extra `index`)")
    index = hnsw.HnswIndex.build(rows(100), HnswSettings(ef_search=77))
    index.set_ef_search(99)
    index.save(tmp_path / "index", FACTS)
    loaded = hnsw.HnswIndex.load(tmp_path / "index", FACTS)
    assert loaded.settings.ef_search == loaded._graph.ef == 99
    loaded.search(rows(1), 100)
    assert loaded._graph.ef == 99


def test_one_thread_builds_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (extra `index`)")
    for name in ("one", "two"):
        build_index(rows(400), HnswSettings(threads=1)).save(tmp_path / name, FACTS)
    one, two = ((tmp_path / name / "graph.hnswlib").read_bytes() for name in ("one", "two"))
    assert one == two


def test_axes_are_those_along_which_the_vectors_are_longest() -> None:
    random = np.random.default_rng(5)
    turned = np.linalg.qr(random.standard_normal((24, 24)))[0]
    vectors = (random.standard_normal((2000, 24)) * 2.0 ** -np.arange(24)) @ turned.T
    axes = principal_axes(vectors, 3, seed=1)
    assert axes.shape == (24, 3)
    np.testing.assert_allclose(np.abs(axes.T @ turned[:, :3]), np.eye(3), atol=0.05)
    np.testing.assert_array_equal(axes, principal_axes(vectors, 3, seed=1))


def test_few_axes_are_made_up_for_by_the_second_look() -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (extra `index`)")
    vectors = rows(3000) * np.float32(0.8) ** np.arange(32, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = [
        recall_against_exact(
            build_index(vectors, AxesSettings(axes=4, rescored=rescored)), vectors, vectors[:50], 8
        ).share
        for rescored in (1, 400)
    ]
    assert shares[0] < 0.8
    assert shares[1] > 0.95


def test_a_vector_beside_all_axes_is_found_as_the_others_are() -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (extra `index`)")
    flat = rows(200)
    flat[:, 12:] = 0
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    beside = np.eye(32, dtype=np.float32)[31:]
    index = build_index(flat, AxesSettings(axes=12))
    index.add(beside, np.array([900]))
    assert index.search(beside, 1)[1].tolist() == [[900]]


def test_vectors_of_another_width_are_refused_by_an_empty_index_of_axes() -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (extra `index`)")
    index = build_index(rows(0), AxesSettings())
    with pytest.raises(BadInput, match="not floats of shape"):
        index.add(rows(3)[:, :20], np.arange(3))
    assert len(index) == 0


def test_a_graph_whose_write_failed_silently_is_not_kept(tmp_path: Path) -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (extra `index`)")
    from localmel.index.hnsw import HnswIndex

    index = HnswIndex.build(rows(50), HnswSettings())

    class Cut:
        def __init__(self, graph: Any) -> None:
            self._graph = graph

        def save_index(self, path: str) -> None:
            self._graph.save_index(path)
            whole = Path(path).read_bytes()
            Path(path).write_bytes(whole[: len(whole) // 2])

        def index_file_size(self) -> int:
            return int(self._graph.index_file_size())

    index._graph = Cut(index._graph)
    with pytest.raises(OutOfSpace, match="the graph takes"):
        index.save(tmp_path / "index", FACTS)
    assert not (tmp_path / "index").exists()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    index = build_index(rows(50), ExactSettings(kind="int8"))
    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(OutOfSpace, match="is full"):
        index.save(tmp_path / "index", FACTS)
    assert not (tmp_path / "index").exists()


def test_files_of_another_index_are_refused(tmp_path: Path) -> None:
    """Two sealed folders with the same facts, one's arrays under the other's manifest."""
    import json

    build_index(rows(50), ExactSettings(kind="int8")).save(tmp_path / "index", FACTS)
    path = tmp_path / "index" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"count": 51}), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match="arrays of other shapes"):
        load_index(tmp_path / "index", FACTS)


def test_a_small_filter_and_a_wide_one_agree_with_the_truth_on_a_larger_graph() -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (extra `index`)")
    vectors, queries = rows(9000), rows(20, seed=1)
    index = build_index(vectors, HnswSettings(neighbours=8, ef_construction=40, ef_search=200))
    for allowed in (np.arange(0, 9000, 3), np.arange(5000), np.arange(60)):
        found = index.search(queries, 10, allowed=allowed)[1]
        true = allowed[np.argsort(-(queries @ vectors[allowed].T), axis=1, kind="stable")[:, :10]]
        assert np.isin(found, allowed).all()
        hits = sum(len(np.intersect1d(one, other)) for one, other in zip(found, true, strict=True))
        assert hits >= 0.8 * true.size
