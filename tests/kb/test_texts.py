"""Texts beside the descriptions of a KB: imported abstracts and what models wrote, each with its source."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import BadInput, UsageError
from localmel.kb.abstracts import import_abstracts
from localmel.kb.importers import Problems
from localmel.kb.schema import DATABASE
from localmel.kb.store import KnowledgeBase
from localmel.kb.texts import (
    ABSTRACT,
    WRITTEN,
    KeptText,
    all_entity_texts,
    entity_texts,
    keep_texts,
    named_texts,
    text_counts,
    texts_of,
    texts_state,
)
from localmel.kb.write import add_to_kb, build_kb, remove_from_kb
from localmel.store.progress import Listener, listening
from tests.kb.conftest import MemorySource, new_entity

MakeKb = Callable[..., Path]


@pytest.fixture
def kb(make_kb: MakeKb) -> Path:
    return make_kb()


def abstracts(folder: Path, *rows: dict[str, str], name: str = "a.jsonl", **given: Any) -> Any:
    path = folder.parent / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_abstracts(folder, [path], given.pop("problems", Problems()), **given)


def written(folder: Path, entity_id: str, text: str, model: str = "llama", **facts: Any) -> int:
    return keep_texts(folder, WRITTEN, model, [KeptText(entity_id=entity_id, text=text, facts=facts)])


def state_of(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        every = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("entities", "names", "meta")]
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'texts'").fetchall()
        return [*every, connection.execute("SELECT * FROM texts").fetchall() if there else []]


# --- abstracts ------------------------------------------------------------------------------------------------------


def test_abstracts_stand_beside_the_descriptions(kb: Path) -> None:
    with closing(KnowledgeBase(kb)) as before:
        fingerprint, description = before.fingerprint, before.entity("Q810").description
    read = abstracts(
        kb,
        {"id": "Q810", "abstract": "'''Jordan''' is a country. " + "It has borders. " * 100},
        {"id": "Q810", "abstract": "another"},
        {"id": "Q999", "abstract": "nobody"},
        {"id": "Q90", "abstract": "{{only markup}}"},
        {"title": "Unheard of", "abstract": "x"},
    )
    counts = (read.abstracts, read.kept, read.unknown, read.empty, read.twice, read.cut, read.problems)
    assert counts == (5, 1, 2, 1, 1, 1, 0)
    with closing(KnowledgeBase(kb)) as base:
        (text,) = texts_of(base, "Q810")
        assert text.text.startswith("Jordan is a country. It has borders.")
        assert text.text.endswith("borders.")
        assert len(text.text) <= 1000
        assert (text.source, text.model, text.facts) == (ABSTRACT, "", {"from": "a.jsonl", "cut": True})
        assert base.entity("Q810").description == description
        assert base.fingerprint == fingerprint, "no index is made from abstracts: none becomes stale"


def test_a_second_import_replaces_what_it_has_and_leaves_the_others(kb: Path) -> None:
    abstracts(kb, {"id": "Q810", "abstract": "one"}, {"id": "Q90", "abstract": "two"})
    with closing(KnowledgeBase(kb)) as base:
        first = texts_state(base, ABSTRACT)
    abstracts(kb, {"id": "Q810", "abstract": "three"})
    with closing(KnowledgeBase(kb)) as base:
        assert [text.text for one in ("Q810", "Q90") for text in texts_of(base, one)] == ["three", "two"]
        assert texts_state(base, ABSTRACT) != first != ""


def test_titles_are_mapped_by_a_table_and_never_guessed(kb: Path, tmp_path: Path) -> None:
    rows = [
        {"title": "Michael_Jordan", "abstract": "a player"},
        {"title": "Jordan", "abstract": "a land"},
        {"title": "Jordan (river)", "abstract": "a river"},
        {"title": "Apple", "abstract": "a fruit"},
    ]
    with pytest.raises(BadInput, match=r"none of 4 abstracts was kept .*unknown: 4") as caught:
        abstracts(kb, *rows)
    assert "--titles" in caught.value.hint
    titles = tmp_path / "titles.tsv"
    titles.write_text("Jordan (river)\tQ1\nNobody\tQ999\n\n")
    read = abstracts(kb, *rows, titles=titles)
    assert (read.kept, read.unknown, read.ambiguous) == (1, 3, 0)
    read = abstracts(kb, *rows, titles=titles, by_label=True)
    assert (read.kept, read.unknown, read.ambiguous) == (3, 0, 1)
    with closing(KnowledgeBase(kb)) as base:
        found = {one: [text.text for text in texts_of(base, one)] for one in ("Q41421", "Q810", "Q1", "Q13")}
    assert found == {"Q41421": ["a player"], "Q810": [], "Q1": ["a river"], "Q13": ["a fruit"]}


def test_a_bad_line_or_a_broken_file_changes_nothing(kb: Path, tmp_path: Path) -> None:
    before = state_of(kb)
    for broken in ('{"id": "Q810", "abstract": "x"}\nnot json\n', '{"id": "Q1", "abstract": "x"}\n{"id": 7}\n'):
        (tmp_path / "bad.jsonl").write_text(broken)
        with pytest.raises(BadInput, match=r"bad\.jsonl:2: "):
            import_abstracts(kb, [tmp_path / "bad.jsonl"], Problems())
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(BadInput, match="cut off"):
        import_abstracts(kb, [tmp_path / "cut.jsonl.gz"], Problems())
    with pytest.raises(BadInput, match="cannot read"):
        import_abstracts(kb, [tmp_path / "absent.jsonl"], Problems())
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(BadInput, match="the files hold no abstract in language 'en'"):
        import_abstracts(kb, [tmp_path / "empty.jsonl"], Problems())
    with pytest.raises(UsageError, match="too few"):
        abstracts(kb, {"id": "Q1", "abstract": "x"}, most=10)
    assert state_of(kb) == before


def test_an_import_that_is_interrupted_changes_nothing(kb: Path, tmp_path: Path) -> None:
    before = state_of(kb)
    rows = [json.dumps({"id": "Q810", "abstract": f"{number} " + "x" * 900}) for number in range(3000)]
    (tmp_path / "long.jsonl").write_text("\n".join(rows))
    pieces: list[int] = []

    def stop(more: int) -> None:
        pieces.append(more)
        if len(pieces) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(Listener(on_done=stop)):
        import_abstracts(kb, [tmp_path / "long.jsonl"], Problems())
    assert state_of(kb) == before


def test_with_a_listener_bad_lines_are_left_out(kb: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "Q810", "abstract": "x"}\nnot json\n')
    heard: list[Exception] = []
    read = import_abstracts(kb, [tmp_path / "bad.jsonl"], Problems(on_problem=heard.append))
    assert (read.kept, read.problems, len(heard)) == (1, 1, 1)


# --- what models write ----------------------------------------------------------------------------------------------


def test_what_a_model_wrote_overwrites_neither_source_nor_another_model(kb: Path) -> None:
    abstracts(kb, {"id": "Q810", "abstract": "Jordan is a country."})
    assert written(kb, "Q810", "A land.", "llama", known=True) == 1
    assert written(kb, "Q810", "A kingdom.", "qwen", known=False, names=["Petra"]) == 1
    assert written(kb, "Q810", "A dry land.", "llama", known=True, names=[], years=["1946"]) == 1
    assert written(kb, "Q999", "Nobody.") == 0
    with closing(KnowledgeBase(kb)) as base:
        found = [(one.source, one.model, one.text) for one in texts_of(base, "Q810")]
        assert found == [
            ("abstract", "", "Jordan is a country."),
            ("written", "llama", "A dry land."),
            ("written", "qwen", "A kingdom."),
        ]
        assert base.entity("Q810").description == "country in Western Asia"
        counts = [(one.source, one.model, one.entities, one.doubtful) for one in text_counts(base)]
        assert counts == [("abstract", "", 1, 0), ("written", "llama", 1, 1), ("written", "qwen", 1, 1)]


def test_static_and_written_texts_of_rows(kb: Path) -> None:
    abstracts(kb, {"id": "Q810", "abstract": "Jordan is a country."}, {"id": "Q90", "abstract": "It is a city."})
    written(kb, "Q90", "The capital of France.")
    with closing(KnowledgeBase(kb)) as base:
        rows = [base.row(one) for one in ("Q90", "Q810", "Q41421", "Q892")]
        found = [(one.static, one.written) for one in entity_texts(base, rows)]
        assert found == [
            ("Paris: It is a city.", "Paris: The capital of France."),
            ("Jordan is a country.", ""),
            ("Michael Jordan: American basketball player", ""),
            ("J. R. R. Tolkien", ""),
        ]
        every = list(all_entity_texts(base))
        assert len(every) == len(base)
        assert [every[row - 1] for row in rows] == entity_texts(base, rows)
        assert sum(map(bool, named_texts(base, ABSTRACT))) == 2
        assert sum(1 for _ in named_texts(base, WRITTEN, "llama")) == len(base)


def test_where_several_models_wrote_one_has_to_be_named(kb: Path) -> None:
    written(kb, "Q90", "One.", "llama")
    written(kb, "Q90", "Two.", "qwen")
    with closing(KnowledgeBase(kb)) as base:
        rows = [base.row("Q90")]
        with pytest.raises(UsageError, match="2 models wrote texts"):
            entity_texts(base, rows)
        assert entity_texts(base, rows, model="qwen")[0].written == "Paris: Two."
        with pytest.raises(UsageError, match=r"model 'gpt' wrote no text in kb"):
            entity_texts(base, rows, model="gpt")


def test_a_kb_without_texts_is_read_as_ever(people: KnowledgeBase) -> None:
    assert texts_of(people, "Q810") == []
    assert text_counts(people) == []
    assert texts_state(people, ABSTRACT) == ""
    assert list(named_texts(people, ABSTRACT)) == []
    assert entity_texts(people, [people.row("Q892")])[0].static == "J. R. R. Tolkien"


def test_texts_go_with_their_entity_and_stay_through_an_update(kb: Path) -> None:
    abstracts(kb, {"id": "Q14", "abstract": "a band"}, {"id": "Q90", "abstract": "a city"})
    written(kb, "Q14", "Rock.")
    with closing(KnowledgeBase(kb)) as base:
        last = max(row for (row,) in base.select("SELECT row FROM entities"))
        assert base.row("Q14") == last, "the next entity takes the row again"
    remove_from_kb(kb, ["Q14"])
    add_to_kb(kb, MemorySource([new_entity("Q15", "Somebody Else")]), Problems())
    add_to_kb(kb, MemorySource([new_entity("Q90", "Paris", "Lutetia")]), Problems(), update=True)
    with closing(KnowledgeBase(kb)) as base:
        assert base.row("Q15") == last
        assert texts_of(base, "Q15") == []
        assert [one.text for one in texts_of(base, "Q90")] == ["a city"]


def test_answers_of_models_outlive_a_kb_that_is_built_again(kb: Path) -> None:
    (kb / "journals").mkdir()
    (kb / "journals" / "describe.jsonl").write_text("kept")
    build_kb(kb, MemorySource([new_entity("Q1", "One")]), Problems(), replace=True)
    assert (kb / "journals" / "describe.jsonl").read_text() == "kept"


def test_a_reader_sees_no_half_of_an_import(kb: Path) -> None:
    with closing(KnowledgeBase(kb)) as reader:
        reader.hold()
        abstracts(kb, {"id": "Q90", "abstract": "a city"})
        assert texts_of(reader, "Q90") == []
    with closing(KnowledgeBase(kb)) as reader:
        assert len(texts_of(reader, "Q90")) == 1
