"""Search in two steps beside the score of every pair: the same entities, at a cost that the KB's size does not set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.crowds import SETTINGS, WIDTH, Crowd, crowd, given, trained
from localmel.errors import BadInput, CorruptArtifact
from localmel.index import NO_ID, ExactSettings, HnswSettings, VectorIndex, build_index
from localmel.matchers.kind import Found
from localmel.matchers.m3el.network import M3el
from localmel.matchers.prepared import PreparedSides, index_sides, lifted_entities, prepare_entities
from localmel.matchers.protocol import FeatureTable, Pictures, laid_end_to_end
from localmel.matchers.two_step import TwoStepSearch, TwoStepSettings, agreement, search_all

FACTS = {"matcher_sha256": "0" * 64, "made_from": "a made-up KB"}
N_ENTITIES, N_MENTIONS, K = 2000, 120, 16


@dataclass(frozen=True, kw_only=True)
class Case:
    """A trained network, a KB, its sides on disk, and what scoring everything finds."""

    network: M3el
    drawn: Crowd
    sides: PreparedSides
    best: Found


@pytest.fixture(scope="module", params=[False, True], ids=["random", "clustered"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    network = trained(clustered=request.param)
    drawn = crowd(N_ENTITIES, N_MENTIONS, clustered=request.param, seed=5)
    sides = prepare_entities(network, drawn.entities, tmp_path_factory.mktemp("sides") / "own", FACTS)
    return Case(network=network, drawn=drawn, sides=sides, best=search_all(network, sides, given(drawn.mentions), K))


def test_the_top_16_are_those_of_scoring_everything(case: Case) -> None:
    index, longest = index_sides(case.sides, ExactSettings())
    mentions = given(case.drawn.mentions)
    found = TwoStepSearch(case.network, case.sides, index, longest).search(mentions, K)
    assert agreement(found, case.best) >= 0.99
    assert found.n_scored < N_MENTIONS * N_ENTITIES / 5
    same = (found.entities == case.best.entities).all(axis=1)
    np.testing.assert_allclose(found.scores[same], case.best.scores[same], atol=1e-3)
    assert (case.best.entities[:, 0] == case.drawn.gold).mean() > 50 / N_ENTITIES  # the network has learnt something
    # with no second look beyond the first 16 the answer is another one: what stands above can fail
    hasty = TwoStepSettings(candidates=K, certainty=0.0)
    assert (
        agreement(TwoStepSearch(case.network, case.sides, index, longest, hasty).search(mentions, K), case.best) < 0.9
    )


def test_halving_the_precision_of_tokens_on_disk_leaves_the_ranking(case: Case) -> None:
    with torch.no_grad():
        sides = case.network.mentions(given(case.drawn.mentions)), case.network.entities(given(case.drawn.entities))
        exact = case.network.scores(*sides).numpy()
    best = np.sort(np.argsort(-exact, axis=1, kind="stable")[:, :K], axis=1)
    assert (np.sort(case.best.entities, axis=1) == best).all(axis=1).mean() >= 0.98
    np.testing.assert_allclose(case.best.scores, np.take_along_axis(exact, case.best.entities, axis=1), atol=0.02)


def test_a_graph_does_as_an_index_of_the_first_step(case: Case) -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed here: pip install 'localmel[index]'")
    index, longest = index_sides(case.sides, HnswSettings(threads=1, ef_search=600))
    found = TwoStepSearch(case.network, case.sides, index, longest).search(given(case.drawn.mentions), K)
    assert agreement(found, case.best) >= 0.95


def test_what_is_scored_for_a_mention_does_not_grow_with_the_kb(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, settings = M3el(SETTINGS).eval(), TwoStepSettings(candidates=32, most=64)
    counts = []
    for n in (300, 1500):
        drawn = crowd(n, 20, clustered=False)
        sides = prepare_entities(network, drawn.entities, tmp_path / str(n), FACTS)
        search = TwoStepSearch(network, sides, *index_sides(sides, ExactSettings()), settings)
        counts.append(search.search(given(drawn.mentions), K).n_scored)
    assert max(counts) <= 20 * 64
    assert min(counts) >= 20 * 32


# --- edges ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> tuple[M3el, Crowd, PreparedSides]:
    torch.manual_seed(0)
    network, drawn = M3el(SETTINGS).eval(), crowd(9, 4, clustered=False)
    return network, drawn, prepare_entities(network, drawn.entities, tmp_path / "sides", FACTS)


def found_by(network: M3el, drawn: Crowd, sides: PreparedSides, k: int) -> Found:
    return TwoStepSearch(network, sides, *index_sides(sides, ExactSettings())).search(given(drawn.mentions), k)


def test_a_kb_with_fewer_entities_than_asked_for_is_filled_up(small: tuple[M3el, Crowd, PreparedSides]) -> None:
    found = found_by(*small, 12)
    assert (found.entities[:, 9:] == NO_ID).all()
    assert np.isneginf(found.scores[:, 9:]).all()
    np.testing.assert_array_equal(np.sort(found.entities[:, :9], axis=1), np.tile(np.arange(9), (4, 1)))
    assert found.n_scored == 4 * 9


def test_a_mention_of_which_nothing_is_known_gets_entities_of_score_0(small: tuple[M3el, Crowd, PreparedSides]) -> None:
    network, drawn, sides = small
    mentions = given(drawn.mentions)
    nobody = replace(
        mentions, is_word=torch.zeros_like(mentions.is_word), is_patch=torch.zeros(4, mentions.patches.shape[1]).bool()
    )
    found = TwoStepSearch(network, sides, *index_sides(sides, ExactSettings())).search(nobody, 3)
    assert not found.scores.any()
    np.testing.assert_array_equal(found.entities, np.tile([0, 1, 2], (4, 1)))


class Forgetful:
    """An index that finds no more than eleven, as a graph may."""

    def __init__(self, index: VectorIndex) -> None:
        self._index, self.width = index, index.width

    def __len__(self) -> int:
        return len(self._index)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores, ids = self._index.search(queries, k)
        scores[:, 11:], ids[:, 11:] = -np.inf, NO_ID
        return scores, ids


def test_an_index_that_finds_too_few_is_not_asked_for_ever(case: Case) -> None:
    index, longest = index_sides(case.sides, ExactSettings())
    search = TwoStepSearch(case.network, case.sides, Forgetful(index), longest)  # type: ignore[arg-type]
    found = search.search(given(case.drawn.mentions), K)
    assert found.n_scored == 11 * N_MENTIONS
    assert (found.entities[:, 11:] == NO_ID).all()
    assert np.isfinite(found.scores[:, :11]).all()


def test_many_candidates_are_scored_in_pieces_to_the_same_scores(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    search = TwoStepSearch(case.network, case.sides, *index_sides(case.sides, ExactSettings()))
    mentions = case.drawn.mentions.of(np.arange(5))
    whole = search.search(mentions, K)
    monkeypatch.setattr("localmel.matchers.two_step._CANDIDATES_AT_ONCE", 7)
    monkeypatch.setattr("localmel.matchers.two_step._VALUES_AT_ONCE", 1)
    found = search.search(mentions, K)
    np.testing.assert_array_equal(found.entities, whole.entities)
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-5)
    assert found.n_scored == whole.n_scored


def test_no_mentions_find_nothing(small: tuple[M3el, Crowd, PreparedSides]) -> None:
    network, drawn, sides = small
    none = drawn.mentions.of(np.arange(0))
    assert TwoStepSearch(network, sides, *index_sides(sides, ExactSettings())).search(none, 5).entities.shape == (0, 5)
    assert agreement(search_all(network, sides, none, 5), search_all(network, sides, none, 5)) == 1.0


def test_an_entity_without_text_or_picture_or_with_20_pictures_is_found_like_any(tmp_path: Path) -> None:
    """Entity 1 has no text, 2 no picture, 3 neither, 4 has twenty pictures, the last of which is the mention's."""
    torch.manual_seed(0)
    network, drawn = M3el(SETTINGS).eval(), crowd(6, 6, clustered=False)
    table, whole = drawn.entities, drawn.entities.pictures
    assert whole is not None
    chance = np.random.default_rng(0)
    words = [chance.normal(size=(0 if row in (1, 3) else 3, WIDTH)) for row in range(6)]
    patches = [chance.normal(size=({2: 0, 3: 0, 4: 20 * 49}.get(row, 49), whole.patches.values.shape[1]))
               for row in range(6)]  # fmt: skip
    own = Pictures(whole=whole.whole, patches=laid_end_to_end(patches, whole.patches.values.shape[1]))
    entities = FeatureTable(text=table.text, words=laid_end_to_end(words, WIDTH), pictures=own)
    sides = prepare_entities(network, entities, tmp_path / "sides", FACTS)
    found = TwoStepSearch(network, sides, *index_sides(sides, ExactSettings())).search(given(drawn.mentions), 6)
    expected = search_all(network, sides, given(drawn.mentions), 6)
    np.testing.assert_array_equal(found.entities, expected.entities)
    assert np.isfinite(found.scores).all()
    # the one with many pictures pads nobody else: the others score as they do without it
    fewer = FeatureTable(text=table.text, words=entities.words, pictures=Pictures(
        whole=whole.whole, patches=laid_end_to_end([*patches[:4], patches[4][-49:], patches[5]], 12)))  # fmt: skip
    other = search_all(network, prepare_entities(network, fewer, tmp_path / "fewer", FACTS), given(drawn.mentions), 6)
    for mention in range(6):
        one = dict(zip(expected.entities[mention], expected.scores[mention], strict=True))
        two = dict(zip(other.entities[mention], other.scores[mention], strict=True))
        assert all(one[entity] == pytest.approx(two[entity], abs=1e-3) for entity in (0, 1, 2, 3, 5))


