"""Vectors of abstracts and of written texts: one row an entity, tied to KB, texts and encoder, encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localmel.encode.kb_vectors import index_texts, load_texts
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, UsageError
from localmel.kb.store import KnowledgeBase
from localmel.kb.texts import ABSTRACT, WRITTEN, KeptText, keep_texts, named_texts

WIDTH = 8


class Hashed:
    """A text's vector is drawn by its hash."""

    def __init__(self, weights: str = "0") -> None:
        self.space = Space(name="hashed", width=WIDTH, weights_sha256=weights * 64)
        self.texts: list[str] = []
        self.most: int | None = None

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> NDArray[Any]:
        if self.most is not None and len(self.texts) >= self.most:
            raise KeyboardInterrupt
        self.texts += texts
        rows = [np.random.default_rng(list(hashlib.sha256(one.encode()).digest())).standard_normal(8) for one in texts]
        vectors = np.array(rows, np.float32).reshape(len(texts), WIDTH)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Iterator[KnowledgeBase]:
    folder = change_kb([{"id": f"Q{n}", "label": f"Name {n}"} for n in range(5)])
    keep_texts(folder, ABSTRACT, "", [KeptText(entity_id="Q1", text="one"), KeptText(entity_id="Q3", text="three")])
    with closing(KnowledgeBase(folder)) as base:
        yield base


def test_there_is_a_unit_row_for_each_text_and_zero_for_none(kb: KnowledgeBase) -> None:
    encoder = Hashed()
    assert index_texts(kb, encoder, ABSTRACT) == 2
    found = load_texts(kb, encoder.space, ABSTRACT)
    assert found.vectors.shape == (5, WIDTH)
    assert found.has_text(np.arange(5)).tolist() == [False, True, False, True, False]
    texts = list(named_texts(kb, ABSTRACT))
    assert encoder.texts == [texts[1], texts[3]] == ["Name 1: one", "Name 3: three"]
    np.testing.assert_allclose(found.vectors[[1, 3]], Hashed().encode([texts[1], texts[3]]), atol=1e-3)


def test_only_new_texts_are_encoded_and_stale_vectors_are_refused(kb: KnowledgeBase) -> None:
    encoder = Hashed()
    index_texts(kb, encoder, ABSTRACT)
    keep_texts(kb.folder, ABSTRACT, "", [KeptText(entity_id="Q0", text="zero")])
    with pytest.raises(BadInput, match="have another texts"):
        load_texts(kb, encoder.space, ABSTRACT)
    assert index_texts(kb, encoder, ABSTRACT) == 1
    assert load_texts(kb, encoder.space, ABSTRACT).has_text(np.arange(5)).sum() == 3
    with pytest.raises(BadInput, match="have another weights_sha256") as caught:
        load_texts(kb, Hashed("1").space, ABSTRACT)
    assert "localmel kb texts" in caught.value.hint


def test_each_source_has_its_own_folder_and_its_own_model(kb: KnowledgeBase) -> None:
    encoder = Hashed()
    with pytest.raises(BadInput, match="has no descriptions that a model wrote") as caught:
        index_texts(kb, encoder, WRITTEN)
    assert "localmel kb describe" in caught.value.hint
    keep_texts(kb.folder, WRITTEN, "llama", [KeptText(entity_id="Q0", text="by llama")])
    assert index_texts(kb, encoder, WRITTEN) == 1
    keep_texts(kb.folder, WRITTEN, "qwen", [KeptText(entity_id="Q0", text="by qwen")])
    with pytest.raises(UsageError, match="2 models wrote"):
        load_texts(kb, encoder.space, WRITTEN)
    assert load_texts(kb, encoder.space, WRITTEN, model="llama").model == "llama"
    with pytest.raises(BadInput, match="have another texts, model"):
        load_texts(kb, encoder.space, WRITTEN, model="qwen")
    folders = sorted(path.name for path in (kb.folder / "vectors").iterdir())
    assert folders == ["hashed.written"]


def test_an_interrupted_run_goes_on_and_damage_is_named(kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localmel.encode.kb_vectors._TEXTS_AT_ONCE", 2)
    encoder = Hashed()
    encoder.most = 1
    with pytest.raises(KeyboardInterrupt):
        index_texts(kb, encoder, ABSTRACT)
    with pytest.raises(BadInput, match="has no vectors of its abstracts"):
        load_texts(kb, encoder.space, ABSTRACT)
    assert index_texts(kb, Hashed(), ABSTRACT) == 1, "the other was kept"
    file = kb.folder / "vectors" / "hashed.abstracts" / "vectors.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CorruptArtifact) as caught:
        load_texts(kb, encoder.space, ABSTRACT)
    assert "localmel kb texts" in caught.value.hint
    assert index_texts(kb, Hashed(), ABSTRACT) == 2
