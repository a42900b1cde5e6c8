"""The vectors of a KB's texts: what is encoded after a change, after a kill, and what is never served.

The encoder is scripted: it makes a vector from a hash of the text, and remembers what it was asked.  What these tests
are about is the bookkeeping around it."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.encode.kb_vectors import drop_index, index_kb, index_texts, load_texts, load_vectors
from localmel.encode.minilm import MiniLM
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, UsageError
from localmel.kb.packed import entity_texts, phrase_texts, relation_texts
from localmel.kb.store import KnowledgeBase
from localmel.kb.texts import ABSTRACT, WRITTEN, KeptText, keep_texts, named_texts
from localmel.kb.write import remove_from_kb
from localmel.store.progress import Listener, listening

ROOT = Path(__file__).resolve().parents[2]
ChangeKb = Callable[..., Path]
WIDTH = 8


class Scripted:
    """A text encoder that needs no model."""

    def __init__(self, name: str = "scripted", weights: str = "a" * 64) -> None:
        self.space = Space(name=name, width=WIDTH, weights_sha256=weights)
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> Any:
        self.asked += texts
        on_texts(len(texts))
        return np.stack([self.vector(text) for text in texts])

    def vector(self, text: str) -> Any:
        seed = int.from_bytes(hashlib.sha256((self.space.weights_sha256 + text).encode()).digest()[:8], "little")
        values = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
        return values / np.linalg.norm(values)


class Failing(Scripted):
    """Fails at its second call, as a run does whose machine loses power."""

    def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> Any:
        if self.asked:
            raise RuntimeError("the power is gone")
        return super().encode(texts, on_texts)


ENTITIES = [
    {"id": "Q1", "label": "Jordan", "description": "a river"},
    {"id": "Q2", "label": "Jordan", "description": "a kingdom"},
    {"id": "Q3", "label": "Amman"},
]
FACTS = [
    ("Q1", "flows into", "", "Dead Sea"),
    ("Q2", "capital", "Q3", "Amman"),
    ("Q2", "founded", "", "1946-05-25"),
    ("Q2", "population", "", "11.3"),
    ("Q3", "country", "Q2", "Jordan"),
]


@pytest.fixture
def open_kb() -> Any:
    opened: list[KnowledgeBase] = []

    def open_one(folder: Path) -> KnowledgeBase:
        opened.append(KnowledgeBase(folder))
        return opened[-1]

    yield open_one
    for kb in opened:
        kb.close()


def check_everything(kb: KnowledgeBase, encoder: Scripted) -> None:
    """Every row holds the vector of its own text."""
    packed, vectors = load_vectors(kb, encoder.space)
    texts = list(entity_texts(kb))
    assert vectors.entities.shape == (len(texts), WIDTH)
    for row, text in zip(vectors.entities, texts, strict=True):
        assert np.array_equal(row, encoder.vector(text).astype(np.float16)), text
    phrases = list(phrase_texts(kb, packed))
    assert vectors.phrases.shape == (len(phrases), WIDTH)
    for row, text in zip(vectors.relations, relation_texts(kb), strict=True):
        assert np.array_equal(row, encoder.vector(text).astype(np.float16)), text
    for row, text in zip(vectors.phrases, phrases, strict=True):
        is_number = text in ("founded: 1946-05-25", "population: 11.3")
        wanted = np.zeros(WIDTH, np.float16) if is_number else encoder.vector(text).astype(np.float16)
        assert np.array_equal(row, wanted), text


def test_every_text_gets_its_own_vector_and_bare_numbers_get_none(change_kb: ChangeKb, open_kb: Any) -> None:
    kb, encoder = open_kb(change_kb(ENTITIES, FACTS)), Scripted()
    assert index_kb(kb, encoder) == 3 + 3 + 5
    check_everything(kb, encoder)
    assert not {"founded: 1946-05-25", "population: 11.3"} & set(encoder.asked)


def test_a_second_index_encodes_nothing(change_kb: ChangeKb, open_kb: Any) -> None:
    kb = open_kb(change_kb(ENTITIES, FACTS))
    index_kb(kb, Scripted())
    encoder = Scripted()
    assert index_kb(kb, encoder) == 0
    assert encoder.asked == []
    check_everything(kb, encoder)


def test_after_an_addition_only_new_texts_are_encoded(change_kb: ChangeKb, open_kb: Any) -> None:
    folder = change_kb(ENTITIES, FACTS)
    index_kb(open_kb(folder), Scripted())
    change_kb(
        [{"id": "Q4", "label": "Petra"}],
        [("Q4", "country", "Q2", "Jordan"), ("Q4", "built by", "", "Nabataeans")],
        add=True,
    )
    encoder, kb = Scripted(), open_kb(folder)
    assert index_kb(kb, encoder) == 3
    texts = ["Petra. country Jordan; built by Nabataeans", "built by", "built by: Nabataeans"]
    assert sorted(encoder.asked) == texts
    check_everything(kb, encoder)


def test_a_changed_description_is_encoded_anew(change_kb: ChangeKb, open_kb: Any) -> None:
    folder = change_kb(ENTITIES, FACTS)
    index_kb(open_kb(folder), Scripted())
    change_kb([{"id": "Q3", "label": "Amman", "description": "city"}], add=True, update=True)
    encoder, kb = Scripted(), open_kb(folder)
    assert index_kb(kb, encoder) == 1
    check_everything(kb, encoder)


def test_after_a_removal_nothing_is_encoded_and_positions_are_right(change_kb: ChangeKb, open_kb: Any) -> None:
    folder = change_kb(ENTITIES, FACTS)
    index_kb(open_kb(folder), Scripted())
    remove_from_kb(folder, ["Q1"])
    encoder, kb = Scripted(), open_kb(folder)
    index_kb(kb, encoder)
    assert encoder.asked == []
    check_everything(kb, encoder)


def test_a_kb_that_was_never_indexed_says_which_command_does_it(change_kb: ChangeKb, open_kb: Any) -> None:
    kb = open_kb(change_kb(ENTITIES, FACTS))
    for name, note in (
        ("all-MiniLM-L6-v2", ""),
        ("clip-512-abc", "   # with the --profile whose encoder is clip-512-abc"),
    ):
        with pytest.raises(BadInput, match="has no index") as caught:
            load_vectors(kb, Scripted(name).space)
        assert caught.value.hint == f"localmel index {kb.folder}{note}"


def test_a_stale_index_is_refused_and_not_served(change_kb: ChangeKb, open_kb: Any) -> None:
    folder = change_kb(ENTITIES, FACTS)
    encoder = Scripted()
    index_kb(open_kb(folder), encoder)
    change_kb([{"id": "Q4", "label": "Petra"}], add=True)
    with pytest.raises(BadInput, match="changed"):
        load_vectors(open_kb(folder), encoder.space)


def test_vectors_of_another_encoder_are_refused_and_not_reused(change_kb: ChangeKb, open_kb: Any) -> None:
    kb = open_kb(change_kb(ENTITIES, FACTS))
    index_kb(kb, Scripted())
    with pytest.raises(BadInput, match="has no index"):
        load_vectors(kb, Scripted(name="other").space)
    newer = Scripted(weights="b" * 64)  # the same name, other bytes
    with pytest.raises(BadInput):
        load_vectors(kb, newer.space)
    assert index_kb(kb, newer) == 6 + 5
    check_everything(kb, newer)


def test_damaged_vectors_are_found_and_made_anew(change_kb: ChangeKb, open_kb: Any) -> None:
    kb, encoder = open_kb(change_kb(ENTITIES, FACTS)), Scripted()
    index_kb(kb, encoder)
    (file,) = (kb.folder / "vectors" / "scripted").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(CorruptArtifact, match="damaged") as caught:
        load_vectors(kb, encoder.space)
    assert caught.value.exit_code == 6
    assert caught.value.hint
    assert index_kb(kb, Scripted()) == 6 + 5
    check_everything(kb, encoder)


def test_a_dropped_index_is_gone(change_kb: ChangeKb, open_kb: Any) -> None:
    kb, encoder = open_kb(change_kb(ENTITIES, FACTS)), Scripted()
    index_kb(kb, encoder)
    drop_index(kb)
    with pytest.raises(BadInput):
        load_vectors(kb, encoder.space)
    assert sorted(path.name for path in kb.folder.iterdir() if not path.name.startswith("kb.sqlite")) == ["vectors"]


def test_progress_adds_up(change_kb: ChangeKb, open_kb: Any) -> None:
    totals: dict[str, int] = {}
    done: dict[str, int] = {}
    steps: list[str] = []

    def on_step(what: str, total: int, _unit: str) -> None:
        totals[what] = total
        steps.append(what)

    def on_done(more: int) -> None:
        done[steps[-1]] = done.get(steps[-1], 0) + more

    many = [{"id": f"Q{number}", "label": f"Town {number}"} for number in range(5000)]
    kb = open_kb(change_kb(many))
    with listening(Listener(on_step=on_step, on_done=on_done)):
        index_kb(kb, Scripted())
    assert done == totals == {"reading triples": 5000, "encoding": 5000}


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_kb_vectors import Scripted
from localmel.encode.kb_vectors import index_kb
from localmel.kb.store import KnowledgeBase

class Dying(Scripted):
    def encode(self, texts, on_texts=lambda _: None):
        if len(self.asked) >= 8000:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts, on_texts)

index_kb(KnowledgeBase(Path(sys.argv[1])), Dying())
"""


