"""The triples that entities hand to the fusion network, beside what the KB's own rows say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.encode.kb_vectors import KbVectors
from localmel.encode.space import Space
from localmel.kb.packed import PackedKb, pack, phrase_texts, relation_texts
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.kb_triples import KbTriples, TripleArrays, pieces_of

WIDTH = 5
MANY = 40
ENTITIES = [{"id": f"Q{number}", "label": f"Name {number}"} for number in range(6)]
FACTS = [
    ("Q0", "occupation", "", "painter"),
    ("Q0", "born", "", "1881-10-25"),
    ("Q0", "country", "Q3", "Name 3"),
    ("Q1", "occupation", "", "painter"),
    ("Q1", "occupation", "", "sculptor"),
    ("Q4", "country", "Q3", "Name 3"),
    *(("Q5", "member of", "", f"club {number}") for number in range(MANY)),
]


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Iterator[KnowledgeBase]:
    opened = KnowledgeBase(change_kb(ENTITIES, FACTS))
    yield opened
    opened.close()


def vectors_of(kb: KnowledgeBase, packed: PackedKb) -> KbVectors:
    """A vector for each phrase and relation by which it is known again; zero for the bare date."""
    texts = list(phrase_texts(kb, packed))
    phrases = np.arange(1, 1 + len(texts) * WIDTH, dtype=np.float16).reshape(-1, WIDTH)
    phrases[[text.startswith("born") for text in texts]] = 0
    n_relations = len(list(relation_texts(kb)))
    return KbVectors(
        space=Space(name="numbers", width=WIDTH, weights_sha256=""),
        entities=np.zeros((len(packed.rows), WIDTH), np.float16),
        phrases=phrases,
        relations=-np.arange(1, 1 + n_relations * WIDTH, dtype=np.float16).reshape(-1, WIDTH),
    )


def said(arrays: TripleArrays, row: int, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors) -> list[str]:
    """The triples of one row in words, by their vectors; each pair must hold the relation of its phrase."""
    texts, relations = list(phrase_texts(kb, packed)), list(relation_texts(kb))
    found = []
    for pair in arrays.triples[arrays.starts[row] : arrays.starts[row + 1]]:
        tail = arrays.tails[arrays.pair_tail[pair]]
        relation = arrays.relations[arrays.pair_relation[pair]]
        (phrase,) = np.flatnonzero((vectors.phrases == tail.astype(np.float16)).all(axis=1))
        (place,) = np.flatnonzero((vectors.relations == relation.astype(np.float16)).all(axis=1))
        assert texts[phrase].startswith(f"{relations[place]}: ")
        found.append(texts[phrase])
    return found


def test_an_entity_hands_out_its_triples_and_no_bare_date(kb: KnowledgeBase) -> None:
    packed = pack(kb)
    vectors = vectors_of(kb, packed)
    arrays = KbTriples(packed, vectors).of(np.array([1, 0, 2, 4]))
    assert said(arrays, 0, kb, packed, vectors) == ["occupation: painter", "occupation: sculptor"]
    assert said(arrays, 1, kb, packed, vectors) == ["occupation: painter", "country: Name 3"]
    assert said(arrays, 2, kb, packed, vectors) == []
    assert said(arrays, 3, kb, packed, vectors) == ["country: Name 3"]
    assert len(arrays.tails) == 3  # what several share stands once


def test_rows_can_be_asked_for_without_their_triples(kb: KnowledgeBase) -> None:
    packed = pack(kb)
    vectors = vectors_of(kb, packed)
    arrays = KbTriples(packed, vectors).of(np.array([0, 1, 5]), without=np.array([True, False, True]))
    assert np.diff(arrays.starts).tolist() == [0, 2, 0]
    assert said(arrays, 1, kb, packed, vectors) == ["occupation: painter", "occupation: sculptor"]


def test_of_too_many_triples_the_same_pairs_are_drawn_whatever_stands_beside(kb: KnowledgeBase) -> None:
    packed = pack(kb)
    vectors = vectors_of(kb, packed)
    triples = KbTriples(packed, vectors, most=7)
    alone = said(triples.of(np.array([5])), 0, kb, packed, vectors)
    beside = said(triples.of(np.array([0, 5, 1])), 1, kb, packed, vectors)
    assert alone == beside
    assert len(set(alone)) == 7
    other_seed = said(KbTriples(packed, vectors, most=7, seed=1).of(np.array([5])), 0, kb, packed, vectors)
    assert other_seed != alone
    assert triples.counts().tolist() == [2, 2, 0, 0, 1, 7]
    assert triples.n_sampled() == 1


def test_every_triple_is_drawn_about_equally_often(kb: KnowledgeBase) -> None:
    packed = pack(kb)
    vectors = vectors_of(kb, packed)
    times: dict[str, int] = {}
    for seed in range(200):
        drawn = KbTriples(packed, vectors, most=10, seed=seed).of(np.array([5]))
        for text in said(drawn, 0, kb, packed, vectors):
            times[text] = times.get(text, 0) + 1
    assert len(times) == MANY
    assert 25 <= min(times.values()) <= max(times.values()) <= 80  # 50 expected, 6 the deviation


def test_nobody_has_no_triples(kb: KnowledgeBase) -> None:
    packed = pack(kb)
    arrays = KbTriples(packed, vectors_of(kb, packed)).of(np.zeros(0, np.int64))
    assert arrays.starts.tolist() == [0]
    assert len(arrays.triples) == len(arrays.tails) == 0


@pytest.mark.parametrize("seed", range(5))
def test_pieces_hold_every_entity_once_and_are_bounded(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import localmel.matchers.kgmel.kb_triples as module

    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 16)
    monkeypatch.setattr(module, "_TRIPLES_AT_ONCE", 50)
    counts: Any = np.random.default_rng(seed).integers(0, 30, 200)
    counts[17] = 400  # more than a piece: it stands alone
    pieces = list(pieces_of(counts))
    assert sorted(np.concatenate(pieces).tolist()) == list(range(200))
    for piece in pieces:
        assert len(piece) <= 16
        assert counts[piece].sum() <= 50 or len(piece) == 1
    flat = counts[np.concatenate(pieces)]
    assert (np.diff(flat) >= 0).all()  # of one length as far as that goes