def test_an_index_of_another_matcher_or_kb_is_refused(small: tuple[M3el, Crowd, PreparedSides]) -> None:
    network, _, sides = small
    index, longest = index_sides(sides, ExactSettings())
    other = M3el(replace(SETTINGS, width=8)).eval()
    with pytest.raises(BadInput, match="9 vectors of length"):
        TwoStepSearch(other, sides, index, longest)
    fewer = build_index(lifted_entities(sides.vectors[:5])[0], ExactSettings())
    with pytest.raises(BadInput, match="5 vectors"):
        TwoStepSearch(network, sides, fewer, longest)
    with pytest.raises(BadInput, match="certainty"):
        TwoStepSettings(certainty=-1.0)


# --- sides on disk ----------------------------------------------------------------------------------------------


def test_sides_that_stand_are_not_made_again_and_those_of_other_facts_are(
    small: tuple[M3el, Crowd, PreparedSides], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, drawn, sides = small
    other = prepare_entities(network, drawn.entities, tmp_path / "sides", {**FACTS, "made_from": "a changed KB"})
    np.testing.assert_array_equal(other.vectors, sides.vectors)
    with pytest.raises(BadInput, match="another made_from"):
        PreparedSides(tmp_path / "sides", FACTS)
    monkeypatch.setattr(M3el, "entities", lambda *_: pytest.fail("made again"))
    prepare_entities(network, drawn.entities, tmp_path / "sides", {**FACTS, "made_from": "a changed KB"})


def test_a_stopped_run_goes_on_behind_its_last_piece_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network, drawn = M3el(SETTINGS).eval(), crowd(50, 2, clustered=False)
    monkeypatch.setattr("localmel.matchers.prepared._ROWS_AT_ONCE", 8)
    prepare_entities(network, drawn.entities, tmp_path / "whole", FACTS)
    asked: list[list[int]] = []

    class Stopping(FeatureTable):
        __slots__ = ()
        stop_at = 24

        def of(self, positions):  # type: ignore[no-untyped-def]
            if len(positions):
                asked.append(positions.tolist())
            if self.stop_at in positions:
                raise KeyboardInterrupt
            return super().of(positions)

    stopping = Stopping(text=drawn.entities.text, words=drawn.entities.words, pictures=drawn.entities.pictures)
    with pytest.raises(KeyboardInterrupt):
        prepare_entities(network, stopping, tmp_path / "stopped", FACTS)
    assert not (tmp_path / "stopped").exists()
    monkeypatch.setattr(Stopping, "stop_at", -1)
    asked.clear()
    prepare_entities(network, stopping, tmp_path / "stopped", FACTS)
    assert asked[0][0] == 24
    name = "columns.safetensors"
    assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["stopped", "whole"]


def test_an_index_is_kept_with_the_sides_it_was_made_from(
    small: tuple[M3el, Crowd, PreparedSides], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, drawn, sides = small
    made = index_sides(sides, ExactSettings(), tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr("localmel.matchers.prepared.build_index", lambda *_: pytest.fail("built again"))
        kept = index_sides(sides, ExactSettings(), tmp_path / "index")
    for index, longest in (made, kept):
        found = TwoStepSearch(network, sides, index, longest).search(given(drawn.mentions), 5)
        np.testing.assert_array_equal(found.entities, search_all(network, sides, given(drawn.mentions), 5).entities)
    assert index_sides(sides, ExactSettings(kind="int8"), tmp_path / "index")[0].settings.kind == "int8"
    changed = prepare_entities(network, crowd(9, 1, clustered=True).entities, tmp_path / "other", FACTS)
    lifted, _ = lifted_entities(changed.vectors)
    best = index_sides(changed, ExactSettings(), tmp_path / "index")[0].search(lifted, 1)[1]
    np.testing.assert_array_equal(best[:, 0], np.arange(9))


def test_damaged_sides_are_refused(small: tuple[M3el, Crowd, PreparedSides], tmp_path: Path) -> None:
    path = tmp_path / "sides" / "columns.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CorruptArtifact, match="damaged"):
        PreparedSides(tmp_path / "sides", FACTS)
