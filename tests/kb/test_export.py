"""An export is what the import reads: nothing is lost on the way, and it is the same every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.errors import BadInput
from localmel.kb.export import HEADER, export_kb
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import Changed, build_kb
from localmel.records import Entity
from localmel.store.progress import Listener, listening
from tests.kb.conftest import MemorySource, new_entity


def bytes_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "entities.jsonl").read_bytes(), (folder / "triples.tsv").read_bytes()


def test_the_files_say_what_the_kb_holds_and_nothing_that_is_empty(
    make_kb: Callable[..., Path],
    open_kb: Callable[[Path], KnowledgeBase],
    tmp_path: Path,
) -> None:
    given = [
        new_entity("Q1", "Beyoncé", "B", popularity=0.5, description='a "singer"', image="a.jpg"),
        new_entity("Q2", "x"),
    ]
    kb = open_kb(make_kb(given, [("Q2", "knows", "Q1", "Beyoncé"), ("Q2", "born", "", "1981")]))
    assert export_kb(kb, tmp_path / "deep" / "out") == Changed(entities=2, triples=2)
    lines = (tmp_path / "deep" / "out" / "entities.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "id": "Q1",
            "label": "Beyoncé",
            "description": 'a "singer"',
            "aliases": ["B"],
            "image": "a.jpg",
            "popularity": 0.5,
        },
        {"id": "Q2", "label": "x"},
    ]
    triples = (tmp_path / "deep" / "out" / "triples.tsv").read_text()
    assert triples == f"{HEADER}Q2\tP-knows\tknows\tQ1\tBeyoncé\nQ2\tP-born\tborn\t\t1981\n"


def test_a_second_export_gives_the_same_bytes_and_leaves_nothing_beside_them(
    people: KnowledgeBase, tmp_path: Path
) -> None:
    export_kb(people, tmp_path)
    first = bytes_of(tmp_path)
    export_kb(people, tmp_path)
    assert bytes_of(tmp_path) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entities.jsonl", "triples.tsv"]


any_text = st.text(max_size=12)
labels = any_text.filter(str.strip)
sources = st.tuples(
    st.lists(
        st.builds(
            Entity,
            id=st.text("Qx:/é 1", min_size=1, max_size=4).map(lambda text: f"q{text}q"),
            label=labels,
            description=any_text,
            aliases=st.lists(labels, max_size=2).map(tuple),
            image=st.none() | labels,
            popularity=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda entity: entity.id,
    ),
    st.lists(st.tuples(st.integers(0, 3), any_text, any_text, any_text), max_size=5),
)


@settings(max_examples=60, deadline=None)
@given(drawn=sources)
def test_whatever_the_import_accepts_comes_back_from_its_export(
    drawn: tuple[list[Entity], list[tuple[int, str, str, str]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("export")
    entities = drawn[0]
    facts = [(entities[head % len(entities)].id, *rest) for head, *rest in drawn[1]]
    skipping = Problems(on_problem=lambda problem: None)
    try:
        build_kb(folder / "one", MemorySource(entities, facts), skipping)
    except BadInput:
        return  # nothing of it could be used
    with closing(KnowledgeBase(folder / "one")) as kb:
        export_kb(kb, folder / "first")
    strict = Problems()
    files = {"entities": folder / "first" / "entities.jsonl", "triples": folder / "first" / "triples.tsv"}
    build_kb(folder / "two", TablesSource(**files, problems=strict), strict)
    with closing(KnowledgeBase(folder / "two")) as kb:
        export_kb(kb, folder / "second")
    first, second = bytes_of(folder / "first"), bytes_of(folder / "second")
    assert first[1] == second[1]
    stripped = [{key: strip(value) for key, value in json.loads(line).items()} for line in first[0].splitlines()]
    assert stripped == [json.loads(line) for line in second[0].splitlines()]


def strip(value: object) -> object:
    """Blanks around a text are all that the reader takes away."""
    if isinstance(value, list):
        return [strip(part) for part in value]
    return value.strip() if isinstance(value, str) else value


def test_progress_is_told_a_total_that_it_reaches(people: KnowledgeBase, tmp_path: Path) -> None:
    totals: list[int] = []
    done: list[int] = []
    with listening(Listener(on_step=lambda what, total, _: totals.append(total), on_done=done.append)):
        export_kb(people, tmp_path)
    assert totals == [sum(done)] == [21 + 7]


def test_a_place_that_cannot_be_written_is_bad_input(people: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot make"):
        export_kb(people, tmp_path / "file")
    (tmp_path / "out" / "entities.jsonl").mkdir(parents=True)
    with pytest.raises(BadInput, match="cannot write"):
        export_kb(people, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["entities.jsonl"]
