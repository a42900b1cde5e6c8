"""A KB is made ready for a trained matcher once; the search finds what the matcher's own scores say; what is stale or
of another space is refused with the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from localmel.encode.kb_vectors import load_vectors
from localmel.errors import BadInput, CorruptArtifact
from localmel.kb.store import KnowledgeBase
from localmel.matchers.m3el.kind import M3elKind
from localmel.matchers.registry import ensure_indexed, index_matcher, load_matcher, open_search
from localmel.matchers.trained import TrainedMatcher
from localmel.matchers.two_step_kind import TwoStepKbSearch, matched_folder
from localmel.records import Mention, Span
from localmel.retrieve.candidates import CandidateFinder
from localmel.settings import RetrieveSettings
from tests.matchers.hashed_tokens import HashedTokens, token_encoders

TRADES = ("painter", "chemist", "goalkeeper", "judge", "singer", "farmer")
ENTITIES = [{"id": f"{name}-{trade}", "label": name, "description": f"a {trade}"} for name in ("Byron", "Ford")
            for trade in TRADES]  # fmt: skip
LEVELS = {"search": {"first": 30.0, "last": 10.0}}


@pytest.fixture
def matcher(tmp_path: Path) -> TrainedMatcher[Any]:
    kind, encoders = M3elKind(), token_encoders()
    torch.manual_seed(0)
    kind.save(tmp_path / "m3el", kind.new(encoders, width=8), encoders.text.space, None, LEVELS)
    return load_matcher(tmp_path / "m3el")


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Iterator[KnowledgeBase]:
    with KnowledgeBase(change_kb(ENTITIES)) as base:
        yield base


def mentions(*surfaces: str) -> list[Mention]:
    return [
        Mention(id=str(n), surface=one, context=f"{one}, the chemist", span=Span(start=0, end=len(one)))
        for n, one in enumerate(surfaces)
    ]


def test_the_search_finds_what_the_matchers_own_scores_say(kb: KnowledgeBase, matcher: TrainedMatcher[Any]) -> None:
    encoder = HashedTokens()
    assert index_matcher(kb, matcher, token_encoders(encoder), "auto").encoded == 2 * len(
        ENTITIES
    )  # texts and their words
    assert index_matcher(kb, matcher, token_encoders(encoder), "auto").encoded == 0
    search = open_search(kb, matcher, token_encoders(), "auto")
    given = search.shown(mentions("Byron", "Ford"))
    found = search.best(given, 5)
    for number, scores in enumerate(search.scores_of(given, [np.arange(len(ENTITIES))] * 2)):
        assert found.entities[number].tolist() == np.argsort(-scores, kind="stable")[:5].tolist()
        np.testing.assert_allclose(found.scores[number], np.sort(scores)[::-1][:5], rtol=1e-4)


def test_an_index_of_another_kind_is_kept_and_finds_the_same(kb: KnowledgeBase, matcher: TrainedMatcher[Any]) -> None:
    for kind in ("auto", "float16"):
        ensure_indexed(kb, matcher, token_encoders(), kind)
    assert matched_folder(kb, matcher).with_name(f"{matcher.sha256[:16]}.float16").is_dir()
    given = mentions("Byron")
    both = [open_search(kb, matcher, token_encoders(), kind) for kind in ("auto", "float16")]
    one, other = (search.best(search.shown(given), 4).entities.tolist() for search in both)
    assert one == other


def test_a_kind_without_a_trained_matcher_has_its_words_encoded_only(kb: KnowledgeBase) -> None:
    encoder = HashedTokens()
    M3elKind().index_features(kb, token_encoders(encoder))
    assert len(encoder.texts) == len(ENTITIES)
    assert not (kb.folder / "matched").exists()


def test_a_kb_that_is_not_ready_or_has_changed_is_refused_with_the_command(
    kb: KnowledgeBase, matcher: TrainedMatcher[Any], change_kb: Callable[..., Path]
) -> None:
    M3elKind().index_features(kb, token_encoders())
    with pytest.raises(BadInput, match="never made ready for the matcher") as never:
        open_search(kb, matcher, token_encoders(), "auto")
    assert never.value.hint.startswith(f"localmel index {kb.folder} --matcher {matcher.folder}   # with the --profile")
    index_matcher(kb, matcher, token_encoders(), "auto")
    change_kb([{"id": "new", "label": "Newman"}], add=True)
    with KnowledgeBase(kb.folder) as changed:
        M3elKind().index_features(changed, token_encoders())
        with pytest.raises(BadInput, match="has changed since it was made ready"):
            open_search(changed, matcher, token_encoders(), "auto")
        ensure_indexed(changed, matcher, token_encoders(), "auto")
        assert len(load_vectors(changed, HashedTokens.space)[0].rows) == len(ENTITIES) + 1
        open_search(changed, matcher, token_encoders(), "auto")
        columns = matched_folder(changed, matcher) / "columns.safetensors"
        columns.write_bytes(columns.read_bytes()[:-8])
        with pytest.raises(CorruptArtifact) as damaged:
            open_search(changed, matcher, token_encoders(), "auto")
    assert "localmel index" in damaged.value.hint


def test_a_matcher_trained_for_another_space_is_refused_before_anything_is_encoded(
    kb: KnowledgeBase, matcher: TrainedMatcher[Any]
) -> None:
    other = HashedTokens()
    other.space = replace(other.space, name="others")  # type: ignore[misc]
    with pytest.raises(BadInput, match=r"was trained on texts of hashed-tokens .*not of others"):
        index_matcher(kb, matcher, token_encoders(other), "auto")
    assert other.texts == []


def test_candidates_come_by_name_and_by_the_matcher_with_scores_where_cosines_stand(
    kb: KnowledgeBase, matcher: TrainedMatcher[Any]
) -> None:
    index_matcher(kb, matcher, token_encoders(), "auto")
    packed, _ = load_vectors(kb, HashedTokens.space)
    search = open_search(kb, matcher, token_encoders(), "auto")
    finder = CandidateFinder(kb, packed, search, RetrieveSettings(by_name=3, by_vector=4))
    byron, nobody = finder.find(["Byron", "Nobody"], search.shown(mentions("Byron", "Nobody")))
    assert sum(match is not None for match in byron.matches) == 3
    assert len(set(byron.positions.tolist())) == len(byron.positions)
    assert len(nobody.positions) == 4
    assert nobody.matches == (None,) * 4
    given = search.shown(mentions("Byron", "Nobody"))
    best = search.best(given, 4)
    np.testing.assert_array_equal(nobody.positions, best.entities[1])
    np.testing.assert_allclose(nobody.cosine, search.as_cosines(best.scores[1]), atol=1e-5)


def scale(matcher: TrainedMatcher[Any]) -> TwoStepKbSearch:
    """A search of which only the scale of its scores is asked."""
    nothing: Any = None
    return TwoStepKbSearch(M3elKind(), nothing, matcher, nothing, nothing, nothing, nothing)


def test_scores_are_brought_to_the_scale_of_cosines_in_their_order(matcher: TrainedMatcher[Any]) -> None:
    cosines = scale(matcher).as_cosines(np.array([30.0, 20.0, 10.0, 500.0, -500.0], np.float32))
    np.testing.assert_allclose(cosines, [0.639, 0.5205, 0.402, 1.0, -1.0], atol=1e-6)


def test_a_card_that_does_not_say_where_scores_lie_is_refused(matcher: TrainedMatcher[Any]) -> None:
    for card in ({}, {"search": {"first": 1.0, "last": 1.0}}, {"search": {"first": None, "last": 1.0}}):
        with pytest.raises(CorruptArtifact, match="does not say where its scores lie"):
            scale(replace(matcher, card=card)).as_cosines(np.ones(1, np.float32))