def test_a_killed_run_goes_on_where_it_was(change_kb: ChangeKb, open_kb: Any) -> None:
    many = [{"id": f"Q{number}", "label": f"Town {number}"} for number in range(10_000)]
    folder = change_kb(many)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kb, encoder = open_kb(folder), Scripted()
    with pytest.raises(BadInput, match="has no index"):
        load_vectors(kb, encoder.space)
    (record,) = (folder / "vectors").glob(".*.encoding.*")
    whole = record.stat().st_size
    with record.open("ab") as file:
        file.write(b"\x7f" * 13)  # what a kill in the middle of a write leaves
    assert index_kb(kb, encoder) == 10_000 - 8192
    assert whole == 8192 * (8 + 2 * WIDTH)
    check_everything(kb, encoder)
    assert sorted(path.name for path in (folder / "vectors").iterdir()) == ["scripted"], "nothing is left behind"


def test_a_record_of_an_unfinished_run_of_other_weights_is_not_used(change_kb: ChangeKb, open_kb: Any) -> None:
    kb = open_kb(change_kb(ENTITIES, FACTS))
    with pytest.raises(RuntimeError):
        index_kb(kb, Failing())
    newer = Scripted(weights="b" * 64)
    assert index_kb(kb, newer) == 6 + 5
    check_everything(kb, newer)


