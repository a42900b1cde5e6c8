"""What every index promises, asked of each of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.errors import BadInput, CorruptArtifact, KbBusy
from localmel.index import (
    IndexFacts,
    IndexSettings,
    VectorIndex,
    build_index,
    fingerprint,
    load_index,
    recall_against_exact,
)
from localmel.store.progress import Listener, listening

N, WIDTH, K = 300, 24, 5
Agrees = Callable[..., None]
FACTS = IndexFacts(space="toy", width=WIDTH, made_from="aa")


def rows(n: int, seed: int = 0) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(1, n // 10), WIDTH))
    found = centres[random.integers(len(centres), size=n)] + 0.6 * random.standard_normal((n, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


VECTORS, QUERIES, MORE = rows(N), rows(12, seed=1), rows(40, seed=2)
WORLD = dict(enumerate(VECTORS))


@pytest.fixture
def index(settings: IndexSettings) -> VectorIndex:
    return build_index(VECTORS, settings)


def test_search_finds_the_nearest(index: VectorIndex, agrees: Agrees) -> None:
    agrees(index.search(QUERIES, K), WORLD, QUERIES)
    assert (len(index), index.width) == (N, WIDTH)


def test_one_query_is_a_batch_of_one(index: VectorIndex, agrees: Agrees) -> None:
    for row in range(4):
        agrees(index.search(QUERIES[row : row + 1], K), WORLD, QUERIES[row : row + 1])


def test_no_query_gets_no_answer(index: VectorIndex) -> None:
    scores, ids = index.search(QUERIES[:0], K)
    assert scores.shape == ids.shape == (0, K)


def test_none_asked_for_is_none_answered(index: VectorIndex) -> None:
    assert index.search(QUERIES, 0)[1].shape == (len(QUERIES), 0)


def test_where_fewer_than_k_stand_the_rest_is_padding(settings: IndexSettings, agrees: Agrees) -> None:
    index = build_index(VECTORS[:3], settings)
    answer = index.search(QUERIES, 7)
    agrees(answer, dict(enumerate(VECTORS[:3])), QUERIES)
    assert (answer[1][:, 3:] == -1).all()
    assert np.isneginf(answer[0][:, 3:]).all()


def test_an_empty_index_answers_with_padding_and_can_be_added_to(
    settings: IndexSettings, agrees: Agrees, tmp_path: Path
) -> None:
    index = build_index(VECTORS[:0], settings)
    assert len(index) == 0
    assert (index.search(QUERIES, K)[1] == -1).all()
    index.save(tmp_path / "index", FACTS)
    index = load_index(tmp_path / "index", FACTS)
    index.add(MORE, np.arange(len(MORE)))
    agrees(index.search(QUERIES, K), dict(enumerate(MORE)), QUERIES)


def test_ids_are_those_of_the_caller_in_any_order(settings: IndexSettings, agrees: Agrees) -> None:
    ids = np.random.default_rng(3).permutation(N) * 7 + 2**40
    index = build_index(VECTORS, settings, ids=ids)
    agrees(index.search(QUERIES, K), dict(zip(ids.tolist(), VECTORS, strict=True)), QUERIES)
    np.testing.assert_array_equal(index.ids(), np.sort(ids))


def test_equal_vectors_come_by_the_smaller_id(settings: IndexSettings, kind: str) -> None:
    """More copies than any over-fetch; the graph promises the order of what it finds, not which copies."""
    copies = np.concatenate([np.repeat(MORE[:1], 200, axis=0), VECTORS])
    ids = np.random.default_rng(4).permutation(len(copies))
    index = build_index(copies, settings, ids=ids)
    found = index.search(MORE[:1], K)[1][0]
    if kind.startswith("hnsw"):
        assert set(found) <= set(ids[:200])
        assert (np.diff(found) > 0).all()
    else:
        np.testing.assert_array_equal(found, np.sort(ids[:200])[:K])


def test_what_is_added_is_found(index: VectorIndex, agrees: Agrees) -> None:
    ids = np.arange(N, N + len(MORE))
    index.add(MORE, ids)
    world = WORLD | dict(zip(ids.tolist(), MORE, strict=True))
    agrees(index.search(QUERIES, K), world, QUERIES)
    assert (index.search(MORE, 1)[1][:, 0] == ids).mean() > 0.9


def test_what_is_removed_is_not_found(index: VectorIndex, agrees: Agrees) -> None:
    nearest = np.unique(index.search(QUERIES, K)[1])
    index.remove(nearest)
    world = {entity: vector for entity, vector in WORLD.items() if entity not in nearest}
    agrees(index.search(QUERIES, K), world, QUERIES)
    assert len(index) == len(world)


def test_when_nearly_all_are_removed_the_rest_is_found(index: VectorIndex, agrees: Agrees) -> None:
    index.remove(np.arange(4, N))
    agrees(index.search(QUERIES, K), {entity: WORLD[entity] for entity in range(4)}, QUERIES)
    index.remove(np.arange(4))
    assert (index.search(QUERIES, K)[1] == -1).all()


def test_a_removed_id_may_come_back_with_another_vector(index: VectorIndex, agrees: Agrees) -> None:
    ids = np.arange(50, 90)
    index.remove(ids)
    index.add(MORE, ids)
    world = WORLD | dict(zip(ids.tolist(), MORE, strict=True))
    agrees(index.search(QUERIES, K), world, QUERIES)
    agrees(index.search(MORE, K), world, MORE)
    index.remove(ids[:5])
    assert len(index) == N - 5


def test_only_allowed_ids_are_answered(index: VectorIndex, agrees: Agrees) -> None:
    index.remove(np.arange(0, 20))
    for allowed in (range(10, 30), np.arange(5, N, 2), range(N), {1, 2, 77, 10**6}, []):
        world = {entity: WORLD[entity] for entity in allowed if 20 <= entity < N}
        agrees(index.search(QUERIES, K, allowed=allowed), world, QUERIES)


def test_an_id_is_added_once(index: VectorIndex) -> None:
    with pytest.raises(BadInput, match="cannot add 1 of the ids: 299 is in the index already"):
        index.add(MORE[:2], np.array([299, 300]))
    with pytest.raises(BadInput, match="include 7 2 times"):
        index.add(MORE[:2], np.array([7, 7]))
    with pytest.raises(BadInput, match="include -1; they must be 0 or more"):
        index.add(MORE[:1], np.array([-1]))
    with pytest.raises(BadInput, match="not 2 integers"):
        index.add(MORE[:2], np.array([400]))
    assert len(index) == N


def test_an_unknown_id_cannot_be_removed(index: VectorIndex) -> None:
    with pytest.raises(BadInput, match="cannot remove 2 of the ids: 300 is not in the index"):
        index.remove(np.array([3, 300, 301]))
    assert len(index) == N


@pytest.mark.parametrize(("value", "fact"), [(np.nan, "is not finite"), (np.inf, "is not finite"), (0, "has norm 0")])
def test_rows_that_are_no_unit_vectors_are_refused_with_their_number(
    settings: IndexSettings, value: float, fact: str
) -> None:
    broken = VECTORS.copy()
    broken[[17, 201]] = value
    with pytest.raises(BadInput, match=rf"row 17 of the vectors {fact} \(2 of 300 rows"):
        build_index(broken, settings)
    index = build_index(VECTORS, settings)
    with pytest.raises(BadInput, match=r"row 2 of the vectors"):
        index.add(broken[15:19], np.arange(N, N + 4))
    assert len(index) == N
    with pytest.raises(BadInput, match=r"row 1 of the queries"):
        index.search(broken[16:18], K)


def test_vectors_of_another_width_are_refused(index: VectorIndex) -> None:
    narrow = VECTORS[:, :20] / np.linalg.norm(VECTORS[:, :20], axis=1, keepdims=True)
    with pytest.raises(BadInput, match=r"queries are float32 of shape \(300, 20\)"):
        index.search(narrow, K)
    with pytest.raises(BadInput, match=r"vectors are float32 of shape \(300, 20\)"):
        index.add(narrow, np.arange(N, 2 * N))
    with pytest.raises(BadInput, match="k is -1"):
        index.search(QUERIES, -1)


def test_float16_and_mapped_vectors_are_taken_as_they_are(
    settings: IndexSettings, agrees: Agrees, tmp_path: Path
) -> None:
    np.save(tmp_path / "vectors.npy", VECTORS.astype(np.float16))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    done: list[int] = []
    with listening(Listener(on_done=done.append)):
        index = build_index(mapped, settings)
    agrees(index.search(QUERIES, K), dict(enumerate(mapped.astype(np.float32))), QUERIES)
    assert sum(done) == N


def test_what_was_saved_is_what_is_loaded(index: VectorIndex, agrees: Agrees, tmp_path: Path) -> None:
    facts = IndexFacts(space="toy", width=WIDTH, made_from=fingerprint(VECTORS))
    index.add(MORE, np.arange(N, N + len(MORE)))
    index.remove(np.arange(30, 60))
    index.save(tmp_path / "index", facts)
    loaded = load_index(tmp_path / "index", facts)
    assert loaded.settings == index.settings
    np.testing.assert_array_equal(loaded.ids(), index.ids())
    if index.settings.kind != "binary":  # whose candidates come from one over-fetch then, and before from two
        for one, other in zip(loaded.search(QUERIES, K), index.search(QUERIES, K), strict=True):
            np.testing.assert_array_equal(one, other)
    world = WORLD | dict(zip(range(N, N + len(MORE)), MORE, strict=True))
    world = {entity: vector for entity, vector in world.items() if not 30 <= entity < 60}
    loaded.remove(np.arange(0, 10))
    loaded.add(MORE[:10], np.arange(30, 40))
    world = {entity: vector for entity, vector in world.items() if entity >= 10}
    world |= dict(zip(range(30, 40), MORE[:10], strict=True))
    agrees(loaded.search(QUERIES, K), world, QUERIES)
    loaded.save(tmp_path / "index", facts)
    agrees(load_index(tmp_path / "index", facts).search(QUERIES, K), world, QUERIES)


@pytest.mark.parametrize(
    ("asked", "fact"),
    [
        (IndexFacts(space="other", width=WIDTH, made_from="aa"), "its space is 'toy', not 'other'"),
        (IndexFacts(space="toy", width=48, made_from="aa"), "its width is 24, not 48"),
        (IndexFacts(space="toy", width=WIDTH, made_from="bb"), "its hash of the vectors is 'aa', not 'bb'"),
    ],
)
def test_an_index_of_other_vectors_is_refused(index: VectorIndex, tmp_path: Path, asked: IndexFacts, fact: str) -> None:
    index.save(tmp_path / "index", FACTS)
    with pytest.raises(BadInput, match=fact) as refusal:
        load_index(tmp_path / "index", asked)
    assert "rm -r" in refusal.value.hint


def test_facts_of_another_width_are_not_written(index: VectorIndex, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="width 24, its facts say 48"):
        index.save(tmp_path / "index", IndexFacts(space="toy", width=48, made_from="aa"))
    assert not (tmp_path / "index").exists()


def test_where_there_is_no_index_none_is_loaded(settings: IndexSettings, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_index(tmp_path / "index", FACTS)


def test_a_truncated_or_changed_file_is_refused(index: VectorIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index", FACTS)
    for file in sorted(path for path in (tmp_path / "index").rglob("*") if path.is_file()):
        whole = file.read_bytes()
        changed = [] if file.name == "manifest.json" else [whole[:-1], whole[:-5] + b"\xff" + whole[-4:]]
        for broken in (*changed, whole[: len(whole) // 2], b""):
            file.write_bytes(broken)
            with pytest.raises(CorruptArtifact):
                load_index(tmp_path / "index", FACTS)
        file.write_bytes(whole)
    load_index(tmp_path / "index", FACTS)


def test_settings_that_are_not_known_are_refused(index: VectorIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index", FACTS)
    path = tmp_path / "index" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"settings": {"speed": 9}}), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match=r"cannot read the settings of index .*unknown field `speed`"):
        load_index(tmp_path / "index", FACTS)
    path.write_text(json.dumps({key: manifest[key] for key in manifest if key != "index"}), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match="names no kind"):
        load_index(tmp_path / "index", FACTS)


def test_an_interrupted_save_leaves_the_old_index(
    index: VectorIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.save(tmp_path / "index", FACTS)
    before = index.search(QUERIES, K)
    index.remove(np.unique(before[1]))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    module = type(index).__module__
    with monkeypatch.context() as patched:
        patched.setattr(f"{module}.flush_arrays", stop)
        with pytest.raises(KeyboardInterrupt):
            index.save(tmp_path / "index", FACTS)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == ["index"]
    np.testing.assert_array_equal(load_index(tmp_path / "index", FACTS).search(QUERIES, K)[1], before[1])


def test_a_second_writer_is_refused(index: VectorIndex, tmp_path: Path) -> None:
    from filelock import FileLock

    index.save(tmp_path / "index", FACTS)
    with FileLock(tmp_path / ".index.lock"), pytest.raises(KbBusy, match="another process is writing"):
        index.save(tmp_path / "index", FACTS)
    one, other = load_index(tmp_path / "index", FACTS), load_index(tmp_path / "index", FACTS)
    one.add(MORE[:1], np.array([N]))
    one.save(tmp_path / "index", FACTS)
    other.add(MORE[1:2], np.array([N + 1]))
    with pytest.raises(KbBusy, match="another process has changed it since it was loaded"):
        other.save(tmp_path / "index", FACTS)
    assert load_index(tmp_path / "index", FACTS).ids()[-1] == N


def test_recall_is_measured_against_exact_search(index: VectorIndex, kind: str) -> None:
    recall = recall_against_exact(index, VECTORS, rows(50, seed=5), K, n_sampled=30)
    assert recall.n_queries == 30
    assert recall.share >= (1 if kind == "float32" else 0.93)
    assert str(recall).startswith("recall@5 ")


def test_memory_is_told(index: VectorIndex, kind: str) -> None:
    per_vector = {"float32": 4 * WIDTH, "float16": 2 * WIDTH, "bfloat16": 2 * WIDTH, "int8": WIDTH + 4}
    if kind in per_vector:
        assert index.n_bytes == N * (per_vector[kind] + 8)
    assert index.n_bytes > N * WIDTH