def test_a_vector_from_the_cache_has_the_bytes_of_a_new_one(change_kb: ChangeKb, open_kb: Any, encoder: MiniLM) -> None:
    """With the real model: the starter's way, index, add, index, against one index of everything."""
    folder = change_kb(ENTITIES, FACTS)
    index_kb(open_kb(folder), encoder)
    more = [{"id": "Q4", "label": "Petra", "description": "city cut into rock"}]
    change_kb(more, add=True)
    index_kb(open_kb(folder), encoder)
    whole = change_kb([*ENTITIES, *more], FACTS, name="whole")
    index_kb(open_kb(whole), encoder)
    _, grown = load_vectors(open_kb(folder), encoder.space)
    _, made = load_vectors(open_kb(whole), encoder.space)
    assert np.abs(grown.entities.astype(np.float32) - made.entities.astype(np.float32)).max() < 2e-3
    assert np.abs(grown.phrases.astype(np.float32) - made.phrases.astype(np.float32)).max() < 2e-3


# --- abstracts and written descriptions ---------------------------------------------------------


@pytest.fixture
def with_abstracts(change_kb: ChangeKb, open_kb: Any) -> KnowledgeBase:
    folder = change_kb([{"id": f"Q{n}", "label": f"Name {n}"} for n in range(5)])
    keep_texts(folder, ABSTRACT, "", [KeptText(entity_id="Q1", text="one"), KeptText(entity_id="Q3", text="three")])
    kb: KnowledgeBase = open_kb(folder)
    return kb


def test_there_is_a_unit_row_for_each_text_and_zero_for_none(with_abstracts: KnowledgeBase) -> None:
    encoder = Scripted()
    assert index_texts(with_abstracts, encoder, ABSTRACT) == 2
    found = load_texts(with_abstracts, encoder.space, ABSTRACT)
    assert found.vectors.shape == (5, WIDTH)
    assert found.has_text(np.arange(5)).tolist() == [False, True, False, True, False]
    texts = list(named_texts(with_abstracts, ABSTRACT))
    assert encoder.asked == [texts[1], texts[3]] == ["Name 1: one", "Name 3: three"]
    np.testing.assert_allclose(found.vectors[[1, 3]], Scripted().encode([texts[1], texts[3]]), atol=1e-3)


def test_only_new_texts_are_encoded_and_stale_vectors_are_refused(with_abstracts: KnowledgeBase) -> None:
    encoder = Scripted()
    index_texts(with_abstracts, encoder, ABSTRACT)
    keep_texts(with_abstracts.folder, ABSTRACT, "", [KeptText(entity_id="Q0", text="zero")])
    with pytest.raises(BadInput, match="have another texts"):
        load_texts(with_abstracts, encoder.space, ABSTRACT)
    assert index_texts(with_abstracts, encoder, ABSTRACT) == 1
    assert load_texts(with_abstracts, encoder.space, ABSTRACT).has_text(np.arange(5)).sum() == 3
    with pytest.raises(BadInput, match="have another weights_sha256") as caught:
        load_texts(with_abstracts, Scripted(weights="b" * 64).space, ABSTRACT)
    assert "localmel kb texts" in caught.value.hint


def test_each_source_has_its_own_folder_and_its_own_model(with_abstracts: KnowledgeBase) -> None:
    encoder = Scripted()
    with pytest.raises(BadInput, match="has no descriptions that a model wrote") as caught:
        index_texts(with_abstracts, encoder, WRITTEN)
    assert "localmel kb describe" in caught.value.hint
    keep_texts(with_abstracts.folder, WRITTEN, "llama", [KeptText(entity_id="Q0", text="by llama")])
    assert index_texts(with_abstracts, encoder, WRITTEN) == 1
    keep_texts(with_abstracts.folder, WRITTEN, "qwen", [KeptText(entity_id="Q0", text="by qwen")])
    with pytest.raises(UsageError, match="2 models wrote"):
        load_texts(with_abstracts, encoder.space, WRITTEN)
    assert load_texts(with_abstracts, encoder.space, WRITTEN, model="llama").model == "llama"
    with pytest.raises(BadInput, match="have another texts, model"):
        load_texts(with_abstracts, encoder.space, WRITTEN, model="qwen")
    folders = sorted(path.name for path in (with_abstracts.folder / "vectors").iterdir())
    assert folders == ["scripted.written"]


def test_an_interrupted_run_goes_on_and_damage_is_named(
    with_abstracts: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localmel.encode.kb_vectors._TEXTS_AT_ONCE", 2)
    encoder = Failing()
    with pytest.raises(RuntimeError):
        index_texts(with_abstracts, encoder, ABSTRACT)
    with pytest.raises(BadInput, match="has no vectors of its abstracts"):
        load_texts(with_abstracts, encoder.space, ABSTRACT)
    assert index_texts(with_abstracts, Scripted(), ABSTRACT) == 1, "the other was kept"
    file = with_abstracts.folder / "vectors" / "scripted.abstracts" / "vectors.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CorruptArtifact) as caught:
        load_texts(with_abstracts, encoder.space, ABSTRACT)
    assert "localmel kb texts" in caught.value.hint
    assert index_texts(with_abstracts, Scripted(), ABSTRACT) == 2
